"""Fig. 8's numbers on features with a known answer, and its picture twice."""

import io
from itertools import combinations
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from vbg.explain import space as F
from vbg.explain import space_figures as P

matplotlib.use("Agg")
LABELS = np.repeat(np.arange(4), 15)


def features(seed, spread=0.2, size=12):
    rng = np.random.default_rng(seed)
    return F.unit(np.eye(size)[LABELS] + spread * rng.normal(size=(len(LABELS), size)))


def strangers(seed, size=12):
    return F.unit(np.random.default_rng([7, seed]).normal(size=(len(LABELS), size)))


def space(after=lambda s: (features(s), features(s)), seeds=2):
    "Strangers before fusion, what is asked for after it."
    stages = {}
    for stage in F.STAGES:
        pairs = [after(s) if "after" in stage else (strangers(s), strangers(s + 50)) for s in range(seeds)]
        stages[stage] = [(image, text, np.arange(len(LABELS))) for image, text in pairs]
    values = {stage: [F.item_values(i, t, LABELS, p) for i, t, p in of] for stage, of in stages.items()}
    return F.Space(
        dataset="toy",
        class_names=list("abcd"),
        ids=np.arange(len(LABELS)).astype(str),
        labels=LABELS,
        seeds=list(range(seeds)),
        features=stages,
        values={stage: {m: np.stack([v[m] for v in of]) for m in of[0]} for stage, of in values.items()},
    )


def test_identical_features_have_no_distance_and_are_all_found():
    image = features(0)
    found = F.item_values(image, image, LABELS, np.arange(60))
    assert F.modality_gap(image, image)[0] == 0 and found["own"].max() < 1e-6
    assert found["recall_text_1"].mean() == found["recall_image_5"].mean() == 1
    assert found["silhouette_both"].mean() > 0.3 and found["margin"].min() > 0
    assert np.isclose(found["silhouette_image"].mean(), silhouette_score(image, LABELS))


def test_shuffled_pairs_are_found_by_chance_and_keep_their_classes():
    image, text, within = features(0), features(1), []
    for s in range(100):
        partner = F.shuffled_partners(LABELS, True, s)
        within.append(F.item_values(image, text[partner], LABELS, np.arange(60)))
    assert abs(np.mean([w["recall_text_1"].mean() for w in within])) < 0.1  # its own is one of 15 of its class
    assert np.allclose([w["margin"].mean() for w in within], F.class_margin(image, text, LABELS).mean(), atol=0.02)
    across = [F.hits(image, image[np.random.default_rng(s).permutation(60)], 5).mean() for s in range(300)]
    assert abs(np.mean(across) - 5 / 60) < 0.01


def test_features_that_say_nothing_give_chance_in_every_measure():
    found = [F.item_values(strangers(s), strangers(s + 500), LABELS, np.arange(60)) for s in range(80)]
    mean = lambda name: np.mean([f[name].mean() for f in found])
    assert abs(mean("recall_text_1") - 1 / 60) < 0.01 and abs(mean("recall_text_5") - 5 / 60) < 0.015
    assert (
        abs(mean("precision_text") - 14 / 59) < 0.015
        and abs(mean("mixing") - 0.5) < 0.01
        and abs(mean("margin")) < 0.01
    )
    for name, value in (("recall_text_5", 100 * 5 / 60), ("precision_image", 100 * 14 / 59), ("mixing", 50)):
        assert P.by_chance(name, LABELS) == f"{value:.1f}"


def test_equal_features_are_decided_by_lot():
    same = np.tile([[0.6, 0.8]], (10, 1))
    assert np.allclose(F.hits(same, same, 3), 0.3)


def test_a_modality_that_is_moved_away_changes_the_gap_and_nothing_within_it():
    image = features(0)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(12, 12)))[0]
    near, far = (F.item_values(image, text, LABELS, np.arange(60)) for text in (image, F.unit(image @ turn)))
    assert np.allclose(near["silhouette_text"], far["silhouette_text"]) and far["own"].mean() > near["own"].mean() + 0.5
    assert F.modality_gap(image, F.unit(image @ turn))[0] > 0.1


def test_what_was_read_is_told_from_what_belongs():
    rng = np.random.default_rng(0)
    texts = F.unit(rng.normal(size=(60, 12)))
    partner = F.shuffled_partners(LABELS, False, 0)
    found = F.item_values(texts[partner], texts, LABELS, partner)  # an image that is nothing but the text it read
    assert found["read_text_1"].mean() == found["read_image_1"].mean() == 1 and found["recall_text_1"].mean() == 0
    classes = features(1)
    assert (
        F.item_values(classes[partner], classes, LABELS, partner)["margin"].mean() < 0
    )  # it lies with the class of that text


def test_claims_follow_the_numbers_and_turn_with_them():
    good = P.claims_table(space())
    assert good[good.verdict != "– (control)"].verdict.tolist() == ["reproduced"] * 4
    controls = good[good.stage == "before fusion"]
    assert controls.interval.tolist()[0] == "smaller than the noise" and (controls.verdict == "– (control)").all()
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(12, 12)))[0]
    same = features(0)  # of every seed
    apart = P.claims_table(space(lambda s: (same, F.unit(-same.mean(0) * 9 - same @ turn))))
    assert "not reproduced" in apart[apart.sentence.str.contains("more than by modality")].verdict.tolist()


def test_intervals_cover_and_are_the_same_twice():
    inside = []
    for s in range(60):
        rng = np.random.default_rng(s)
        values = 0.5 + 0.3 * rng.normal(size=(1, 200)) + 0.02 * rng.normal(size=(3, 1))
        e = P.estimate_complete(values)
        inside.append(e.low <= 0.5 <= e.high)
    assert np.mean(inside) > 0.88
    one, two = (P.estimate_complete(values) for _ in range(2))
    assert one == two


def test_ten_colours_are_told_apart_by_colour_blind_eyes():
    assert len(set(P.CLASS_COLOURS)) == 10
    for eye in ("", "protanopia", "deuteranopia"):
        lab = P.as_seen(P.CLASS_COLOURS, eye)
        closest = min(np.linalg.norm(a - b) for a, b in combinations(lab, 2))
        assert closest > 25, (eye, closest)
    white = P.as_seen(["#FFFFFF"])
    assert (np.linalg.norm(P.as_seen(P.CLASS_COLOURS) - white, axis=1) > 20).all()  # none is lost on paper


def test_simulated_eyes_keep_grey_and_confuse_red_and_green():
    grey = P.as_seen(["#404040", "#C0C0C0"])
    for eye in ("protanopia", "deuteranopia"):
        assert np.abs(P.as_seen(["#404040", "#C0C0C0"], eye) - grey).max() < 0.5
        blue, yellow = P.as_seen(["#0072B2", "#F0E442"], eye)
        assert np.linalg.norm(blue - yellow) > 80
    with pytest.raises(KeyError):
        P.as_seen(["#000000"], "tetrachromat")


def test_umap_finds_the_classes_and_twice_the_same_bytes():
    both = np.concatenate([features(0), features(1)])
    one, two = (F.plane(both, "UMAP", 3) for _ in range(2))
    assert one.tobytes() == two.tobytes() and one.shape == (120, 2)
    kept, lost = F.kept(both, one, LABELS), F.kept(both, np.random.default_rng(0).normal(size=(120, 2)), LABELS)
    assert kept["agree"] > 0.9 > lost["agree"] + 0.3 and kept["trustworthiness"] > lost["trustworthiness"] + 0.2
    made = space()
    pictures = F.pictures_of(made, seed=0)
    first, second = (P.space_figure(made, pictures, 0) for _ in range(2))
    images = []
    for figure in (first, second):
        figure.savefig(held := io.BytesIO(), metadata={"Software": None})
        images.append(held.getvalue())
    assert images[0] == images[1]
    numbers = P.numbers_table(made, pictures).set_index("measure")
    assert float(numbers.loc["UMAP: class by 15 neighbours in the plane, %", "after fusion"].split()[0]) > 90
    assert len(P.coordinates_table(made, pictures, 1)) == 120


def test_a_trained_run_passes_through_every_stage(tmp_path, monkeypatch):
    from vbg.explain.restore import restore
    from vbg.train.jobs import train_runs

    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    small = {"train": {"epochs": 1}, "balance": {"kind": "none"}}
    runs = train_runs("smoke", "met", models="without_gan", seeds=[0, 1], overrides=small, store="space")
    held = F.measure_space([restore(run) for run in runs], "balanced")
    n = len(held.labels)
    assert held.seeds == [0, 1] and set(held.features) == set(F.STAGES) and n == len(held.ids)
    for stage in F.STAGES:
        for image, text, partner in held.features[stage]:
            assert image.shape == text.shape and np.allclose(np.linalg.norm(image, axis=1), 1)
            assert (partner == np.arange(n)).all() == ("read" not in stage)
    right, other = (held.features[stage][0] for stage in ("after fusion", "after fusion, other-class text read"))
    assert not np.allclose(right[0], other[0])  # the image has read another text
    assert np.allclose(
        held.features["before fusion"][0][1],
        F.unit(np.asarray(F.features_of(restore(runs[0]), F.items_of(restore(runs[0]), "balanced"))["text_features"])),
    )
    assert len(P.claims_table(held)) == 13
    with pytest.raises(ValueError, match="no two sides"):
        one_way = SimpleNamespace(**vars(restore(runs[0])))
        monkeypatch.setattr(
            F,
            "features_of",
            lambda found, data: {"image_features": np.ones((len(data), 2)), "text_features": np.ones((len(data), 2))},
        )
        monkeypatch.setattr(F, "fresh_weights", lambda found, seed: found)
        F.stage_features(one_way, F.items_of(one_way, "balanced"))
