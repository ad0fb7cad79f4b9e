# The order of the study. Every job runs one notebook through `python -m vbg.runs` (papermill with checked parameters).
# Paths are relative to the folder that holds data/, runs/ and figures/ (`snakemake --directory`).
# A job runs again when its notebook, its settings or the code that it uses changed; a comment in a module is no change.
import json

from vbg.config import RECIPES, profile as read_profile, recipe_folder, root
from vbg.runs import code_version, notebook_version

NAME = config.get("profile", "mini")
PROFILE = read_profile(NAME)
DATASETS = list(PROFILE.data)
MODELS = ["without_gan", "without_bert_gan", "without_vit_gan"]
ARTEFACTS = ["table1_datasets", "table2_hyperparameters", "fig5_loss_curves", "summary"]
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
    return f"python -m vbg.runs '{STUDY}/{name}.ipynb' {{output.notebook}} -p profile {NAME} {given}"


rule all:
    input:
        expand(f"{BOOK}/data-{{dataset}}.ipynb", dataset=DATASETS),
        expand(f"{BOOK}/train-{{dataset}}-{{part}}.ipynb", dataset=DATASETS, part=SEEDS),
        expand(f"{FIGURES}/{{artefact}}.json", artefact=ARTEFACTS),


rule data:
    output: notebook=f"{BOOK}/data-{{dataset}}.ipynb"
    params: inputs=lambda w: inputs("data", "train", settings=PROFILE.data[w.dataset])
    shell: papermill("data", dataset="{wildcards.dataset}")


rule train:
    input: f"{BOOK}/data-{{dataset}}.ipynb"
    output: notebook=f"{BOOK}/train-{{dataset}}-{{part}}.ipynb"
    params:
        inputs=lambda w: inputs("train", "train", settings=PROFILE, models=MODELS),
        seeds=lambda w: json.dumps(SEEDS[w.part])
    shell: papermill("train", dataset="{wildcards.dataset}", model=MODELS, seeds="{params.seeds}")


rule artefact:
    input: expand(f"{BOOK}/train-{{dataset}}-{{part}}.ipynb", dataset=DATASETS, part=SEEDS)
    output:
        notebook=f"{BOOK}/{{artefact}}.ipynb",
        made_from=f"{FIGURES}/{{artefact}}.json"
    wildcard_constraints: artefact="|".join(ARTEFACTS)
    params:
        inputs=lambda w: inputs(w.artefact, "figures")
    shell: papermill("{wildcards.artefact}")


# The search that chose the training settings: one seed a candidate, validation split only. `make recipe`.
CANDIDATE = papermill("train", dataset="{wildcards.dataset}", model=["without_gan"], seeds=[0], splits=["validation"],
                      store="{wildcards.store}", overrides="{params.change}")
CANDIDATES = {recipe_folder(NAME, name): change for name, change in RECIPES.items() if change}


rule recipe:
    input: f"{FIGURES}/recipe_search.json"


rule candidate:
    input: f"{BOOK}/data-{{dataset}}.ipynb"
    output: notebook=f"runs/{{store}}/{{dataset}}.ipynb"
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
        notebook=f"{BOOK}/recipe_search.ipynb",
        made_from=f"{FIGURES}/recipe_search.json"
    params: inputs=lambda w: inputs("recipe_search", "figures")
    shell: papermill("recipe_search")
