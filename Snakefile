# The order of the study. Every job runs one notebook through `python -m vbg.runs.notebook` (papermill with checked parameters).
# Paths are relative to the folder that holds data/, runs/ and figures/ (`snakemake --directory`).
# A job runs again when its notebook, its settings or the code that it uses changed; a comment in a module is no change.
import functools
import hashlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from vbg.runs.version import inputs_text, notebook_version
from vbg.train.code import code_of_job, code_of_runs, told_otherwise
from vbg.core.profiles import TABLE3_MODELS, TABLE4_MODELS, profile as read_profile
from vbg.core.files import home, root
from vbg.core.plan import EXPERIMENTS, experiment_overrides, experiment_store
from vbg.runs.store import gan_place
from vbg.runs.workflow import is_whole

NAME = config.get("profile", "mini")
PROFILE = read_profile(NAME)
DATASETS = list(PROFILE.data)
FOLDER = os.environ.get("VBG_FOLDER", "").strip()  # of a small collection: `make collection FOLDER=...`
if not DATASETS and not FOLDER:
    sys.exit(f"profile {NAME} names no data set; give a collection of yours with `make collection FOLDER=...`, or take profile mini")
MODELS = list(dict.fromkeys((*TABLE4_MODELS, *TABLE3_MODELS)))  # VBG first: its ablations learn from its pairs
TABLE, FIGURE = ("csv", "md", "tex", "json"), ("png", "pdf", "json")
ARTEFACTS = {  # notebook -> the files that it saves
    "table1_datasets": [f"table1_datasets.{kind}" for kind in TABLE],
    "table2_hyperparameters": [f"table2_hyperparameters.{kind}" for kind in TABLE],
    **{name: [f"{table}.{kind}" for table in (name, *(f"{name[:6]}_{more}" for more in ("tests", "verdicts", "cost", *also))) for kind in TABLE]
       for name, also in (("table3_comparison", ["late_average"]), ("table4_ablation", []))},
    "fig5_loss_curves": [f"{name}.{kind}" for name in ("fig5_loss_curves", "fig5_models") for kind in FIGURE] + [f"fig5_{name}.{kind}" for name in ("stability", "claims") for kind in TABLE],
    "fig6_confusion_matrix": [f"fig6_confusion_matrix.{kind}" for kind in FIGURE] + [f"fig6_{name}.{kind}" for name in ("largest_confusions", "claims") for kind in TABLE],
    "per_class": [f"per_class.{kind}" for kind in TABLE] + [f"per_class_recall.{kind}" for kind in FIGURE],
    "calibration": [f"calibration.{kind}" for kind in TABLE] + [f"calibration_curves.{kind}" for kind in FIGURE],
    "summary": [f"{name}.{kind}" for name in ("summary", "summary_fusion_gain") for kind in TABLE],
    "model_cost": [f"model_cost.{kind}" for kind in TABLE],
    "audit": [f"audit.{kind}" for kind in ("csv", "md", "html", "json")],
}
FIGURES, BOOK = f"figures/{NAME}", f"runs/{NAME}/notebooks"

# One kernel trains all models with one seed on one data set, whatever the number of cores.
SEEDS = list(PROFILE.seeds)
STUDY = root() / "nbs" / "study"
NOTEBOOK = {path.stem: path for path in STUDY.glob("*/*.ipynb")}


def inputs(name, *, readers=None, code=None, **settings):
    """What a job depends on, as one text that Snakemake compares with the last run's: its notebook, the code that this uses, its settings.
    Snakemake compares no param whose function takes more than the wildcards."""
    notebook = {f"{NOTEBOOK[name].parent.name}/{name}": notebook_version(NOTEBOOK[name])}
    return inputs_text(dict(notebook=notebook, code=code or code_of_job(NOTEBOOK[name], readers or list(READERS.values())), settings=settings))


READERS = {name: described["reader"] for name, described in PROFILE.data.items()}


@functools.cache
def listing(folder, *endings):
    "Names, sizes and times of the files of a data set; all, or those with these endings. A set that was changed is read again."
    folder = Path(folder)
    files = sorted(p for p in (folder.rglob("*") if folder.is_dir() else [folder]) if p.is_file() and p.name.endswith(endings or ""))
    said = [f"{p.relative_to(folder)} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in files]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]


def source(dataset):
    "The tables of a set that the project does not render; its images are looked at when it is read."
    described = PROFILE.data[dataset]
    return "" if described.get("render") else listing(home() / described["folder"], ".csv", ".json")


def papermill(name, **parameters):
    "The command of a notebook. A value in braces is filled in by Snakemake, which quotes it."
    words = {key: json.dumps(value) if not isinstance(value, str) else value for key, value in parameters.items()}
    given = " ".join(f"-p {key} {word[:-1]}:q}}" if word.startswith("{") and isinstance(parameters[key], str) else f"-p {key} '{word}'"
                     for key, word in words.items())
    limit = 7 * 24 * 3600 if name in ("train", "data", "language_model", "gan", "gan_measured", "loop", "gan_choice") else 3600  # seconds a cell may take
    where = f"{NOTEBOOK[name].parent.name}/{name}"
    return f"VBG_NOTEBOOK={where} python -m vbg.runs.notebook {{STUDY:q}}/{where}.ipynb {{output.notebook:q}} --timeout {limit} -p profile {NAME} {given}"


LOOK = workflow.dryrun or "look" in config  # nothing may change: `make status`, `make figures`
LOST = {}  # training notebook -> why it does not count as done: its runs are not all there, or are not those of the study


def forget_if_lost(notebook, made, otherwise=()):
    """Delete a notebook whose runs, GANs (folders) or notes (json) are not all there, whole, and as the study makes them: it then makes again what is not.
    Where nothing may change (`make status`), only remember why."""
    why = otherwise[0] + f" and {len(otherwise) - 1} more" * (len(otherwise) > 1) if otherwise else "" if all(map(is_whole, made)) else "its runs are lost"
    if not why:
        return
    LOST[notebook] = why
    if workflow.is_main_process and not LOOK:
        Path(notebook).unlink(missing_ok=True)


def lost(notebook):
    return f"\nlost {LOST[notebook]}" if LOOK and notebook in LOST else ""


def told(store, settings, dataset, models, seeds, splits=("validation", "test", "balanced")):
    "What runs of a store were told that the study would not tell them."
    return [why for model in models for seed in seeds for why in told_otherwise(store, settings, dataset, model, seed, splits)]


def run_folders(store, dataset, models, seeds):
    return [f"runs/{store}/{dataset}/{model}/seed{seed}" for model in models for seed in seeds]


SEARCH = [experiment_store(NAME, "rate", change) for change in EXPERIMENTS["rate"].changes]
STUDY_GAN = PROFILE.gan["gans"][0]  # one GAN for all seeds of the study; how much GANs differ is measured by `make gan`
OF_STUDY = {"train": {"search": SEARCH}, "balance": {"gan": STUDY_GAN}}
for seed in SEEDS:
    for dataset in DATASETS:
        forget_if_lost(f"{BOOK}/train-{dataset}-{seed}.ipynb", run_folders(NAME, dataset, MODELS, [seed]),
                       told(NAME, read_profile(NAME, OF_STUDY), dataset, MODELS, [seed]))


# A target names what it goes through as well, not only what it ends in: Snakemake leaves a lost file alone that nothing but an up-to-date file asks for.
rule all:
    input:
        expand(f"{BOOK}/data-{{dataset}}.ipynb", dataset=DATASETS),
        expand("runs/{store}/{dataset}.ipynb", store=SEARCH, dataset=DATASETS),
        expand(f"{BOOK}/gan-{{dataset}}-{PROFILE.gan['conditioning']}-0-{STUDY_GAN}.ipynb", dataset=DATASETS),
        expand(f"{BOOK}/train-{{dataset}}-{{seed}}.ipynb", dataset=DATASETS, seed=SEEDS),
        [f"{FIGURES}/{file}" for files in ARTEFACTS.values() for file in files],
        [f"{BOOK}/{artefact}.ipynb" for artefact in ARTEFACTS],  # asked for beside the files: a fresh clone has the files, and not what made them
        expand(f"{BOOK}/label_leaks-{{dataset}}.ipynb", dataset=DATASETS),
        f"{BOOK}/contradictions.ipynb"


rule data:
    output: notebook=f"{BOOK}/data-{{dataset}}.ipynb"
    params: inputs=lambda w: inputs("data", readers=[READERS[w.dataset]], settings=PROFILE.data[w.dataset], vision=PROFILE.vision, source=source(w.dataset))
    shell: papermill("data", dataset="{wildcards.dataset}")


rule train:
    input:
        f"{BOOK}/data-{{dataset}}.ipynb",
        expand("runs/{store}/{{dataset}}.ipynb", store=SEARCH),
        f"{BOOK}/gan-{{dataset}}-{PROFILE.gan['conditioning']}-0-{STUDY_GAN}.ipynb"
    resources: gpu=1
    output: notebook=f"{BOOK}/train-{{dataset}}-{{seed}}.ipynb"
    params:
        inputs=lambda w: inputs("train", code=code_of_runs(PROFILE, w.dataset, MODELS), settings=asdict(PROFILE), models=MODELS, overrides=OF_STUDY) + lost(f"{BOOK}/train-{w.dataset}-{w.seed}.ipynb"),
        overrides=json.dumps(OF_STUDY)
    shell: papermill("train", dataset="{wildcards.dataset}", model=MODELS, seeds="[{wildcards.seed}]", overrides="{params.overrides}", store=NAME)


for artefact, files in ARTEFACTS.items():
    rule:
        name: f"artefact_{artefact}"
        input: expand(f"{BOOK}/train-{{dataset}}-{{seed}}.ipynb", dataset=DATASETS, seed=SEEDS)
        output:
            [f"{FIGURES}/{file}" for file in files],
            notebook=f"{BOOK}/{artefact}.ipynb"
        params:
            inputs=inputs(artefact, settings=asdict(PROFILE)),
            artefact=artefact
        shell: papermill(artefact)


# Experiments beside the study (`vbg.core.plan.EXPERIMENTS`): each row has a folder of runs of its own. `make supplement`, `make recipe`.
ROWS = {}  # store -> what its runs are
for experiment, asked in EXPERIMENTS.items():
    for change in asked.changes:
        row = ROWS.setdefault(experiment_store(NAME, experiment, change), dict(
            overrides=experiment_overrides(NAME, experiment, change), models=[], datasets=[], splits=list(asked.splits),
            seeds=list(asked.seeds or PROFILE.seeds), adapted=experiment == "adaptation" and change == "adapted", searched=asked.searched))
        if experiment == "rate": row["overrides"]["balance"] = {"gan": STUDY_GAN}  # inputs as the study's: the run of the rate that was found is not made twice
        if asked.searched: row["overrides"]["train"] = row["overrides"].get("train", {}) | {"search": SEARCH}
        row["splits"] += [split for split in asked.splits if split not in row["splits"]]
        row["seeds"] = sorted({*row["seeds"], *(asked.seeds or PROFILE.seeds)})
        row["models"] += [model for model in asked.models if model not in row["models"]]
        row["datasets"] += [name for name in asked.datasets or DATASETS if name in DATASETS and name not in row["datasets"]]
ROWS.pop(NAME, None)  # a row that is the study itself
for store, row in ROWS.items():
    for dataset in row["datasets"]:
        forget_if_lost(f"runs/{store}/{dataset}.ipynb", run_folders(store, dataset, row["models"], row["seeds"]),
                       told(store, read_profile(NAME, row["overrides"]), dataset, row["models"], row["seeds"], row["splits"]))
for dataset in DATASETS:
    forget_if_lost(f"{BOOK}/language_model-{dataset}.ipynb", [f"runs/{NAME}/checkpoints/{dataset}-seed{seed}/adaptation.json" for seed in SEEDS])

# notebook -> the experiments it reads and the tables it saves
SUPPLEMENT = {
    "departures": (["departures_image", "departures_text"], ["departures"]),
    "fusion_comparison": (["fusion"], ["fusion_comparison"]),
    "domain_adaptation": (["adaptation"], ["domain_adaptation", "domain_adaptation_perplexity"]),
    "input_ablation": (["inputs"], ["input_ablation"]),
    "recipe_search": (["recipe"], ["recipe_search"]),
    "loop_choice": (["loop_choice"], ["loop_choice"]),
    "gan_scarcity": (["scarcity"], ["gan_scarcity_numbers"]),
    "missing_modality": (["missing"], ["missing_modality"]),
}
OTHER_TARGETS = {"recipe_search", "loop_choice", "gan_scarcity"}  # not part of `make supplement`
MORE_FILES = {"loop_choice": [], "gan_scarcity": [f"gan_scarcity.{kind}" for kind in FIGURE],
              "missing_modality": [f"missing_modality_curve.{kind}" for kind in FIGURE]}  # figures beside the tables


def gan_notebooks(dataset, overrides):
    "The notebooks that train the GANs which a row of an experiment reads."
    if not overrides.get("balance", {}).get("kind", "").startswith(("gan", "loop")):  # `vbg.gan.generated.GENERATED`, whose import takes seconds
        return []
    asked, chosen = overrides["balance"], overrides["balance"].get("gan")
    conditioning, scarce = overrides.get("gan", {}).get("conditioning", PROFILE.gan["conditioning"]), asked.get("scarce_items") or 0
    return [f"{BOOK}/gan-{dataset}-{conditioning}-{scarce}-{k}.ipynb" for k in (PROFILE.gan["gans"] if chosen is None else [chosen])]


def gan_folder(dataset, conditioning, scarce, number):
    return gan_place(NAME, dataset, number, **PROFILE.gan | dict(conditioning=conditioning, scarce_items=int(scarce)))


GANS = sorted({(dataset, *Path(notebook).stem.removeprefix(f"gan-{dataset}-").rsplit("-", 2)) for row in ROWS.values() for dataset in row["datasets"]
               for notebook in gan_notebooks(dataset, row["overrides"])} | {(dataset, PROFILE.gan["conditioning"], "0", str(STUDY_GAN)) for dataset in DATASETS if PROFILE.gan})
for dataset, *what in GANS:
    forget_if_lost(f"{BOOK}/gan-{dataset}-{'-'.join(what)}.ipynb", [gan_folder(dataset, *what)])
MEASURED = [(dataset, conditioning, "0", str(k)) for dataset in DATASETS for conditioning in ("attributes", "class") for k in PROFILE.gan["gans"]]
for dataset, *what in MEASURED:
    forget_if_lost(f"{BOOK}/gan_measured-{dataset}-{'-'.join(what)}.ipynb", [f"{gan_folder(dataset, *what)}/quality.json"])


def runs_of(experiments):
    "The training notebooks that a table is read from."
    stores = {experiment_store(NAME, e, change) for e in experiments for change in EXPERIMENTS[e].changes}
    made = [f"runs/{store}/{dataset}.ipynb" for store in sorted(stores & ROWS.keys()) for dataset in ROWS[store]["datasets"]]
    return made + expand(f"{BOOK}/train-{{dataset}}-{{seed}}.ipynb", dataset=DATASETS, seed=SEEDS) * (NAME in stores)


def needed(store, dataset):
    "The notebooks that the runs of a row need beside its data."
    row = ROWS[store]
    searches = [f"runs/{search}/{dataset}.ipynb" for search in SEARCH] * row["searched"]
    return gan_notebooks(dataset, row["overrides"]) + [f"{BOOK}/language_model-{dataset}.ipynb"] * row["adapted"] + searches


def passed(*experiments):
    "The notebooks that make the runs, GANs and language models of experiments."
    found = []
    for store in sorted({experiment_store(NAME, e, change) for e in experiments for change in EXPERIMENTS[e].changes} & ROWS.keys()):
        for dataset in ROWS[store]["datasets"]:
            found += [f"runs/{store}/{dataset}.ipynb", *needed(store, dataset)]
    return list(dict.fromkeys(found))


rule recipe:
    input: f"{FIGURES}/recipe_search.json", passed("recipe")


rule supplement:
    input:
        [f"{FIGURES}/{table}.json" for name, (_, tables) in SUPPLEMENT.items() if name not in OTHER_TARGETS for table in tables],
        f"{FIGURES}/step_cost.json",
        passed(*(e for name, (experiments, _) in SUPPLEMENT.items() if name not in OTHER_TARGETS for e in experiments))


# The pair makers, the loop and their judgement: `make gan`. The loop's settings on the validation split: `make loop-choice`. The curve over how scarce the scarce classes are: `make scarcity`.
rule gan:
    input:
        expand(f"{FIGURES}/gan_judged_{{dataset}}.json", dataset=DATASETS),
        f"{FIGURES}/gan_quality.json",
        f"{FIGURES}/gan_choice.json",
        f"{FIGURES}/gan_cost.json",
        f"{FIGURES}/loop_rounds.json",
        [f"{BOOK}/gan_measured-{'-'.join(what)}.ipynb" for what in MEASURED],
        passed("balance")


rule loop_choice:
    input: f"{FIGURES}/loop_choice.json", passed("loop_choice")


rule scarcity:
    input: f"{FIGURES}/gan_scarcity.json", passed("scarcity")


rule gans:
    input: f"{BOOK}/data-{{dataset}}.ipynb"
    output: notebook=f"{BOOK}/gan-{{dataset}}-{{conditioning}}-{{scarce}}-{{number}}.ipynb"
    priority: 1  # the longest jobs first, so that no core waits for one at the end
    wildcard_constraints: dataset="|".join(DATASETS), conditioning="attributes|class", scarce="[0-9]+", number="[0-9]+"
    resources: gpu=1
    params:
        inputs=lambda w: inputs("gan", readers=[READERS[w.dataset]], gan=PROFILE.gan, data=PROFILE.data[w.dataset]) + lost(f"{BOOK}/gan-{w.dataset}-{w.conditioning}-{w.scarce}-{w.number}.ipynb"),
        overrides=lambda w: json.dumps({"gan": experiment_overrides(NAME, "scarcity", f"GAN pairs, {w.scarce}")["gan"]} if int(w.scarce) else {})
    shell: papermill("gan", store=NAME, dataset="{wildcards.dataset}", gans="[{wildcards.number}]", conditioning="{wildcards.conditioning}", scarce_items="{wildcards.scarce}", overrides="{params.overrides}")


rule gans_measured:
    input: f"{BOOK}/gan-{{dataset}}-{{conditioning}}-{{scarce}}-{{number}}.ipynb"
    output: notebook=f"{BOOK}/gan_measured-{{dataset}}-{{conditioning}}-{{scarce}}-{{number}}.ipynb"
    wildcard_constraints: dataset="|".join(DATASETS), conditioning="attributes|class", scarce="0", number="[0-9]+"
    resources: gpu=1
    params: inputs=lambda w: inputs("gan_measured", readers=[READERS[w.dataset]], gan=PROFILE.gan, data=PROFILE.data[w.dataset]) + lost(f"{BOOK}/gan_measured-{w.dataset}-{w.conditioning}-{w.scarce}-{w.number}.ipynb")
    shell: papermill("gan_measured", store=NAME, dataset="{wildcards.dataset}", numbers="[{wildcards.number}]", conditioning="{wildcards.conditioning}")


rule gan_choice:
    input: f"{BOOK}/data-{DATASETS[0] if DATASETS else 'none'}.ipynb"
    output:
        [f"{FIGURES}/gan_choice.{kind}" for kind in TABLE],
        notebook=f"{BOOK}/gan_choice.ipynb"
    resources: gpu=1
    params: inputs=inputs("gan_choice", settings=asdict(PROFILE)), dataset=(DATASETS or ["none"])[0]
    shell: papermill("gan_choice", dataset="{params.dataset}")


rule label_leaks:
    input: f"{BOOK}/data-{{dataset}}.ipynb"
    output:
        [f"{FIGURES}/label_leaks_{{dataset}}.{kind}" for kind in TABLE],
        notebook=f"{BOOK}/label_leaks-{{dataset}}.ipynb"
    params: inputs=lambda w: inputs("label_leaks", settings=PROFILE.data[w.dataset])
    shell: papermill("label_leaks", dataset="{wildcards.dataset}")


rule contradictions:
    output:
        [f"{FIGURES}/contradictions.{kind}" for kind in TABLE],
        notebook=f"{BOOK}/contradictions.ipynb"
    params: inputs=inputs("contradictions")
    shell: papermill("contradictions")


# Timings need a machine that does nothing else: all cores are asked for.
rule gan_cost:
    input: [f"{BOOK}/data-{dataset}.ipynb" for dataset in DATASETS]
    output:
        [f"{FIGURES}/gan_cost.{kind}" for kind in TABLE],
        notebook=f"{BOOK}/gan_cost.ipynb"
    threads: workflow.cores
    params: inputs=inputs("gan_cost", settings=asdict(PROFILE))
    shell: papermill("gan_cost")


rule gan_samples:
    input: [f"{BOOK}/gan_measured-{'-'.join(what)}.ipynb" for what in MEASURED]
    output:
        [f"{FIGURES}/{table}.{kind}" for table in ("gan_quality", "gan_classes") for kind in TABLE],
        [f"{FIGURES}/{figure}_{dataset}.{kind}" for figure in ("gan_samples", "gan_neighbours") for dataset in DATASETS for kind in FIGURE],
        notebook=f"{BOOK}/gan_samples.ipynb"
    params: inputs=inputs("gan_samples", settings=asdict(PROFILE))
    shell: papermill("gan_samples")


rule gan_judged:
    input: lambda w: [f"runs/{experiment_store(NAME, 'balance', change)}/{w.dataset}.ipynb" for change in EXPERIMENTS["balance"].changes]
    output:
        [f"{FIGURES}/{table}_{{dataset}}.{kind}" for table in ("gan_judged", "gan_judged_best", "gan_claim") for kind in TABLE],
        notebook=f"{BOOK}/gan_judged-{{dataset}}.ipynb"
    wildcard_constraints: dataset="|".join(DATASETS)
    params: inputs=inputs("gan_judged", settings=asdict(PROFILE), experiment=asdict(EXPERIMENTS["balance"]))
    shell: papermill("gan_judged", dataset="{wildcards.dataset}")


rule loop:
    input: [f"runs/{experiment_store(NAME, 'balance', 'closed loop')}/{dataset}.ipynb" for dataset in DATASETS]
    output:
        [f"{FIGURES}/loop_rounds.{kind}" for kind in TABLE],
        [f"{FIGURES}/loop_samples_{dataset}.{kind}" for dataset in DATASETS for kind in FIGURE],
        notebook=f"{BOOK}/loop.ipynb"
    params: inputs=inputs("loop", settings=asdict(PROFILE))
    shell: papermill("loop")


rule experiment:
    input:
        f"{BOOK}/data-{{dataset}}.ipynb",
        lambda w: needed(w.store, w.dataset)
    output: notebook="runs/{store}/{dataset}.ipynb"
    resources: gpu=1
    wildcard_constraints: store="|".join(ROWS), dataset="|".join(DATASETS)
    params:
        inputs=lambda w: inputs("train", code=code_of_runs(read_profile(NAME, ROWS[w.store]["overrides"]), w.dataset, ROWS[w.store]["models"]), settings=asdict(PROFILE), row=ROWS[w.store]) + lost(f"runs/{w.store}/{w.dataset}.ipynb"),
        row=lambda w: {key: json.dumps(ROWS[w.store][key]) for key in ("models", "seeds", "splits", "overrides")}
    shell:
        papermill("train", dataset="{wildcards.dataset}", model="{params.row[models]}", seeds="{params.row[seeds]}",
                  splits="{params.row[splits]}", store="{wildcards.store}", overrides="{params.row[overrides]}")


rule language_model:
    input: f"{BOOK}/data-{{dataset}}.ipynb"
    output: notebook=f"{BOOK}/language_model-{{dataset}}.ipynb"
    resources: gpu=1
    params: inputs=lambda w: inputs("language_model", readers=[READERS[w.dataset]], settings=asdict(PROFILE)) + lost(f"{BOOK}/language_model-{w.dataset}.ipynb")
    shell: papermill("language_model", store=NAME, dataset="{wildcards.dataset}", seeds=SEEDS)


for name, (experiments, tables) in SUPPLEMENT.items():
    rule:
        name: f"table_{name}"
        input: runs_of(experiments)
        output:
            [f"{FIGURES}/{table}.{kind}" for table in tables for kind in TABLE],
            [f"{FIGURES}/{file}" for file in MORE_FILES.get(name, [])],
            notebook=f"{BOOK}/{name}.ipynb"
        params:
            inputs=inputs(name, settings=asdict(PROFILE), experiments={e: asdict(EXPERIMENTS[e]) for e in experiments}),
            name=name
        shell: papermill(name)


# Timings need a machine that does nothing else: all cores are asked for.
rule step_cost:
    output:
        [f"{FIGURES}/{table}.{kind}" for table in ("step_cost", "step_profile") for kind in TABLE],
        notebook=f"{BOOK}/step_cost.ipynb"
    threads: workflow.cores
    params: inputs=inputs("step_cost", settings=asdict(PROFILE))
    shell: papermill("step_cost", sizes=[NAME] if NAME == "smoke" else ["mini", "paper"])


# A small collection of yours: five folds dealt three times, frozen pretrained encoders beside a baseline and training from scratch.
# `make collection FOLDER=... COLUMNS='{"label": "category"}'`; both come by the environment, so that any path will do.
from vbg.results.small_collection import SPLITS, collection_columns, collection_data, collection_folder, collection_jobs, collection_name

COLLECTION = {f"runs/{job['store']}/{job['dataset']}.ipynb": job for job in collection_jobs()}
COLUMNS = collection_columns(os.environ.get("VBG_COLUMNS", ""))
FOLDER = collection_folder() if FOLDER else Path("absent")
TABLES = f"figures/{collection_name(FOLDER)}"
for notebook, job in COLLECTION.items():
    forget_if_lost(notebook, run_folders(job["store"], job["dataset"], job["models"], job["seeds"]))


def collection_words(wildcards):
    "The parameters of one training notebook, each as JSON."
    job = COLLECTION[f"runs/{wildcards.store}/{wildcards.dataset}.ipynb"]
    data = collection_data(FOLDER, job["deal"], job["fold"], COLUMNS)
    return {key: json.dumps(value) for key, value in dict(job, data=data, splits=SPLITS).items()} | dict(profile=job["profile"])


def collection_code(wildcards):
    "The code of the runs of one training notebook."
    words = collection_words(wildcards)
    data, overrides, models = (json.loads(words[key]) for key in ("data", "overrides", "models"))
    return code_of_runs(read_profile(words["profile"], overrides | {"data": {wildcards.dataset: data}}), wildcards.dataset, models)


rule collection:
    input: f"{TABLES}/small_collection.json", list(COLLECTION)


rule collection_run:
    output: notebook="runs/{store}/{dataset}.ipynb"
    resources: gpu=1
    wildcard_constraints: store="collection-[a-z-]+", dataset="deal[0-9]-fold[0-9]"
    params:
        inputs=lambda w: inputs("train", code=collection_code(w), words=collection_words(w), files=listing(FOLDER)) + lost(f"runs/{w.store}/{w.dataset}.ipynb"),
        words=collection_words
    shell:
        "VBG_NOTEBOOK=train/train python -m vbg.runs.notebook {STUDY:q}/train/train.ipynb {output.notebook:q} --timeout 86400 -p profile {params.words[profile]} "
        "-p dataset {wildcards.dataset} -p store {wildcards.store} -p model {params.words[models]:q} -p seeds {params.words[seeds]:q} "
        "-p splits {params.words[splits]:q} -p overrides {params.words[overrides]:q} -p data {params.words[data]:q}"


rule small_collection:
    input: list(COLLECTION)
    output:
        [f"{TABLES}/{table}.{kind}" for table in ("small_collection", "frozen_features") for kind in TABLE],
        notebook="runs/collection-frozen/small_collection.ipynb"
    params:
        inputs=inputs("small_collection", files=listing(FOLDER)),
        data=json.dumps(collection_data(FOLDER, 0, 0, COLUMNS)),
        tables=Path(TABLES).name
    shell: papermill("small_collection", tables="{params.tables}", data="{params.data}").replace(f"-p profile {NAME} ", "")


# What the models look at: architecture, heat maps, words, the fused space, the decision report. `make explain`.
SEEN = {  # notebook -> tables and figures of each data set, other files
    "fig7_heatmap": ([f"fig7_{table}" for table in ("scores", "per_class", "right_wrong", "sanity", "claims")], ["fig7_heatmap", "fig7_curves"], []),
    "word_relevance": (["word_relevance_scores", "word_relevance_attributes"], ["word_relevance"], []),
    "word_alignment": (["word_alignment_scores"], ["word_alignment"], []),
    "fig8_feature_space": ([f"fig8_{table}" for table in ("numbers", "silhouette", "coordinates", "claims")], ["fig8_feature_space"], []),
    "decision_report": (["decision_calibration", "decision_withheld"], [], ["decision_report_{dataset}.json"]),  # and its pages: one of a right and one of a wrong suggestion, where there are such
}
DRAWN = {"fig1_architecture": ["architecture_parts", "architecture_sizes"], "fig2_vit": [], "fig3_bert": [], "fig4_gan": []}  # notebook, which is its figure -> tables


def seen_files(name):
    "What a notebook saves of each data set."
    tables, figures, others = SEEN[name]
    return ([f"{FIGURES}/{table}_{{dataset}}.{kind}" for table in tables for kind in TABLE]
            + [f"{FIGURES}/{figure}_{{dataset}}.{kind}" for figure in figures for kind in FIGURE] + [f"{FIGURES}/{file}" for file in others])


rule explain:
    input:
        expand(f"{BOOK}/train-{{dataset}}-{{seed}}.ipynb", dataset=DATASETS, seed=SEEDS),
        [f"{BOOK}/{name}-{dataset}.ipynb" for name in SEEN for dataset in DATASETS],
        [f"{BOOK}/{name}.ipynb" for name in DRAWN]


for name in SEEN:
    rule:
        name: f"seen_{name}"
        input: lambda w: expand(f"{BOOK}/train-{w.dataset}-{{seed}}.ipynb", seed=SEEDS)
        output:
            seen_files(name),
            notebook=f"{BOOK}/{name}-{{dataset}}.ipynb"
        wildcard_constraints: dataset="|".join(DATASETS)
        params: inputs=inputs(name, settings=asdict(PROFILE)), name=name
        shell: papermill(name, dataset="{wildcards.dataset}")


for name, tables in DRAWN.items():
    rule:
        name: f"drawn_{name}"
        input: expand(f"{BOOK}/train-{{dataset}}-{{seed}}.ipynb", dataset=DATASETS[:1], seed=SEEDS)
        output:
            [f"{FIGURES}/{name}.{kind}" for kind in FIGURE],
            [f"{FIGURES}/{table}.{kind}" for table in tables for kind in TABLE],
            notebook=f"{BOOK}/{name}.ipynb"
        params: inputs=inputs(name, settings=asdict(PROFILE)), name=name, dataset=(DATASETS or ["none"])[0]
        shell: papermill(name, dataset="{params.dataset}")


# All that `make status TARGETS=everything` and the book ask for: what every target of the study makes.
rule everything:
    input: [file for made in list(workflow.rules) if not list(made.output) and made.name != "collection" for file in made.input]


if config.get("look") == "tell":  # read by `vbg.runs.workflow.planned`
    print(*(f"lost\t{notebook}\t{LOST[notebook]}" for notebook in sorted(LOST)), sep="\n", file=sys.stderr)
