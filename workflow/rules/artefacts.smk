# Every table and figure of `vbg.core.artefacts`: one rule each. What differs between them is in params: a shell command
# is evaluated when the job runs, after the loop.
for name, artefact in ARTEFACTS.items():
    shown = ask.artefact_datasets(NAME, name)
    if artefact.target == "collection" or not shown:
        continue
    datasets = ("{dataset}",) if artefact.datasets == "each" else shown[0]

    rule:
        name: f"artefact_{name}"
        input: [book for source in artefact.reads for book in ask.source_books(NAME, source, *datasets, seeds=SEEDS)]
        output:
            ask.artefact_files(NAME, name, *datasets),
            notebook=ask.artefact_book(NAME, name, *datasets[:1])
        wildcard_constraints: dataset="|".join(DATASETS)
        priority: 2 * (artefact.target == "quick")  # before what takes long
        threads: workflow.cores if artefact.alone else 1  # a timing needs a machine that does nothing else
        resources: gpu=int(artefact.trains and not artefact.alone)
        params:
            inputs=ask.artefact_inputs(NAME, name, marked),
            notebook=f"{artefact.group}/{name}.ipynb",
            runner=ask.runner(name),
            words=ask.artefact_words(NAME, name)
        shell: "{params.runner} {NOTEBOOKS:q}/{params.notebook} {output.notebook:q} {params.words}"
