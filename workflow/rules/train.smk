# Data sets, the runs of the study, the rows of experiments, and adapted language models.


rule data:
    output: notebook=ask.book(NAME, "data", "{dataset}")
    wildcard_constraints: dataset="|".join(DATASETS)
    params: inputs=lambda w: ask.data_inputs(NAME, w.dataset)
    shell: ask.command("data", profile=NAME, dataset="{wildcards.dataset}")


rule first:  # `make reproduce` goes through it before all else, with QUICK=1 it stops there
    input: ask.book(NAME, "data", "{dataset}")
    output: notebook=ask.first_book(NAME, "{dataset}")
    wildcard_constraints: dataset="|".join(DATASETS)
    priority: 3
    resources: gpu=1
    params:
        inputs=lambda w: marked(
            ask.run_inputs(NAME, w.dataset, models=ask.STUDY_MODELS), ask.first_book(NAME, w.dataset)
        ),
        overrides=json.dumps(ask.study_overrides(NAME))
    shell:
        ask.command("train", profile=NAME, store=NAME, dataset="{wildcards.dataset}", model=ask.STUDY_MODELS,
                    seeds=PROFILE.seeds[:1], overrides="{params.overrides}")


rule train:
    input: lambda w: ask.train_needs(NAME, w.dataset, w.seed)
    output: notebook=ask.book(NAME, "train", "{dataset}", "{seed}")
    wildcard_constraints: dataset="|".join(DATASETS), seed="[0-9]+"
    priority: 1  # the study before its experiments
    resources: gpu=1
    params:
        inputs=lambda w: marked(
            ask.run_inputs(NAME, w.dataset, models=tuple(ask.models_of_seed(NAME, w.seed))),
            ask.book(NAME, "train", w.dataset, w.seed),
        ),
        models=lambda w: json.dumps(ask.models_of_seed(NAME, w.seed)),
        overrides=json.dumps(ask.study_overrides(NAME))
    shell:
        ask.command("train", profile=NAME, store=NAME, dataset="{wildcards.dataset}", model="{params.models}",
                    seeds="[{wildcards.seed}]", overrides="{params.overrides}")


ROW = dict(profile=NAME, store=f"{NAME}/{{wildcards.row}}", dataset="{wildcards.dataset}", model="{params.row[models]}",
           seeds="{params.row[seeds]}", splits="{params.row[splits]}", overrides="{params.row[overrides]}")


rule experiment:
    input: lambda w: ask.row_needs(NAME, w.row, w.dataset)
    output: notebook=ask.row_book(f"{NAME}/{{row}}", "{dataset}")
    wildcard_constraints: row=ask.row_pattern(NAME, across=False), dataset="|".join(DATASETS)
    resources: gpu=1
    params:
        inputs=lambda w: marked(
            ask.run_inputs(NAME, w.dataset, w.row), ask.row_book(f"{NAME}/{w.row}", w.dataset)
        ),
        row=lambda w: {key: json.dumps(said) for key, said in ask.experiment_rows(NAME)[f"{NAME}/{w.row}"].items()}
    shell: ask.command("train", **ROW)


rule domains:  # rows that learn in one domain for another
    input: lambda w: ask.row_needs(NAME, w.row, w.dataset)
    output: notebook=ask.row_book(f"{NAME}/{{row}}", "{dataset}")
    wildcard_constraints: row=ask.row_pattern(NAME, across=True), dataset="|".join(DATASETS)
    resources: gpu=1
    params:
        inputs=lambda w: marked(
            ask.run_inputs(NAME, w.dataset, w.row), ask.row_book(f"{NAME}/{w.row}", w.dataset)
        ),
        row=lambda w: {key: json.dumps(said) for key, said in ask.experiment_rows(NAME)[f"{NAME}/{w.row}"].items()}
    shell: ask.command("domains", **ROW)


rule language_model:
    input: ask.book(NAME, "data", "{dataset}")
    output: notebook=ask.book(NAME, "language_model", "{dataset}")
    wildcard_constraints: dataset="|".join(DATASETS)
    resources: gpu=1
    params:
        inputs=lambda w: marked(
            ask.inputs(NAME, "language_model", datasets=(w.dataset,), settings=asdict(PROFILE)),
            ask.book(NAME, "language_model", w.dataset),
        )
    shell: ask.command("language_model", profile=NAME, store=NAME, dataset="{wildcards.dataset}", seeds=PROFILE.seeds)
