"""What the measures of a generator promise: whom the independent classifier may see, and what chance looks like."""

import numpy as np
import pytest
import torch

from vbg.core.files import DataError
from vbg.data.store import ExampleData
from vbg.gan.quality import (
    IndependentClassifier,
    class_agreement,
    collapse_score,
    feature_distances,
    fit_independent,
    format_test,
    jpeg_round_trip,
    memorised,
    precision_recall,
    real_distances,
    see,
)


def toy(n, seed, split="train"):
    rng, label = np.random.default_rng(seed), np.arange(n) % 2
    pixels = (rng.integers(0, 120, (n, 32, 32, 3)) + 80 * label[:, None, None, None]).astype(np.uint8)
    return ExampleData(
        pixels=jpeg_round_trip(pixels),
        label=label,
        ids=np.array([f"{seed}-{i}" for i in range(n)]),
        texts=[["x"]] * n,
        split=np.full(n, split),
        origin=np.array(["real"] * n, object),
        class_names=["dark", "light"],
    )


def test_classifier_refuses_what_is_not_real_training_data():
    data = toy(8, 0)
    with pytest.raises(DataError, match="0-0"):
        fit_independent(toy(8, 0, "validation"), epochs=1)
    data.origin[3] = "generated"
    with pytest.raises(DataError, match="0-3.*generated"):
        fit_independent(data, epochs=1)


def test_training_leaves_the_global_generator_alone_and_repeats_itself():
    data, other = toy(24, 0), toy(40, 1)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    model, again = (fit_independent(data, epochs=4, width=4, seed=3) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))
    agreement = class_agreement(model, other.pixels, other.label)
    assert agreement["low"] < agreement["share"] <= agreement["high"] and agreement["share"] > 0.9


def test_looking_changes_no_classifier():
    model = IndependentClassifier(num_classes=2, width=4, seed=0).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    see(model, toy(6, 0).pixels)
    assert model.training and all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_a_perfect_generator_is_as_far_as_two_real_halves():
    model, data = IndependentClassifier(num_classes=2, width=4, seed=0), toy(120, 2)
    halves = real_distances(data.pixels, model, seed=0, count=60)
    features = see(model, data.pixels)
    dark = feature_distances(features[data.label == 0], features[data.label == 1], seed=0)
    assert halves["fid"] < dark["fid"] / 10 and abs(halves["kid"]) < dark["kid"] / 10
    assert precision_recall(features, features) == dict(precision=1, recall=1)


def test_collapse_and_copies():
    data, held_out = toy(60, 3), toy(60, 4)
    assert collapse_score(np.repeat(data.pixels[:1], 9, 0), data.pixels) == 0
    copies = data.pixels[:3, :, ::-1]
    assert (
        memorised(np.concatenate([copies, toy(5, 5).pixels]), data.pixels, held_out.pixels).tolist()
        == [True] * 3 + [False] * 5
    )


def test_format_test_finds_images_that_were_never_jpeg():
    real, same, raw = toy(60, 6), toy(60, 7), toy(60, 8)
    for data in (real, same, raw):
        data.pixels = np.clip(
            data.pixels + np.random.default_rng(len(data)).integers(-9, 10, data.pixels.shape), 0, 255
        ).astype(np.uint8)
    real.pixels, same.pixels = jpeg_round_trip(real.pixels), jpeg_round_trip(same.pixels)
    assert format_test(real, same, seed=0, folds=3, permutations=0)["low"] <= 0.5
    assert format_test(real, raw, seed=0, folds=3, permutations=0)["low"] > 0.9
