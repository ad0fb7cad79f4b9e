"""The comparison on a small collection, on made-up runs: what is read, refused and said; and its notebook through papermill."""
import json

import numpy as np
import pandas as pd
import pytest

import vbg.small_collection as sc
from conftest import ROOT
from vbg.config import home, profile
from vbg.metrics import evaluate
from vbg.runs import HISTORY, RunError, predictions_table, run_folder, run_notebook, write_run

LABEL, NAMES = np.arange(40) % 4, ["bowl", "coin", "jar", "lamp"]


def write(job, model, skill, **changes):
    order = np.random.default_rng(job["deal"]).permutation(40)
    test = order[job["fold"]::sc.FOLDS]
    noise = np.random.default_rng([job["deal"], len(job["store"]), len(model)]).normal(size=(40, 4))
    scores = np.exp(skill * np.eye(4)[LABEL] + noise)
    p = scores / scores.sum(1, keepdims=True)
    made = profile(sc.METHODS[job["store"]]["profile"], sc.METHODS[job["store"]]["overrides"])
    parts = {"validation": np.setdiff1d(order, test)[::8], "test": test}
    inputs = dict(settings={s: getattr(made, s) for s in ("vision", "text", "fusion", "model", "train")}, code="new", device="cpu",
                  splits=sc.SPLITS, versions={"torch": "1"}, checkpoints={}, seed=job["deal"],
                  data={"natural": f"{job['dataset']} {made.vision['image_size']}"}) | changes
    return write_run(profile=job["store"], dataset=job["dataset"], model=model, seed=job["deal"], inputs=inputs, class_names=NAMES,
                     seconds=10.0, history=pd.DataFrame({c: [1.0, 2.0] for c in HISTORY}),
                     metrics={s: evaluate(LABEL[i], p[i]) for s, i in parts.items()},
                     predictions=pd.concat([predictions_table([f"i{n:02}" for n in i], s, LABEL[i], p[i]) for s, i in parts.items()]),
                     config=dict(name=made.name, data={job["dataset"]: sc.collection_data("anywhere", job["deal"], job["fold"], {})}), parameters=1)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    "All runs of the comparison: VBG with experts far better than the regression, from scratch far worse."
    patch = pytest.MonkeyPatch()
    patch.setenv("VBG_HOME", str(tmp_path_factory.mktemp("collection")))
    skill = {("collection-frozen", "without_gan"): 5.0, ("collection-scratch", "without_gan"): 0.0}
    for job in sc.collection_jobs():
        for model in job["models"]:
            write(job, model, skill.get((job["store"], model), 2.0))
    yield home()
    patch.undo()


def test_folds_of_a_deal_are_all_items_once(collection):
    runs = sc.collection_runs()
    for row in sc.ROWS:
        for deal in sc.DEALS if row != sc.LIVE else ():
            whole = sc.pooled_predictions(runs[row], deal)
            assert whole.ids.tolist() == sorted(f"i{n:02}" for n in range(40)) and (whole.labels == LABEL).all()


def test_differences_are_to_the_regression_and_carry_a_verdict(collection):
    table = sc.small_collection_table(sc.collection_runs(), resamples=300).set_index("model")
    assert table["accuracy, verdict"].tolist() == ["better", "smaller than the noise", "worse", "–"]
    ours, theirs = (np.mean([(sc.pooled_predictions(sc.collection_runs()[row], d).probabilities.argmax(1) == LABEL).mean() for d in sc.DEALS])
                    for row in (sc.CACHED, sc.BASELINE))
    assert table.loc[sc.CACHED, "accuracy over the regression, points"].startswith(f"{100 * (ours - theirs):.1f} [")


@pytest.mark.parametrize("change, said", [(dict(code="old"), "code: old -> new"), (dict(seed=9), "seed"), (dict(splits=["test"]), "splits")])
def test_a_run_made_otherwise_is_named(collection, change, said):
    job = sc.collection_jobs()[3]
    write(job, "logistic_regression", 2.0, **change)
    with pytest.raises(RunError, match=f"deal0-fold3.*{said}"):
        sc.collection_runs()
    write(job, "logistic_regression", 2.0)


def test_a_missing_run_is_named_with_the_command(collection):
    import shutil
    job = sc.collection_jobs()[20]
    shutil.rmtree(run_folder(job["store"], job["dataset"], "without_gan", job["deal"]))
    with pytest.raises(RunError, match="make collection FOLDER=.*\n.*no run of without_gan"):
        sc.collection_runs()
    write(job, "without_gan", 2.0)


def test_the_notebook_saves_both_tables_without_a_path_of_the_user(collection, tmp_path, monkeypatch):
    monkeypatch.setattr(sc, "_encode_once", lambda run, data: dict(items=40, seconds=7.0))
    sc.encoding_run(sc.collection_runs())  # measured; the notebook keeps it
    run_notebook(ROOT / "nbs" / "study" / "small_collection.ipynb", tmp_path / "done.ipynb", dict(profile="smoke"), timeout=300)
    for name in ("small_collection", "frozen_features"):
        text = (collection / "figures" / "smoke" / f"{name}.json").read_text()
        assert json.loads(text) and "anywhere" not in text and str(collection) not in text
        assert (collection / "figures" / "smoke" / f"{name}.md").stat().st_size > 0
