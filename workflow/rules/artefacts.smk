# Every table and figure of `vbg.core.artefacts`: one rule each.
for name, artefact in ARTEFACTS.items():
    if artefact.target == "collection":
        continue
    each, shown = artefact.datasets == "each", ask.artefact_datasets(NAME, name)
    datasets = ("{dataset}",) if each else shown[0] if shown else ()
    given = {"all": {}, "each": dict(dataset="{wildcards.dataset}"), "first": dict(dataset="".join(datasets[:1]))}
    given = given[artefact.datasets] | (dict(sizes=ask.step_sizes(NAME)) if name == "step_cost" else {})

    rule:
        name: f"artefact_{name}"
        input: [book for source in artefact.reads for book in ask.source_books(NAME, source, *datasets)]
        output:
            ask.artefact_files(NAME, name, *datasets),
            notebook=ask.artefact_book(NAME, name, *datasets[:1])
        wildcard_constraints: dataset="|".join(DATASETS)
        threads: workflow.cores if artefact.alone else 1  # a timing needs a machine that does nothing else
        resources: gpu=int(artefact.trains and not artefact.alone)
        params: inputs=ask.artefact_inputs(NAME, name, marked)
        shell: ask.command(name, profile=NAME, **given)
