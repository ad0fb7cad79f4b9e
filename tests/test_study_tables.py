"""Facts of vbg.results.comparison and classes on made-up runs: a copy of VBG, a tie, a missing run, notebooks."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from conftest import saved, saved_files
from statsmodels.stats.multitest import multipletests

from vbg.core.files import RunError, home
from vbg.core.profiles import BASELINE_MODELS, LATE_AVERAGE, REPEATED, TABLE3_MODELS, TABLE4_MODELS, profile
from vbg.results import classes
from vbg.results import comparison as S
from vbg.results.publish import paper_table
from vbg.runs.notebook import run_notebook, study_notebook
from vbg.runs.store import (
    HISTORY,
    assert_complete,
    load_runs,
    predictions_table,
    study_runs,
    training_notebook,
    write_run,
)
from vbg.stats.intervals import summarise_runs
from vbg.stats.metrics import evaluate, one_hot

SPLITS = ("validation", "test", "balanced")
Y = np.arange(120) % 4


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    return tmp_path


def toy_run(
    dataset="met",
    model="vbg",
    seed=0,
    skill=2.0,
    like=None,
    splits=SPLITS,
    settings="smoke",
    names="abcd",
    train=None,
    plateau=True,
    **skills,
):
    tables, scores = [], {}
    for split in splits:
        rng = np.random.default_rng([seed, *(like or model).encode(), len(split)])
        p = np.exp(skills.get(split, skill) * one_hot(Y, 4) + rng.normal(size=(120, 4)))
        p /= p.sum(1, keepdims=True)
        tables.append(predictions_table([f"{split}{i}" for i in range(120)], split, Y, p))
        scores[split] = evaluate(Y, p)
    epochs = np.arange(1, 5)
    history = pd.DataFrame({c: np.linspace(1, 0.2, 4) for c in HISTORY}).assign(
        epoch=epochs, validation_accuracy=[0.2, 0.7, 0.8, 0.8]
    )
    return write_run(
        profile="smoke",
        dataset=dataset,
        model=model,
        seed=seed,
        inputs={"model": model, "seed": seed},
        history=history,
        predictions=pd.concat(tables),
        metrics=scores,
        weights={},
        config={"data": profile(settings).data, "train": train or {}},
        class_names=list(names),
        best_epoch=3,
        seconds=4.0,
        plateau=plateau,
        parameters=10,
        multiply_adds=20,
        step_memory=None,
    )


def test_a_copy_of_vbg_has_difference_0_and_p_1_and_a_worse_model_is_worse():
    for model, skill in (("vbg", 3.0), ("vbg_fixed_gate", 3.0), ("resnet", 1.0)):
        for seed in range(4):
            toy_run(model=model, seed=seed, skill=skill, like="vbg" if model != "resnet" else None)
    at = S.comparison_table(load_runs("smoke")).set_index(["split", "model"])
    same = at.loc[("test", "vbg_fixed_gate")]
    assert (same.difference, same.p, same.holm, same.verdict) == (
        0,
        1,
        1,
        "smaller than the noise",
    ) and same.low <= 0 <= same.high
    assert at.loc[("test", "resnet")].verdict == "worse" and at.loc[("test", "resnet")].high < 0
    assert at.loc[("test", "vbg")].verdict == "–" and np.isnan(at.loc[("test", "vbg")].p)
    turned = S.comparison_table(load_runs("smoke"), reference="resnet").set_index(["split", "model"])
    assert turned.loc[("test", "vbg")].verdict == "better"
    assert turned.loc[("test", "vbg")].difference == pytest.approx(-at.loc[("test", "resnet")].difference)


def test_p_is_that_of_the_interval_and_holm_that_of_statsmodels_within_one_data_set_and_test():
    skills = dict(vbg=2.4, swin=2.2, resnet=1.8, textcnn=2.3, vgg=1.5)
    for dataset, (model, skill), seed in product(("met", "coco"), skills.items(), range(2)):
        toy_run(dataset, model, seed, skill + 0.1 * (dataset == "coco"))
    made = S.comparison_table(load_runs("smoke"))
    for _, part in made.groupby(["dataset", "split"]):
        tests = part[part.model != "vbg"]
        assert tests.holm.tolist() == pytest.approx(multipletests(tests.p, method="holm")[1].tolist())
        assert (tests.sort_values("p").holm.diff().dropna() >= 0).all()
        assert ((tests.p < 0.05) == ((tests.low > 0) | (tests.high < 0))).all(), "test and interval judge the same"
        assert (tests.detectable > (tests.high - tests.low) / 2).all()
    shown = S.tests_table(made)
    assert (shown["smallest effect it could have told, points"] != "–").sum() == 4 * 4


def test_no_verdict_rests_on_a_network_without_a_plateau():
    for model, skill in (("vbg", 9.0), ("resnet", 0.0), ("swin", 0.0), ("tfidf", 0.0)):
        for seed in range(2):
            toy_run(model=model, seed=seed, skill=skill, plateau=model != "swin" or None)
    runs = load_runs("smoke")
    at = S.comparison_table(runs, ("test",)).set_index("model")
    assert at.verdict.to_dict() == {"vbg": "–", "resnet": "worse", "swin": S.UNFINISHED, "tfidf": "worse"}
    table = S.verdicts_table(S.comparison_table(runs, ("test",)), paper_table("table3")).set_index("model")
    assert table["difference in sign"].to_dict() == {
        "VBG": "–",
        "ResNet-50": "reproduced",
        "Swin-T": "inconclusive",
    }
    for run in runs:
        if run.model == "vbg":
            run.info.pop("plateau")
    assert set(S.comparison_table(runs, ("test",)).verdict) == {"–", S.UNFINISHED}, "the reference counts as well"


def test_scores_are_those_of_summarise_runs():
    for seed in range(3):
        toy_run(seed=seed)
    runs = load_runs("smoke")
    ours, theirs = (
        S.comparison_table(runs, ("test",)).iloc[0],
        summarise_runs(runs),
    )
    for r in theirs.itertuples():
        assert (ours[r.metric], ours[f"{r.metric}_low"], ours[f"{r.metric}_high"]) == (r.mean, r.low, r.high)


def test_late_average_is_chosen_on_validation_and_not_on_the_test():
    (
        toy_run(model="resnet", skill=2.0),
        toy_run(model="swin", skill=9.0, validation=0.2),
    )  # swin is perfect on the test, poor on validation
    toy_run(model="without_vit_gan", skill=1.5), toy_run(model="textcnn", skill=9.0, validation=0.2)
    (
        toy_run(model="xgboost", skill=9.0),
        toy_run(model="majority", skill=9.0),
        toy_run(model="without_vit_bert", skill=9.0),
    )  # two encoders, or none: no candidates
    made, chosen = S.late_average(load_runs("smoke"))
    assert [(r.image.model, r.text.model) for r in made] == [("resnet", "without_vit_gan")]
    assert chosen["image alone"].tolist() == ["ResNet-50 (paper: ResNet)"] and chosen["text alone"].tolist() == [
        "without ViT & GAN"
    ]
    test_best, _ = S.late_average(load_runs("smoke"), "test")
    assert (test_best[0].image.model, test_best[0].text.model) == ("swin", "textcnn")
    assert made[0].select("test")[2] == pytest.approx(
        (made[0].image.select("test")[2] + made[0].text.select("test")[2]) / 2
    )
    assert made[0].model == LATE_AVERAGE and set(made[0].metrics) == set(SPLITS)


def plant(seeds, books=True, **skills):
    "Runs of the study with these seeds, and the notebooks that say that they are all there."
    for dataset, (model, skill), seed in product(("met", "coco"), skills.items(), seeds):
        if model in REPEATED or seed in profile("smoke").seeds:
            toy_run(dataset, model, seed, skill)
    for dataset, seed in product(("met", "coco"), seeds if books else ()):
        book = home() / training_notebook("smoke", dataset, seed)
        book.parent.mkdir(parents=True, exist_ok=True)
        book.write_text("{}")


def test_further_seeds_count_in_every_row_that_has_them_and_pairs_are_of_the_seeds_of_both():
    skills = dict(vbg=2.4, without_gan=2.3, without_vit_gan=1.5, resnet=1.9, tfidf=1.6)
    plant(range(3), books=False, **skills)
    few = study_runs("smoke", list(skills))
    assert {m: len(rows) for (_, m), rows in S.groups_of(few).items()} == dict.fromkeys(skills, 2)
    plant(range(3), **skills)
    runs = study_runs("smoke", list(skills))
    counts = {m: len(rows) for (_, m), rows in S.groups_of(runs).items()}
    assert counts == dict.fromkeys(skills, 3) | {"resnet": 2}, "XGBoost and TF-IDF are rivals, ResNet is not"

    averaged, chosen = S.late_average(runs)
    assert [r.image.seed for r in averaged if r.dataset == "met"] == [0, 1] and set(chosen.seeds) == {2}
    made = S.comparison_table([*runs, *averaged], ("test",))
    at = made.set_index(["dataset", "model"])
    assert at.loc["met", "n"].to_dict() == counts | {LATE_AVERAGE: 2}
    shown = S.tests_table(made)
    assert dict(zip(shown.model[:3], shown.seeds[:3])) == {"ResNet-50": 2, "TF-IDF + logistic regression": 3, "VBG": 3}
    alike = S.comparison_table([r for r in runs if r.seed < 2], ("test",)).set_index(["dataset", "model"])
    of_both = ["difference", "low", "high", "p"]
    known, ours = (table.loc[("met", "resnet"), of_both].astype(float) for table in (alike, at))
    assert np.allclose(ours, known), "as if VBG had those two seeds alone"
    apart = at.loc[("met", "resnet"), "accuracy"] - at.loc[("met", "vbg"), "accuracy"]
    assert at.loc[("met", "resnet"), "difference"] != apart, "VBG's mean is of three seeds, the difference of two"


@pytest.mark.parametrize("large", [True, False])
def test_the_large_natural_test_is_judged_where_all_runs_predict_it_and_the_other_stands_beside_it(large):
    "VBG is ahead on the large test and behind on that of the split."
    splits = ("validation", "test", "large", "balanced") if large else SPLITS
    for (model, better), seed in product((("vbg", "large"), ("resnet", "test")), range(3)):
        toy_run(model=model, seed=seed, skill=0.5, splits=splits, **{better: 4.0})
    compared = S.comparison_table(load_runs("smoke"))
    told = compared[compared.model == "resnet"].set_index("split").verdict.to_dict()
    table = S.verdicts_table(compared, paper_table("table3")).set_index("model").loc["ResNet-50"]
    words = S.comparison_text(compared, paper_table("table3")).data
    if large:
        assert told == {"test": "judged on: natural, large", "large": "worse", "balanced": "smaller than the noise"}
        assert table.test == "natural, large" and table["difference in sign"] == "reproduced"
        assert table["natural test (8:1:1), %"].numbers["mean"] > 80 > table["accuracy, %"].numbers["mean"]
        assert "natural, large test (120 items, 3 seeds)" in words and ", natural test" not in words
    else:
        assert told == {"test": "better", "balanced": "smaller than the noise"}
        assert table.test == "natural" and table["difference in sign"] == "not reproduced"
        assert table["natural test (8:1:1), %"] == table["accuracy, %"] and ", natural test (" in words
    scores = S.scores_table(compared, paper_table("table3")).set_index(["test", "model"])["accuracy, % (paper)"]
    assert {test for (test, _), cell in scores.items() if "(" in cell} == {*["natural, large"] * large, "natural"}


def test_late_average_refuses_other_seeds_and_other_items():
    toy_run(model="resnet"), toy_run(model="textcnn", seed=1)
    with pytest.raises(ValueError, match="no seed in common"):
        S.late_average(load_runs("smoke"))
    with pytest.raises(ValueError, match="make reproduce"):
        S.late_average([r for r in load_runs("smoke") if r.model == "resnet"])


def test_a_missing_run_is_named_with_its_command():
    toy_run()
    with pytest.raises(RunError, match=r"met, swin, seeds \[0\][\s\S]*make reproduce PROFILE=smoke"):
        assert_complete(load_runs("smoke"), models=["vbg", "swin"])
    with pytest.raises(ValueError, match="no run of 'resnet'"):
        S.comparison_table(load_runs("smoke"), reference="resnet")


def test_a_real_set_is_judged_and_a_rendered_one_is_not():
    for settings, wanted, leak in (
        ("smoke", {"needs the real data"}, {"cannot be tested on rendered data"}),
        ("paper", {"reproduced", "not reproduced"}, {"reproduced", "not reproduced"}),
    ):
        for seed, model in product(range(2), ("vbg", "resnet")):
            toy_run(
                model=model,
                seed=seed,
                skill=9.0 if model == "vbg" else 0.0,
                settings=settings,
                splits=SPLITS[:2],
                names=["Painting", "Sculpture", "Crafts", "Other"],
            )
        runs = load_runs("smoke")
        compared = S.comparison_table(runs)
        assert set(compared.split) == {"test"}, "a set without a class-balanced test has none in the table"
        table = S.verdicts_table(compared, paper_table("table3")).set_index("model")
        assert set(table.level) <= wanted and table.loc["ResNet-50", "difference in sign"] == "reproduced"
        mine = [r for r in runs if r.model == "vbg"]
        claims = classes.confusion_claims(mine).set_index("claim")
        assert claims.verdict["Crafts leaks to Other"] in leak and claims.verdict["Animals leaks to Crafts"] == max(
            leak - {"reproduced", "not reproduced"}, default="needs the real data"
        )
        stable = classes.stability_claims(mine)
        assert set(stable.verdict) == {"needs the real data"} and stable.reason.str.contains("only 4 epochs").all(), (
            "four epochs decide no claim of Fig. 5"
        )
        assert (
            len(classes.confusion_figure(mine).axes) == 2 and len(classes.reliability_figure(runs).axes) == 2
        )  # no empty panel for the test that is not there


def test_a_tie_is_not_first():
    for seed, model in product(range(2), ("vbg", "resnet")):
        toy_run(model=model, seed=seed, like="vbg")
    text = S.comparison_text(S.comparison_table(load_runs("smoke"), ("test",)), paper_table("table3")).data
    assert (
        "highest mean in 0 of 5 here, and 0 of 1 rows are worse by both tests: **inconclusive**" in text
        and "not told from VBG: ResNet-50" in text
    )


def test_tables_survive_saving_and_every_model_has_one_title(store):
    from vbg.results.publish import save_table

    models = [*dict.fromkeys([*TABLE3_MODELS, *TABLE4_MODELS])]
    for model in models:
        toy_run(model=model, skill=2.0)
    runs = load_runs("smoke")
    averaged, _ = S.late_average(runs)
    compared = S.comparison_table([*runs, *averaged])
    for name, table in {
        "scores": S.scores_table(compared, paper_table("table3")),
        "tests": S.tests_table(compared),
        "cost": S.run_cost_table([*runs, *averaged], paper_table("table3")),
    }.items():
        save_table(table, name, "smoke", runs)
        assert (
            saved(store, f"{name}.md").stat().st_size
            and table.groupby([c for c in ("data set", "test", "model") if c in table]).size().max() == 1
        )
        assert not table.astype(str).isin(["nan", "None"]).any().any(), name
    assert compared.model.nunique() == len(models) + 1


def test_calibration_of_a_sure_and_wrong_model_is_its_confidence():
    labels, sure = np.zeros(50, int), np.tile([0.05, 0.95], (50, 1))
    assert S.ece(labels, sure, np.ones((1, 50)))[0] == pytest.approx(0.95)
    assert classes.calibrated_ece(sure) < 0.05


@pytest.mark.parametrize(
    "name",
    ["table3_comparison", "table4_ablation", "fig6_confusion_matrix", "fig5_loss_curves", "per_class", "calibration"],
)
def test_notebook_runs_on_made_up_runs(name, store):
    settings = profile("smoke")
    for dataset, model, seed in product(settings.data, dict.fromkeys([*TABLE3_MODELS, *TABLE4_MODELS]), settings.seeds):
        toy_run(dataset, model, seed, 1.5 + 0.1 * len(model) * (model not in BASELINE_MODELS))
    run_notebook(study_notebook(name), store / "out.ipynb", {"profile": "smoke"}, timeout=300)
    assert any(made.startswith(name.split("_")[0]) for made in saved_files(store))
