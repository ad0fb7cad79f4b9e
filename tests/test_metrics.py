"""Facts of vbg.stats.metrics that its notebook lacks: refusals, scale, determinism, agreement on random sets."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import metrics as sk

from vbg.stats import metrics as M
from vbg.stats.intervals import (
    Bootstrap,
    draw_scores,
    estimate_scores,
    paired_difference,
    resample_weights,
    summarise_runs,
)


def random_set(seed, n=200, classes=6, coarse=False):
    rng = np.random.default_rng(seed)
    y = rng.choice(classes, size=n, p=rng.dirichlet(np.ones(classes)))
    p = rng.dirichlet(np.ones(classes), size=n) * 0.6 + 0.4 * M.one_hot(y, classes)
    return y, np.round(p, 1) if coarse else p.astype(np.float32)  # coarse: many ties


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("coarse", [False, True])
def test_every_metric_equals_scikit_learn(seed, coarse):
    y, p = random_set(seed, coarse=coarse)
    present = np.unique(y)
    found, hard = M.evaluate(y, p), p.argmax(1)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, hard))
    assert found["f1"] == pytest.approx(sk.f1_score(y, hard, labels=present, average="macro", zero_division=0))
    assert found["recall"] == pytest.approx(sk.recall_score(y, hard, labels=present, average="macro", zero_division=0))
    assert found["map"] == pytest.approx(np.mean([sk.average_precision_score(y == c, p[:, c]) for c in present]))
    assert found["auc"] == pytest.approx(np.mean([sk.roc_auc_score(y == c, p[:, c]) for c in present]))
    assert (found["classes"], found["classes_present"]) == (6, len(present))


@pytest.mark.parametrize("seed", range(6))
def test_weights_are_copies_of_items(seed):
    y, p = random_set(seed, n=60, coarse=True)
    w = resample_weights(60, 3, np.random.default_rng(seed))
    for row in range(3):
        long = np.repeat(np.arange(60), w[row].astype(int))
        for metric, value in M.measure(y, p, w).items():
            assert value[row] == pytest.approx(M.evaluate(y[long], p[long])[metric], abs=1e-12)


def test_metrics_do_not_depend_on_the_order_of_items():
    y, p = random_set(3, coarse=True)
    shuffled = np.random.default_rng(0).permutation(len(y))
    assert M.evaluate(y, p) == pytest.approx(M.evaluate(y[shuffled], p[shuffled]), abs=1e-12)


def test_bootstrap_is_the_same_to_the_last_bit_and_whatever_the_piece(monkeypatch):
    y, p = random_set(1)
    (first,), (again,) = (draw_scores(y, [p], Bootstrap(100)) for _ in range(2))
    assert all(np.array_equal(first[m], again[m]) for m in M.METRICS)
    rng, all_at_once = np.random.default_rng(42), resample_weights(200, 100, np.random.default_rng(42))
    pieces = np.vstack([resample_weights(200, size, rng) for size in (30, 1, 69)])
    assert np.array_equal(pieces, all_at_once)


def test_bootstrap_of_a_test_set_takes_well_under_a_second_a_metric():
    y, p = random_set(0, n=300, classes=10)
    for metric in M.METRICS:
        seconds = []
        for _ in range(3):
            start = time.process_time()
            estimate_scores(y, [p], score=(metric,))
            seconds.append(time.process_time() - start)
        assert min(seconds) < 1.5, (metric, seconds)  # measured 0.02-0.3 s; the slack is for a busy machine


def test_absent_and_single_classes():
    p = np.full((4, 3), 1 / 3)
    found = M.evaluate(np.array([2, 2, 2, 2]), p)
    assert np.isnan(found["auc"]) and found["classes_auc"] == 0 and found["map"] == 1
    area = estimate_scores(np.array([2, 2, 2, 2]), [p])["auc"]
    assert np.isnan([area.mean, area.low, area.high]).all() and area.text() == area.verdict == "–"
    table = M.per_class(np.array([2, 2, 2, 2]), p)
    assert table.recall.isna().tolist() == [True, True, False] and table["items"].tolist() == [0, 0, 4]


@pytest.mark.parametrize(
    "labels, p, message",
    [
        ([0, 1], np.ones((3, 2)), "2 labels for 3 rows"),
        ([0, 2], np.ones((2, 2)), "label 2 of row 1"),
        ([0, -1], np.ones((2, 2)), "label -1 of row 1"),
        ([0.0, 1.0], np.ones((2, 2)), "must be integers"),
        ([0, 1], np.array([[1, 0], [np.nan, 1]]), "row 1 are not finite"),
        ([0, 1], np.array([[1, 0], [np.inf, 1]]), "row 1 are not finite"),
        ([0, 1], np.ones(2), "non-empty"),
        ([], np.ones((0, 2)), "non-empty"),
        ([[0, 2], [1, 0]], np.ones((2, 2)), "0 and 1 only"),
        ([[0, 1, 1], [1, 0, 1]], np.ones((2, 2)), "differ in shape"),
    ],
)
def test_bad_input_is_named(labels, p, message):
    with pytest.raises(ValueError, match=message):
        M.evaluate(np.array(labels), p)


def test_crossed_bootstrap_does_not_shrink_with_copies_but_knows_seeds():
    y, p = random_set(5)
    sides = [p], [p] * 5, [p, p[:, ::-1]]
    made = [estimate_scores(y, tables, score=("accuracy",))["accuracy"] for tables in sides]
    single, copies, spread = [(e.low, e.high) for e in made]
    assert single == pytest.approx(copies, abs=1e-12)
    assert np.ptp(spread) > 2 * np.ptp(single)


def test_a_paired_difference_is_that_of_the_metrics():
    y, p = random_set(5)
    q = np.random.default_rng(0).dirichlet(np.ones(6), size=len(y))
    one = paired_difference(y, [p], [q])
    assert one["accuracy"].low > 0 and one["accuracy"].verdict == "better"
    assert one["accuracy"].mean == pytest.approx(M.evaluate(y, p)["accuracy"] - M.evaluate(y, q)["accuracy"])
    several = paired_difference(y, [p, p, p], [q, q])
    assert several["f1"].mean == pytest.approx(one["f1"].mean)


def test_summary_refuses_an_empty_split():
    run = SimpleNamespace(
        dataset="d", model="m", seed=0, select=lambda s: (np.array([]), np.array([]), np.zeros((0, 2)))
    )
    with pytest.raises(ValueError, match="no item of split 'test'"):
        summarise_runs([run])


def test_eighty_classes_and_five_thousand_items_stay_in_memory():
    rng = np.random.default_rng(0)
    truth = rng.random((5000, 80)) < 0.04
    (draws,) = draw_scores(truth.astype(int), [rng.random((5000, 80))], Bootstrap(50), ("accuracy", "f1"))
    assert np.isfinite(draws["f1"]).all()


def test_equal_models_with_equal_seeds_rarely_differ():
    rng, found = np.random.default_rng(0), []
    for _ in range(40):
        right = rng.random((2, 3, 240)) < 0.8
        sides = [[np.stack([made, ~made], 1).astype(float) for made in side] for side in right]
        gap = paired_difference(np.zeros(240, int), *sides, Bootstrap(200), ("accuracy",))["accuracy"]
        found.append(gap.low > 0 or gap.high < 0)
    assert np.mean(found) <= 0.05
