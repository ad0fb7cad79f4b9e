# The order of the study. Every job runs one notebook through `python -m vbg.runs` (papermill with checked parameters).
# Paths are relative to the folder that holds data/, runs/ and figures/ (`snakemake --directory`).
# A job runs again when its notebook, its settings or the code that it uses changed; a comment in a module is no change.
import json
from pathlib import Path

from vbg.config import RECIPES, profile as read_profile, recipe_folder, root
from vbg.runs import FILES, code_version, notebook_version

NAME = config.get("profile", "mini")
PROFILE = read_profile(NAME)
DATASETS = list(PROFILE.data)
MODELS = ["without_gan", "without_bert_gan", "without_vit_gan"]
TABLE, FIGURE = ("csv", "md", "tex", "json"), ("png", "pdf", "json")
ARTEFACTS = {  # notebook -> the files that it saves
    "table1_datasets": [f"table1_datasets.{kind}" for kind in TABLE],
    "table2_hyperparameters": [f"table2_hyperparameters.{kind}" for kind in TABLE],
    "fig5_loss_curves": [f"fig5_loss_curves.{kind}" for kind in FIGURE],
    "summary": [f"{name}.{kind}" for name in ("summary", "summary_fusion_gain") for kind in TABLE],
}
FIGURES, BOOK = f"figures/{NAME}", f"runs/{NAME}/notebooks"

# One kernel trains a list of models and seeds; the list is split no wider than there are cores.
PARTS = max(1, min(len(PROFILE.seeds), workflow.cores // len(DATASETS)))
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


def remake_missing_runs():
    "A training notebook whose run folders are not all there does not count as done."
    for part, seeds in SEEDS.items():
        for dataset in DATASETS:
            runs = [Path(f"runs/{NAME}/{dataset}/{model}/seed{seed}") for model in MODELS for seed in seeds]
            if not all((run / name).exists() for run in runs for name in ("run.json", *FILES)):
                Path(f"{BOOK}/train-{dataset}-{part}.ipynb").unlink(missing_ok=True)


remake_missing_runs()


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


# The search that chose the training settings: one seed a candidate, validation split only. `make recipe`.
CANDIDATE = papermill("train", dataset="{wildcards.dataset}", model=["without_gan"], seeds=[0], splits=["validation"],
                      store="{wildcards.store}", overrides="{params.change}")
CANDIDATES = {recipe_folder(NAME, name): change for name, change in RECIPES.items() if change}


rule recipe:
    input: f"{FIGURES}/recipe_search.json"


rule candidate:
    input: f"{BOOK}/data-{{dataset}}.ipynb"
    output: notebook=f"runs/{{store}}/{{dataset}}.ipynb"
    resources: gpu=1
    wildcard_constraints: store="|".join(CANDIDATES)
    params:
        inputs=lambda w: inputs("train", "train", settings=PROFILE, change=CANDIDATES[w.store]),
        change=lambda w: json.dumps(CANDIDATES[w.store])
    shell: CANDIDATE


rule recipe_table:
    input:
        expand(f"{BOOK}/train-{{dataset}}-{{part}}.ipynb", dataset=DATASETS, part=SEEDS),
        expand("runs/{store}/{dataset}.ipynb", store=CANDIDATES, dataset=DATASETS)
    output:
        [f"{FIGURES}/recipe_search.{kind}" for kind in TABLE],
        notebook=f"{BOOK}/recipe_search.ipynb"
    params: inputs=inputs("recipe_search", "figures", settings=PROFILE)
    shell: papermill("recipe_search")
