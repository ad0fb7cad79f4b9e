"""Every study notebook through papermill at `smoke`: the whole study once."""

import json
import re
from itertools import product

import nbformat
import pandas as pd
import pytest
from conftest import ROOT, entry_of, notebook, saved

from vbg.core.artefacts import ONLY_WITHOUT_GAN
from vbg.core.profiles import BASELINE_MODELS, TABLE3_MODELS, TABLE4_MODELS

ARTEFACTS = [
    "table1_datasets",
    "table2_hyperparameters",
    "fig5_loss_curves",
    "summary",
    "model_cost",
    "audit",
    "table3_comparison",
    "table4_ablation",
    "fig6_confusion_matrix",
    "per_class",
    "calibration",
]  # of `all`
FIRST = ["first_summary", "first_models"]  # of `quick`, which `all` goes through
EXTRAS = [
    "missing_modality",
    "input_ablation",
    "domain_adaptation",
    "step_cost",
    "label_leaks_coco",
    "contradictions",
    "gan_samples_met",
    "expert_kit",
    "expert_plan",
    "loop_samples_coco",
    "loop_rounds",
    "gan_cost",
    "texture_library",
    "texture_library_met",
]  # of `supplement`, `gan`
SLOW = [
    *("gan_choice", "gan_judged_met", "gan_judged_best_met"),
    *("text_adversary", "text_examples"),
]  # of `make test-slow`, with `explain` of MS COCO
PICTURES = ("fig", "first_models", "gan_samples", "loop_samples", "texture_library_")
ELSEWHERE = {
    "departures",
    "fusion_comparison",
    "pretraining",
    "time_to_accuracy",
    "small_collection",
    "gan_scarcity",
    "gan_ladder",
    "loop_choice",
    "recipe_search",
    "learning_rates",
    "baseline_learning_rates",
}  # run on made-up runs by test_experiments, test_small_collection and results/07_gan, on made-up times by test_cost


@pytest.mark.parametrize("name", [*ARTEFACTS, *FIRST, *EXTRAS])
def test_artefact_is_saved_with_what_made_it(smoke_home, name):
    is_saved(smoke_home, name)


@pytest.mark.slow
def test_the_slow_artefacts_are_saved_with_what_made_them(whole_home):
    for name in SLOW:
        is_saved(whole_home, name)
    each = ("fig7_heatmap", "fig8_feature_space", "word_relevance", "word_alignment", "decision_report")
    for name, dataset in product(each, ("met", "coco")):
        assert (whole_home / notebook(f"{name}-{dataset}")).is_file()
        assert list((whole_home / "runs/smoke/figures/explain" / name).glob(f"*_{dataset}*")), (name, dataset)


def is_saved(smoke_home, name):
    kinds = ("png",) if name.startswith(PICTURES) else ("csv",) if name == "per_class" else ("csv", "md")
    for kind in (*kinds, *["html"] * (name == "audit")):
        assert saved(smoke_home, f"{name}.{kind}").stat().st_size > 0
    assert entry_of(smoke_home, name)["files"]
    made_by = {
        "label_leaks_coco": "label_leaks-coco",
        "gan_judged_met": "gan_judged-met",
        "gan_judged_best_met": "gan_judged-met",
        "gan_samples_met": "gan_samples",
        "loop_samples_coco": "loop",
        "loop_rounds": "loop",
        "texture_library_met": "texture_library",
        "text_examples": "text_adversary",
        "first_summary": "first_answer",
        "first_models": "first_answer",
        "expert_plan": "expert_kit",
    }.get(name, name)
    executed = nbformat.read(smoke_home / notebook(made_by), as_version=4)
    assert not [o for c in executed.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "error"]


def test_runs_hold_every_file_and_no_test_item_is_missing(smoke_home):
    for dataset in ("met", "coco"):
        for model in {*TABLE3_MODELS, *TABLE4_MODELS}:
            for seed in (0, 1):
                folder = smoke_home / "runs/smoke/classifiers" / dataset / model / f"seed{seed}"
                for name in (
                    "run.json",
                    "history.csv",
                    "predictions.parquet",
                    "metrics.json",
                    "model.safetensors",
                    "train.ipynb",
                ):
                    assert (folder / name).is_file(), folder / name
                predictions = pd.read_parquet(folder / "predictions.parquet")
                assert set(predictions.split) == {"validation", "test", "large", "balanced"}
                assert not predictions.duplicated(["split", "id"]).any()
                fitted = model in BASELINE_MODELS and not BASELINE_MODELS[model].network
                assert len(pd.read_csv(folder / "history.csv")) == (1 if fitted else 2)
                about = json.loads((folder / "run.json").read_text())
                searched = about["fitted"].get("search", []) if fitted else []
                assert len(searched) == (2 if fitted and model != "majority" else 0)
                assert fitted or about["multiply_adds"] > 1e5 and about["step_memory"] > 16 * about["parameters"]


def test_every_study_notebook_was_run(smoke_home):
    done = {p.stem.split("-")[0] for p in (smoke_home / "runs" / "smoke" / "notebooks").glob("*.ipynb")}
    assert done | ELSEWHERE | {
        "gan_choice",
        "gan_judged",
        "text_adversary",
        "domains",
        "domain_shift",
        *ONLY_WITHOUT_GAN,
    } == {p.stem for p in (ROOT / "nbs" / "study").glob("*/*.ipynb")}


def test_the_log_of_a_run_is_for_a_person(smoke_home):
    "A line a notebook, numbered, with the time left; no notices of libraries or of Snakemake."
    said = (smoke_home / "said.txt").read_text()
    notices = "IProgress", "Select jobs", "Execute 1", "IPKernelApp", "Warning", "loss nan", "it/s]", "USDT", "ERROR"
    for notice in notices:
        assert notice not in said, notice
    line = r"^\d\d:\d\d:\d\d (\S+) finished in .+ \| (\d+) of (\d+)(?:, about (.+) left)?$"
    ends = re.findall(line, said, re.M)
    assert [int(number) for _, number, *_ in ends] == list(range(1, len(ends) + 1))
    assert {int(total) for *_, total, _ in ends} == {len(ends)} and len({name for name, *_ in ends}) == len(ends)
    assert sum(bool(left) for *_, left in ends) > len(ends) / 2
