# The order of the study. Every job runs one notebook through `python -m vbg.runs` (papermill with checked parameters).
# Paths are relative to the folder that holds data/, runs/ and figures/ (`snakemake --directory`).
# A job runs again when its notebook, its settings or the code that it uses changed; a comment in a module is no change.
import json
import sys
from pathlib import Path

from vbg.config import STUDY_MODELS, profile as read_profile, root
from vbg.plan import EXPERIMENTS, experiment_overrides, experiment_store
from vbg.runs import FILES, code_version, notebook_version

NAME = config.get("profile", "mini")
PROFILE = read_profile(NAME)
DATASETS = list(PROFILE.data)
if not DATASETS and not config.get("folder"):
    sys.exit(f"profile {NAME} names no data set; give a collection of yours with `make collection FOLDER=...`, or take profile mini")
MODELS = list(STUDY_MODELS)
TABLE, FIGURE = ("csv", "md", "tex", "json"), ("png", "pdf", "json")
ARTEFACTS = {  # notebook -> the files that it saves
    "table1_datasets": [f"table1_datasets.{kind}" for kind in TABLE],
    "table2_hyperparameters": [f"table2_hyperparameters.{kind}" for kind in TABLE],
    "fig5_loss_curves": [f"fig5_loss_curves.{kind}" for kind in FIGURE],
    "summary": [f"{name}.{kind}" for name in ("summary", "summary_fusion_gain") for kind in TABLE],
    "model_cost": [f"model_cost.{kind}" for kind in TABLE],
}
FIGURES, BOOK = f"figures/{NAME}", f"runs/{NAME}/notebooks"

# One kernel trains a list of models and seeds; the list is split no wider than there are cores.
PARTS = max(1, min(len(PROFILE.seeds), workflow.cores // max(1, len(DATASETS))))
SEEDS = {str(part): list(PROFILE.seeds)[part::PARTS] for part in range(PARTS)}


STUDY = root() / "nbs" / "study"


def inputs(name, *modules, **settings):
    "What a job depends on, as one text that Snakemake compares with the last run's."
    return f"{notebook_version(STUDY / (name + '.ipynb'))} {code_version(*modules)} {settings}"


def papermill(name, **parameters):
    words = {key: value if isinstance(value, str) else json.dumps(value) for key, value in parameters.items()}
    given = " ".join(f"-p {key} '{word}'" for key, word in words.items())
    limit = 7 * 24 * 3600 if name == "train" else 3600  # seconds a cell may take
    return f"python -m vbg.runs '{STUDY}/{name}.ipynb' {{output.notebook}} --timeout {limit} -p profile {NAME} {given}"


def forget_if_lost(notebook, store, dataset, models, seeds):
    "A training notebook whose run folders are not all there does not count as done."
    runs = [Path(f"runs/{store}/{dataset}/{model}/seed{seed}") for model in models for seed in seeds]
    if not all((run / name).exists() for run in runs for name in ("run.json", *FILES)):
        Path(notebook).unlink(missing_ok=True)


for part, seeds in SEEDS.items():
    for dataset in DATASETS:
        forget_if_lost(f"{BOOK}/train-{dataset}-{part}.ipynb", NAME, dataset, MODELS, seeds)


rule all:
    input:
        expand(f"{BOOK}/data-{{dataset}}.ipynb", dataset=DATASETS),
        expand(f"{BOOK}/train-{{dataset}}-{{part}}.ipynb", dataset=DATASETS, part=SEEDS),
        [f"{FIGURES}/{file}" for files in ARTEFACTS.values() for file in files],


rule data:
    output: notebook=f"{BOOK}/data-{{dataset}}.ipynb"
    params: inputs=lambda w: inputs("data", "train", settings=PROFILE.data[w.dataset], vision=PROFILE.vision)
    shell: papermill("data", dataset="{wildcards.dataset}")


rule train:
    input: f"{BOOK}/data-{{dataset}}.ipynb"
    resources: gpu=1
    output: notebook=f"{BOOK}/train-{{dataset}}-{{part}}.ipynb"
    params:
        inputs=lambda w: inputs("train", "train", settings=PROFILE, models=MODELS),
        seeds=lambda w: json.dumps(SEEDS[w.part])
    shell: papermill("train", dataset="{wildcards.dataset}", model=MODELS, seeds="{params.seeds}")


for artefact, files in ARTEFACTS.items():
    rule:
        name: f"artefact_{artefact}"
        input: expand(f"{BOOK}/train-{{dataset}}-{{part}}.ipynb", dataset=DATASETS, part=SEEDS)
        output:
            [f"{FIGURES}/{file}" for file in files],
            notebook=f"{BOOK}/{artefact}.ipynb"
        params:
            inputs=inputs(artefact, "figures", "train", settings=PROFILE),
            artefact=artefact
        shell: papermill("{params.artefact}")


# Experiments beside the study (`vbg.plan.EXPERIMENTS`): each row has a folder of runs of its own. `make supplement`, `make recipe`.
ROWS = {}  # store -> what its runs are
for experiment, asked in EXPERIMENTS.items():
    for change in asked.changes:
        row = ROWS.setdefault(experiment_store(NAME, experiment, change), dict(
            overrides=experiment_overrides(NAME, experiment, change), models=[], datasets=[], splits=list(asked.splits),
            seeds=list(asked.seeds or PROFILE.seeds), adapted=experiment == "adaptation" and change != "from scratch"))
        row["models"] += [model for model in asked.models if model not in row["models"]]
        row["datasets"] += [name for name in asked.datasets or DATASETS if name in DATASETS and name not in row["datasets"]]
ROWS.pop(NAME, None)  # a row that is the study itself
for store, row in ROWS.items():
    for dataset in row["datasets"]:
        forget_if_lost(f"runs/{store}/{dataset}.ipynb", store, dataset, row["models"], row["seeds"])
for dataset in DATASETS:
    if not all(Path(f"runs/{NAME}/checkpoints/{dataset}-seed{seed}/adaptation.json").exists() for seed in PROFILE.seeds):
        Path(f"{BOOK}/language_model-{dataset}.ipynb").unlink(missing_ok=True)

NO_WILDCARDS = str.maketrans("{}", "()")  # a checkpoint's name may hold {seed}

# notebook -> the experiments it reads and the tables it saves
SUPPLEMENT = {
    "departures": (["departures_image", "departures_text"], ["departures"]),
    "fusion_comparison": (["fusion"], ["fusion_comparison"]),
    "domain_adaptation": (["adaptation"], ["domain_adaptation", "domain_adaptation_perplexity"]),
    "input_ablation": (["inputs"], ["input_ablation"]),
    "recipe_search": (["recipe"], ["recipe_search"]),
}


def runs_of(experiments):
    "The training notebooks that a table is read from."
    stores = {experiment_store(NAME, e, change) for e in experiments for change in EXPERIMENTS[e].changes}
    made = [f"runs/{store}/{dataset}.ipynb" for store in sorted(stores & ROWS.keys()) for dataset in ROWS[store]["datasets"]]
    return made + expand(f"{BOOK}/train-{{dataset}}-{{part}}.ipynb", dataset=DATASETS, part=SEEDS) * (NAME in stores)


rule recipe:
    input: f"{FIGURES}/recipe_search.json"


rule supplement:
    input:
        [f"{FIGURES}/{table}.json" for name, (_, tables) in SUPPLEMENT.items() if name != "recipe_search" for table in tables],
        f"{FIGURES}/step_cost.json"


rule experiment:
    input:
        f"{BOOK}/data-{{dataset}}.ipynb",
        lambda w: f"{BOOK}/language_model-{w.dataset}.ipynb" if ROWS[w.store]["adapted"] else []
    output: notebook="runs/{store}/{dataset}.ipynb"
    resources: gpu=1
    wildcard_constraints: store="|".join(ROWS), dataset="|".join(DATASETS)
    params:
        inputs=lambda w: inputs("train", "train", settings=PROFILE, row=ROWS[w.store]),
        row=lambda w: {key: json.dumps(ROWS[w.store][key]) for key in ("models", "seeds", "splits", "overrides")}
    shell:
        papermill("train", dataset="{wildcards.dataset}", model="{params.row[models]}", seeds="{params.row[seeds]}",
                  splits="{params.row[splits]}", store="{wildcards.store}", overrides="{params.row[overrides]}")


rule language_model:
    input: f"{BOOK}/data-{{dataset}}.ipynb"
    output: notebook=f"{BOOK}/language_model-{{dataset}}.ipynb"
    resources: gpu=1
    params: inputs=lambda w: inputs("language_model", "language_model", settings=PROFILE)
    shell: papermill("language_model", dataset="{wildcards.dataset}", seeds=list(PROFILE.seeds))


for name, (experiments, tables) in SUPPLEMENT.items():
    rule:
        name: f"table_{name}"
        input: runs_of(experiments)
        output:
            [f"{FIGURES}/{table}.{kind}" for table in tables for kind in TABLE],
            notebook=f"{BOOK}/{name}.ipynb"
        params:
            inputs=inputs(name, "experiments", settings=PROFILE, experiments=[EXPERIMENTS[e] for e in experiments]).translate(NO_WILDCARDS),
            name=name
        shell: papermill("{params.name}")


# Timings need a machine that does nothing else: all cores are asked for.
rule step_cost:
    output:
        [f"{FIGURES}/{table}.{kind}" for table in ("step_cost", "step_profile") for kind in TABLE],
        notebook=f"{BOOK}/step_cost.ipynb"
    threads: workflow.cores
    params: inputs=inputs("step_cost", "cost", settings=PROFILE)
    shell: papermill("step_cost", sizes=[NAME] if NAME == "smoke" else ["mini", "paper"])


# A small collection of yours: five folds dealt three times, frozen pretrained encoders beside a baseline and training from scratch.
# `make collection FOLDER=... COLUMNS='{"label": "category"}'`
from vbg.small_collection import collection_data, collection_jobs

COLLECTION = {f"runs/{job['store']}/{job['dataset']}.ipynb": job for job in collection_jobs()}
for notebook, job in COLLECTION.items():
    forget_if_lost(notebook, job["store"], job["dataset"], job["models"], job["seeds"])


def collection_words(wildcards):
    "The parameters of one training notebook, each as JSON."
    job = COLLECTION[f"runs/{wildcards.store}/{wildcards.dataset}.ipynb"]
    columns = config.get("columns") or {}  # Snakemake reads JSON on its command line
    data = collection_data(config.get("folder", ""), job["deal"], job["fold"], columns if isinstance(columns, dict) else json.loads(columns))
    return {key: json.dumps(value) for key, value in dict(job, data=data, splits=["validation", "test"]).items()} | dict(profile=job["profile"])


rule collection:
    input: f"{FIGURES}/small_collection.json"


rule collection_run:
    output: notebook="runs/{store}/{dataset}.ipynb"
    resources: gpu=1
    wildcard_constraints: store="collection-[a-z-]+", dataset="deal[0-9]-fold[0-9]"
    params:
        inputs=lambda w: inputs("train", "train", words=collection_words(w)),
        words=collection_words
    shell:
        "python -m vbg.runs '{STUDY}/train.ipynb' {output.notebook} --timeout 86400 -p profile {params.words[profile]} "
        "-p dataset {wildcards.dataset} -p store {wildcards.store} -p model '{params.words[models]}' -p seeds '{params.words[seeds]}' "
        "-p splits '{params.words[splits]}' -p overrides '{params.words[overrides]}' -p data '{params.words[data]}'"


rule small_collection:
    input: list(COLLECTION)
    output:
        [f"{FIGURES}/{table}.{kind}" for table in ("small_collection", "frozen_features") for kind in TABLE],
        notebook=f"{BOOK}/small_collection.ipynb"
    params: inputs=inputs("small_collection", "small_collection", settings=PROFILE)
    shell: papermill("small_collection")
