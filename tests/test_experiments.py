"""The experiments beside the study on made-up runs: their tables by hand, what is refused, their notebooks."""

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, entry_of, saved_files
from conftest import saved as saved_place

from vbg.core.artefacts import ARTEFACTS
from vbg.core.files import RunError
from vbg.core.plan import EXPERIMENTS, experiment_overrides, experiment_store
from vbg.core.profiles import BASELINE_MODELS, profile
from vbg.results import experiments as E
from vbg.results.publish import TESTS
from vbg.runs.notebook import run_notebook, study_notebook
from vbg.runs.store import HISTORY, load_runs, predictions_table, run_folder, write_run
from vbg.runs.version import environment
from vbg.stats.intervals import estimate_ratio, estimate_values
from vbg.stats.metrics import evaluate, measure, one_hot
from vbg.stats.verdicts import difference_verdict

N, CLASSES = 120, 4
Y = np.arange(N) % CLASSES
HERE = environment()


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    monkeypatch.setattr("vbg.runs.version.environment", lambda: HERE)  # asking for it takes longer than all else here
    return tmp_path


def made_up(
    experiment,
    row,
    dataset="met",
    model=None,
    seed=0,
    skill=2.0,
    name="smoke",
    splits=None,
    overrides=None,
    parameters=50_000,
    **inputs,
):
    "A run of a row as training writes it; probabilities are noise around the truth."
    splits = EXPERIMENTS[experiment].splits if splits is None else splits
    settings = profile(name, experiment_overrides(name, experiment, row) if overrides is None else overrides)
    model = model or EXPERIMENTS[experiment].models[0]
    sections = ["vision", "text", "fusion", "model", "train", "balance"] + ["baselines"] * (model in BASELINE_MODELS)
    rng, own = np.random.default_rng(len(row)), np.random.default_rng([seed, len(row)])
    noise = lambda: rng.normal(size=(N, CLASSES)) + 0.02 * own.normal(size=(N, CLASSES))  # seeds differ little
    z = {s: np.exp(skill * one_hot(Y, CLASSES) + noise()) for s in splits}
    p = {s: each / each.sum(1, keepdims=True) for s, each in z.items()}
    about = dict(
        settings={s: getattr(settings, s) for s in sections},
        code="new",
        versions={"torch": "1"},
        device="cpu",
        data={"natural": f"{dataset}1", "balanced": f"{dataset}2", "large": f"{dataset}3"},
        checkpoints={"vision": None, "text": None},
    )
    tables = [predictions_table([f"{dataset}{s}{i}" for i in range(N)], s, Y, p[s]) for s in splits]
    return write_run(
        profile=experiment_store(name, experiment, row),
        dataset=dataset,
        model=model,
        seed=seed,
        inputs=about | inputs,
        history=pd.DataFrame({c: [1.0] for c in HISTORY}),
        predictions=pd.concat(tables),
        metrics={s: evaluate(Y, p[s]) for s in splits},
        weights={},
        config={"data": settings.data, "vision": settings.vision},
        best_epoch=1,
        seconds=10.0 + seed,
        parameters=parameters,
    )


def fill(experiment, name="smoke", skills=None, **change):
    "All runs of an experiment."
    asked, settings = EXPERIMENTS[experiment], profile(name)
    jobs = product(asked.changes, asked.datasets or settings.data, asked.models, asked.seeds_at(settings))
    for row, dataset, model, seed in jobs:
        made_up(experiment, row, dataset, model, seed, (skills or {}).get(row, 2.0), name, **change)


def table_row(table, **where):
    for column, value in where.items():
        table = table[table[column.replace("_", " ")] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_rows_are_read_in_order_and_sorted_by_dataset_model_and_seed():
    fill("adaptation")
    runs = E.experiment_runs("smoke", "adaptation")
    assert list(runs) == ["not adapted", "adapted"]
    expected = [(d, m, s) for d in ("coco", "met") for m in ("without_gan", "without_vit_gan") for s in (0, 1)]
    assert all([(r.dataset, r.model, r.seed) for r in made] == expected for made in runs.values())
    assert runs["adapted"][0].folder.parts[-4] == "adaptation-adapted"


def right(tables):
    "Which items each seed has right, `(S, N)`."
    return np.array([p.argmax(1) == Y for p in tables], float)


def shown(estimate):
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * v for v in estimate))


def test_table_has_the_numbers_of_a_direct_computation():
    fill("inputs", skills={"metadata": 9.0, "both": -2.0})
    runs = E.experiment_runs("smoke", "inputs")
    table = E.experiment_table(runs)
    for split, title in TESTS.items():
        base = [r.select(split)[2] for r in runs["last layer, no metadata"]]
        for change, made in runs.items():
            row, mine = table_row(table, test=title, change=change), [r.select(split)[2] for r in made]
            assert row["accuracy, %"] == shown(estimate_ratio(right(mine), np.ones((2, N))))
            f1 = 100 * np.mean([measure(Y, p)["f1"][0] for p in mine])
            assert row["macro-F1, %"].startswith(f"{f1:.1f} [")
            if change == "last layer, no metadata":
                assert row["difference, points"] == row["verdict"] == "–"
                continue
            gap = estimate_values(right(mine) - right(base))
            assert row["difference, points"] == shown(gap)
            assert row["verdict"] == (
                "better" if gap.low > 0 else "worse" if gap.high < 0 else "smaller than the noise"
            )
    assert table_row(table, test="natural", change="metadata")["verdict"] == "better"
    assert table_row(table, test="natural", change="both")["verdict"] == "worse"


def test_equal_rows_are_smaller_than_the_noise_and_sizes_are_told():
    fill("departures_text")
    made_up("departures_text", "ReLU (Eq. 13)", seed=0, parameters=1_250_000)
    table = E.experiment_table(E.experiment_runs("smoke", "departures_text"))
    row = table_row(table, **{"data_set": "MET, rendered", "test": "natural", "change": "ReLU (Eq. 13)"})
    assert row[["verdict", "epochs", "parameters", "seeds", "items"]].tolist() == [
        "smaller than the noise",
        1,
        "1,250,000",
        2,
        N,
    ]
    assert table["data set"].unique().tolist() == ["MET, rendered", "MS COCO, rendered"] and "model" not in table


@pytest.mark.parametrize(
    "low, high, word",
    [
        (0.001, 0.1, "better"),
        (-0.1, -0.001, "worse"),
        (-0.1, 0.1, "smaller than the noise"),
        (0.0, 0.1, "smaller than the noise"),
        (-0.1, 0.0, "smaller than the noise"),
    ],
)
def test_verdict(low, high, word):
    assert difference_verdict(low, high) == word


def test_two_models_are_each_compared_with_their_own_reference():
    fill("adaptation", skills=dict.fromkeys(EXPERIMENTS["adaptation"].changes, 0.0))
    for seed in (0, 1):
        made_up("adaptation", "adapted", "met", "without_vit_gan", seed, skill=9.0)
        made_up("adaptation", "not adapted", "met", "without_gan", seed, skill=9.0)
    table = E.experiment_table(E.experiment_runs("smoke", "adaptation"))
    met = table[(table["data set"] == "MET, rendered") & (table.test == "natural")]
    assert met.model.tolist() == ["without GAN"] * 2 + ["without ViT & GAN"] * 2
    assert met.verdict.tolist() == ["–", "worse", "–", "better"]


def test_same_runs_give_the_same_table():
    fill("inputs")
    first, second = (E.experiment_table(E.experiment_runs("smoke", "inputs")) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


def test_missing_runs_are_named_with_the_command():
    with pytest.raises(RunError, match="`make supplement PROFILE=smoke` makes it") as error:
        E.experiment_runs("smoke", "departures_text")
    assert "ReLU (Eq. 13): no run of met, without_vit_gan, seeds [0, 1]" in str(error.value)
    fill("departures_text")
    folder = run_folder("smoke/plain", "coco", "without_vit_gan", 1)
    folder.rename(folder.with_name("away"))
    with pytest.raises(RunError) as error:
        E.experiment_runs("smoke", "departures_text")
    assert str(error.value).splitlines()[1:] == ["  as in the profile: no run of coco, without_vit_gan, seeds [1]"]
    with pytest.raises(RunError, match="`make recipe` makes it"):
        E.experiment_runs("mini", "recipe")
    with pytest.raises(
        ValueError,
        match="no experiment 'fusions'; there are rate, baseline_rate, balance, loop_choice, scarcity, ",
    ):
        E.experiment_runs("mini", "fusions")


def test_a_run_that_lacks_a_split_is_refused_unless_the_data_set_has_no_balanced_test():
    fill("inputs")
    made_up("inputs", "both", seed=1, splits=("validation", "test"))
    with pytest.raises(RunError, match="both: met, without_gan, seed 1 does not predict large, balanced"):
        E.experiment_runs("smoke", "inputs")
    fill("inputs", splits=("validation", "test"), data={"natural": "met1"})
    table = E.experiment_table(E.experiment_runs("smoke", "inputs"))
    assert table.test.unique().tolist() == ["natural"]
    with pytest.raises(ValueError, match="no run predicts balanced"):
        E.experiment_table(E.experiment_runs("smoke", "inputs"), splits=("balanced",))


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(code="old"), "code old, expected new"),
        (dict(device="cuda"), "device cuda, expected cpu"),
        (dict(data={"natural": "other", "balanced": "met2", "large": "met3"}), "data.natural other, expected met1"),
        (dict(versions={"torch": "2"}), "versions.torch 2, expected 1"),
        (dict(checkpoints={"vision": "abc", "text": None}), "checkpoints.vision abc, expected None"),
        (
            dict(overrides={"train": dict(learning_rate=1.0), "text": dict(activation="relu")}),
            "settings.train.learning_rate 1.0, expected 0.001",
        ),
        (
            dict(overrides={"train": dict(epochs=1), "text": dict(activation="relu")}),
            "settings.train.epochs 1, expected 2",
        ),
        (dict(overrides={}), "settings.text.activation gelu, expected relu"),
    ],
)
def test_rows_that_differ_in_more_than_their_change_are_refused(change, said):
    fill("departures_text")
    E.experiment_runs("smoke", "departures_text")
    for seed in (0, 1):
        made_up("departures_text", "ReLU (Eq. 13)", seed=seed, **change)
    with pytest.raises(RunError) as error:
        E.experiment_runs("smoke", "departures_text")
    assert str(error.value).splitlines()[1:] == [
        f"  ReLU (Eq. 13): met, without_vit_gan, seed 0 was made with {said} (and 1 more runs)"
    ]


def test_one_old_seed_of_the_reference_is_refused():
    fill("departures_text")
    made_up("departures_text", "as in the profile", "met", seed=1, code="old")
    with pytest.raises(
        RunError, match="as in the profile: met, without_vit_gan, seed 1 was made with code old, expected new$"
    ):
        E.experiment_runs("smoke", "departures_text")


def test_an_adapted_row_may_start_from_other_weights_only_where_its_change_says_so():
    fill("adaptation")
    for dataset, model, seed in product(("met", "coco"), ("without_gan", "without_vit_gan"), (0, 1)):
        made_up("adaptation", "adapted", dataset, model, seed, checkpoints={"vision": None, "text": f"{dataset}{seed}"})
    E.experiment_runs("smoke", "adaptation")
    made_up("adaptation", "adapted", "met", "without_gan", 0, checkpoints={"vision": "abc", "text": "met0"})
    with pytest.raises(RunError, match="checkpoints.vision abc, expected None"):
        E.experiment_runs("smoke", "adaptation")


def test_a_change_of_the_baselines_is_asked_of_baselines_alone():
    fill("pretraining")
    table = E.experiment_table(E.experiment_runs("smoke", "pretraining"), ("test",))
    assert table.change.tolist() == ["pretrained", "from scratch"] * 6 and table.model.nunique() == 3
    made_up("pretraining", "from scratch", "met", "resnet", 0, overrides={"baselines": dict(weights="formula")})
    with pytest.raises(
        RunError, match="met, resnet, seed 0 was made with settings.baselines.weights formula, expected"
    ):
        E.experiment_runs("smoke", "pretraining")


def test_the_recipe_search_reads_shared_runs_and_one_split():
    fill("recipe")
    made_up("recipe", "as in the profile", "met", splits=("validation", "test", "balanced"))
    runs = E.experiment_runs("smoke", "recipe")
    assert [made[0].profile for made in runs.values()][:2] == ["smoke/plain", "smoke/recipe-learning-rate-5e-4"]
    assert {len(made) for made in runs.values()} == {2}


def test_parameter_spread_is_the_worst_data_set():
    fill("departures_text")
    assert E.parameter_spread(E.experiment_runs("smoke", "departures_text")) == 0
    made_up("departures_text", "ReLU (Eq. 13)", "coco", seed=1, parameters=52_000)
    assert E.parameter_spread(E.experiment_runs("smoke", "departures_text")) == pytest.approx(0.04)


@pytest.mark.parametrize("name", ["smoke", "mini"])
def test_fusion_layers_are_of_one_size_and_counted_as_the_model_builds_them(name):
    from vbg.models.vbg import build_model

    runs, rest = {}, set()
    for row in EXPERIMENTS["fusion"].changes:
        settings = profile(name, experiment_overrides(name, "fusion", row))
        model = build_model(
            settings, variant="without_gan", num_classes=CLASSES, vocab_size=settings.text["vocab_size"]
        )
        whole, layer, head = (sum(p.numel() for p in part.parameters()) for part in (model, model.fusion, model.head))
        made_up("fusion", row, name=name, parameters=whole)
        runs[row] = load_runs(experiment_store(name, "fusion", row))
        sizes = E.fusion_parameters({row: runs[row]}).iloc[0]
        assert (sizes["fusion layer"], sizes["head"]) == (layer, head)
        rest.add(whole - layer - head)
    table = E.fusion_parameters(runs)
    assert len(rest) == 1 and len(table) == 8 and table["fusion layer"].max() / table["fusion layer"].min() - 1 <= 0.02
    assert (
        E.parameter_spread(runs) <= 0.02
        and table.groupby("change", sort=False)["head"].first().tolist()[-1] == 2 * table["head"][0]
    )


def test_fusion_parameters_have_a_row_for_each_data_set_and_refuse_an_unknown_width():
    fill("fusion")
    table = E.fusion_parameters(E.experiment_runs("smoke", "fusion"))
    assert table.change.tolist()[:2] == ["bidirectional"] * 2 and len(table) == 16
    assert sorted(table["data set"].unique()) == ["MET, rendered", "MS COCO, rendered"]
    assert table["fusion layer"][0] == 10 * 32**2 + 13 * 32
    made_up("fusion", "sum", seed=1, overrides={"text": dict(hidden_size=None)})
    with pytest.raises(RunError, match="met, without_gan, seed 1: its settings do not tell the width"):
        E.fusion_parameters({"sum": load_runs(experiment_store("smoke", "fusion", "sum"), datasets=["met"])})
    made_up("fusion", "sum", seed=1, overrides={"text": dict(hidden_size=None), "fusion": dict(hidden_size=48)})
    assert E.fusion_parameters({"sum": load_runs(experiment_store("smoke", "fusion", "sum"), datasets=["met"])})[
        "head"
    ].tolist() == [49 * CLASSES]


def test_the_plan_is_read_without_torch():
    import subprocess
    import sys

    code = "import sys, vbg.results.experiments; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def report(dataset, seed, name="smoke", before=600.0, after=8.0, next_sentence=0.75, **inputs):
    folder = E.home() / "runs" / name / "checkpoints" / f"{dataset}-seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    made_with = (
        dict(text={}, settings={"epochs": 2}, versions={}, device="cpu", texts=f"{dataset}", more={"code": "new"})
        | inputs
    )
    about = dict(
        inputs=made_with,
        perplexity_before=before,
        perplexity_after=after,
        next_sentence_accuracy=next_sentence,
        words=2000,
        texts=1680,
        seconds=4.0,
        history=[{"epoch": 1}],
    )
    (folder / "adaptation.json").write_text(json.dumps(about))
    return folder / "adaptation.json"


def test_perplexity_is_the_mean_with_the_lowest_and_highest_seed():
    for seed, after in ((0, 8.0), (1, 11.0)):
        report("met", seed, after=after), report("coco", seed, next_sentence=None if seed else 0.5)
    table = E.perplexity_table(E.adaptation_reports("smoke"), "smoke")
    assert table["data set"].tolist() == ["MET, rendered", "MS COCO, rendered"] and table.seeds.tolist() == [2, 2]
    assert table["perplexity after (lowest–highest seed)"].tolist() == ["9.5 (8.0–11.0)", "8.0 (8.0–8.0)"]
    assert table["next sentence, % (lowest–highest seed)"].tolist() == ["75.0 (75.0–75.0)", "–"]
    assert table["vocabulary"].tolist() == ["2,000"] * 2
    assert all("history" not in one for one in E.adaptation_reports("smoke"))


def test_reports_that_are_missing_damaged_or_of_other_code_are_refused():
    report("met", 0)
    with pytest.raises(
        RunError, match="no adapted text encoder of met, seed 1: make supplement PROFILE=smoke makes them"
    ):
        E.adaptation_reports("smoke", ["met"])
    path = report("met", 1, more={"code": "old"})
    with pytest.raises(RunError, match="met, seed 1 were made from other settings or code than that of met, seed 0"):
        E.adaptation_reports("smoke", ["met"])
    assert [r["seed"] for r in E.adaptation_reports("smoke", ["met"], [1])] == [1]
    path.write_text("{")
    with pytest.raises(RunError, match="is damaged"):
        E.adaptation_reports("smoke", ["met"])


NOTEBOOKS = {
    "departures": ["departures_image", "departures_text"],
    "fusion_comparison": ["fusion"],
    "domain_adaptation": ["adaptation"],
    "input_ablation": ["inputs"],
    "pretraining": ["pretraining"],
    "recipe_search": ["recipe"],
    "learning_rates": ["rate"],
    "baseline_learning_rates": ["baseline_rate"],
}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_study_notebook_reads_made_up_runs_and_saves_its_tables(store, name):
    for experiment in NOTEBOOKS[name]:
        fill(experiment)
    for dataset, seed in product(("met", "coco"), (0, 1)):
        report(dataset, seed)
    each = {"dataset": "met"} if ARTEFACTS[name].datasets == "each" else {}
    run_notebook(study_notebook(name), store / "done.ipynb", {"profile": "smoke"} | each, timeout=120)
    tables = [name + "_met" * bool(each)] + ["domain_adaptation_perplexity"] * (name == "domain_adaptation")
    kinds = ("csv",) if each else ("csv", "md")
    assert sorted(saved_files(store)) == sorted(f"{t}.{k}" for t in tables for k in kinds)
    saved = pd.read_csv(saved_place(store, f"{tables[0]}.csv"))
    sets = tuple(each.values()) or ("met", "coco")
    rows = sum(
        len(EXPERIMENTS[e].changes) * len(EXPERIMENTS[e].datasets or sets) * len(EXPERIMENTS[e].models)
        for e in NOTEBOOKS[name]
    )
    of_recipe = {
        "recipe_search": len(EXPERIMENTS["recipe"].changes),
        "learning_rates": rows,
        "baseline_learning_rates": rows,
    }
    assert len(saved) == of_recipe.get(name, len(TESTS) * rows)
    assert name in of_recipe or (
        saved.columns[0] == ("encoder" if name == "departures" else "data set") and set(saved.verdict) >= {"–"}
    )
    about = json.dumps(entry_of(store, tables[0]))
    assert all(
        run.folder.relative_to(store).as_posix() in about
        for e in NOTEBOOKS[name]
        for row in EXPERIMENTS[e].changes
        for run in load_runs(experiment_store("smoke", e, row), models=list(EXPERIMENTS[e].models))
        if run.dataset in sets
    )
    assert str(store) not in about


def run_in_place(name, monkeypatch):
    "The cells of a study notebook, with data cards of four made-up classes."
    import nbformat

    card = dict(classes={c: dict(train=n) for c, n in dict(a=200, b=150, c=40, d=100).items()})
    monkeypatch.setattr("vbg.data.sets.cards_of", lambda profile: dict(met=card, coco=card))
    cells = [c.source for c in nbformat.read(study_notebook(name), 4).cells if c.cell_type == "code"]
    cells[0] = cells[0].replace('"mini"', '"smoke"')
    exec("\n".join(cells), {})


def test_scarcity_notebook_reads_made_up_runs_and_saves_curve_and_numbers(store, monkeypatch):
    fill(
        "scarcity",
        skills={
            f"{way}, {n}": 2.0 + k
            for k, way in enumerate(("nothing", "oversampling", "GAN pairs"))
            for n in (25, 50, 100, 200)
        },
    )
    run_in_place("gan_scarcity", monkeypatch)
    assert sorted(saved_files(store)) == ["gan_scarcity.png", "gan_scarcity_numbers.csv", "gan_scarcity_numbers.md"]
    saved = pd.read_csv(saved_place(store, "gan_scarcity_numbers.csv"))
    assert len(saved) == 2 * 12 and set(saved.seeds) == {2}
    part = saved[saved["data set"] == "MET, rendered"]
    means = part["macro-F1, %"].str.split(" ").str[0].astype(float).groupby(part.way).mean()
    assert means["nothing"] < means["oversampling"] < means["GAN pairs"]


def test_loop_choice_notebook_reads_validation_items_of_made_up_runs(store, monkeypatch):
    fill("loop_choice", skills={"twice the pairs": 4.0})
    run_in_place("loop_choice", monkeypatch)
    saved = pd.read_csv(saved_place(store, "loop_choice.csv"))
    assert len(saved) == 2 * 8 and set(saved["judged on"]) == {"validation"} and set(saved.seeds) == {2}
    better = saved[(saved["data set"] == "MET, rendered") & (saved["training items"] == "twice the pairs")].iloc[0]
    gain = better["macro-F1: over the first row, points"]
    assert float(gain.split("[")[1].split(",")[0]) > 0 and better["macro-F1: verdict"] == "better", gain
    p, corrected = (float(v) for v in better["macro-F1: p (Holm)"].rstrip(")").split(" ("))
    assert p <= corrected < 0.05 and saved["macro-F1: verdict"][0] == "–"


def test_fusion_notebook_refuses_layers_of_other_sizes(store, monkeypatch):
    import nbformat

    import vbg.models.fusion_zoo as zoo

    fill("fusion")
    cells = [c.source for c in nbformat.read(study_notebook("fusion_comparison"), 4).cells if c.cell_type == "code"]
    cells[0] = 'profile = "smoke"'
    matched = zoo.matched_width
    monkeypatch.setattr(zoo, "matched_width", lambda **asked: round(1.1 * matched(**asked)))
    with pytest.raises(AssertionError, match=r"layers differ by \d+\.\d% in parameters"):
        exec("\n".join(cells), {})
    assert not saved_files(store)
