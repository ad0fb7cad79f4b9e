"""Every study notebook through papermill at `smoke`: the whole study once, then what a second call must leave alone."""

import json
import re
import resource
import shutil
from itertools import product

import nbformat
import pandas as pd
import pytest
from compare_studies import differences, results
from conftest import ROOT, entry_of, notebook, run_study, saved

from vbg.core.profiles import BASELINE_MODELS, TABLE3_MODELS, TABLE4_MODELS
from vbg.runs.notebook import study_notebook
from vbg.runs.store import Run

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
EXTRAS = [
    "missing_modality",
    "input_ablation",
    "domain_adaptation",
    "step_cost",
    "label_leaks_coco",
    "contradictions",
    "gan_samples_met",
    "loop_samples_coco",
    "loop_rounds",
    "gan_cost",
]  # of `supplement`, `gan`
SLOW = ["gan_choice", "gan_judged_met", "gan_judged_best_met"]  # of `make test-slow`, with `explain` of MS COCO
PICTURES = ("fig", "gan_samples", "loop_samples")
ELSEWHERE = {
    "departures",
    "fusion_comparison",
    "small_collection",
    "gan_scarcity",
    "loop_choice",
    "recipe_search",
    "learning_rates",
}  # run on made-up runs by test_experiments and test_small_collection


@pytest.mark.parametrize("name", [*ARTEFACTS, *EXTRAS])
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
    assert done | ELSEWHERE | {"gan_choice", "gan_judged"} == {
        p.stem for p in (ROOT / "nbs" / "study").glob("*/*.ipynb")
    }


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


def test_the_plan_of_every_target_holds_together(smoke_plan):
    for target in ("all", "explain", "recipe", "supplement", "gan", "loop_choice", "scarcity"):
        assert smoke_plan(target), target
    asked = {job.rule for job in smoke_plan("supplement")}
    assert {"artefact_fusion_comparison", "artefact_departures"} <= asked


def test_what_is_lost_changed_or_damaged_is_made_again_byte_for_byte_and_the_rest_is_kept(smoke_home, monkeypatch):
    """One call mends all of it: a run that was deleted; one of other settings, as a notebook with `store` set to the
    profile leaves it; a GAN of which a file is cut off, for which nothing but runs that are whole asks. Every table and
    figure of the study is drawn again."""
    from vbg.runs.workflow import is_whole
    from vbg.train.jobs import train_runs

    monkeypatch.setenv("VBG_HOME", str(smoke_home))
    models = smoke_home / "runs/smoke/classifiers"
    lost, other = models / "coco/without_vit_gan/seed1", models / "met/without_vit_gan/seed0"
    text = smoke_home / "runs/smoke/gans/coco/attributes/gan0/text/text_generator.safetensors"
    kept = models / "coco/without_gan/seed1/run.json"  # beside the one that is lost
    before, written = results(smoke_home), kept.stat().st_mtime_ns

    shutil.rmtree(lost)
    train_runs("smoke", "met", models="without_vit_gan", seeds=[0], overrides={"train": dict(epochs=1)})
    text.write_bytes(text.read_bytes()[:-3])
    assert not is_whole(text.parents[1])
    damaged = [str(path.relative_to(smoke_home)) for path in (other / "metrics.json", text)]
    gone, differ = differences(before, results(smoke_home))
    assert str((lost / "metrics.json").relative_to(smoke_home)) in gone and {*damaged} <= {*differ}

    rules = [f"artefact_{name}" for name in ARTEFACTS]
    done = run_study(smoke_home, "all", notebook("gan_samples"), "--forcerun", *rules)  # the GAN is measured again too
    assert done.returncode == 0, done.stderr[-3000:]
    assert differences(before, results(smoke_home)) == ([], [])
    assert kept.stat().st_mtime_ns == written and is_whole(text.parents[1])


def test_second_call_does_nothing_and_is_quick(smoke_home):
    before = {p: p.stat().st_mtime_ns for p in smoke_home.rglob("*") if p.is_file() and ".snakemake" not in p.parts}
    spent = lambda: sum(
        resource.getrusage(resource.RUSAGE_CHILDREN)[:2]
    )  # seconds of the processor: another test may run beside
    start = spent()
    done = run_study(smoke_home, "all")
    assert done.returncode == 0 and spent() - start < 30
    assert "Nothing to be done" in done.stdout + done.stderr
    assert before == {
        p: p.stat().st_mtime_ns for p in smoke_home.rglob("*") if p.is_file() and ".snakemake" not in p.parts
    }


def test_same_seed_again_gives_the_same_bytes_and_is_then_kept(smoke_home, tmp_path, monkeypatch):
    from vbg.results.publish import provenance
    from vbg.runs.notebook import run_notebook

    monkeypatch.setenv("VBG_HOME", str(smoke_home))
    models = ["without_gan", "vbg", "without_vit", "xgboost", "clip"]
    kept, again = (smoke_home / "runs" / store / "classifiers" / "met" for store in ("smoke", "again"))
    asked = dict(
        profile="smoke",
        dataset="met",
        model=models,
        seeds=[1],
        store="again",
        overrides={"balance": {"gan": 0}},
    )
    run_notebook(study_notebook("train"), tmp_path / "again.ipynb", asked, timeout=600)
    for model in models:
        for name in ("metrics.json", "predictions.parquet", "model.safetensors"):
            assert (kept / model / "seed1" / name).read_bytes() == (again / model / "seed1" / name).read_bytes(), (
                model,
                name,
            )
        first, second = (provenance(Run(store / model / "seed1"))["files"] for store in (kept, again))
        assert first == second  # what a figure's json says of a run that was made again
    again = again / "without_gan" / "seed1"
    written = (again / "run.json").stat().st_mtime_ns
    run_notebook(study_notebook("train"), tmp_path / "kept.ipynb", asked, timeout=600)
    assert (again / "run.json").stat().st_mtime_ns == written
    assert "kept" in (tmp_path / "kept.ipynb").read_text(encoding="utf-8")
