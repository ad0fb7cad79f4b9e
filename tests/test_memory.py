"""Large sets: views of rows give the same bits as copies, and memory does not grow with the number of items."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vbg.data import store
from vbg.data.balance import oversample
from vbg.data.store import ExampleData, RowView, join_examples
from vbg.gan.quality import IndependentClassifier, fit_independent, nearest, texture_features
from vbg.models.batches import Batches


def a_set(items, name="a", side=16):
    rng = np.random.default_rng(items)
    words = rng.integers(1, 9, (items, 2, 6))
    return ExampleData(
        pixels=rng.integers(0, 256, (items, side, side, 3), dtype=np.uint8),
        label=np.arange(items) % 3 % 2,
        ids=np.array([f"{name}{k}" for k in range(items)], object),
        texts=[["x", "y"]] * items,
        split=np.array(["train"] * items, object),
        class_names=["a", "b"],
        input_ids=words,
        attention_mask=np.ones_like(words),
    )


def rounds(train, pairs):
    "What a loop does to its items: repeats, two rounds of pairs, a choice of all but a few."
    first = oversample(train, np.array([40, 45]), seed=0)
    joined = join_examples(first, join_examples(pairs, pairs))
    return joined.take(np.arange(len(joined)) % 7 > 0)


def test_a_view_of_rows_gives_the_bits_of_a_copy(monkeypatch):
    train, pairs = a_set(50), a_set(12, "b")
    copy = rounds(train, pairs)
    monkeypatch.setattr(store, "IN_MEMORY", 0)
    view = rounds(train, pairs)
    assert isinstance(copy.pixels, np.ndarray) and isinstance(view.pixels, RowView)
    assert np.array_equal(np.asarray(view.pixels), copy.pixels) and np.array_equal(view.ids, copy.ids)
    assert all(any(part is held.pixels for held in (train, pairs)) for part in view.pixels.parts)  # nothing was copied
    drawn = [Batches(data=data, train=True, flip=0.5, shift=1, seed=3) for data in (copy, view)]
    for items in torch.randperm(len(copy), generator=torch.Generator().manual_seed(0)).split(9):
        one, two = (batches.__getitems__(items) for batches in drawn)
        assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    model = IndependentClassifier(num_classes=2, width=2, seed=0)
    for extractor in (None, model):
        found = [nearest(pairs.pixels, data.pixels, extractor) for data in (copy, view)]
        assert all(np.array_equal(a, b) for a, b in zip(*found))
    assert texture_features(copy.pixels).equals(texture_features(view.pixels))
    learnt = [fit_independent(data, epochs=1, width=2) for data in (copy, view)]
    assert all(torch.equal(a, b) for a, b in zip(*(network.state_dict().values() for network in learnt)))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel does not tell a process's own memory")
def test_memory_does_not_grow_with_the_pixels(tmp_path):
    "15,000 more items are 2,258 MB of pixels. The points that `nearest` compares are 25 kB an item and direction."
    script, few, many = Path(__file__).with_name("large_rows.py"), 5000, 20000
    found = {
        items: json.loads(subprocess.check_output([sys.executable, script, str(items), str(tmp_path / "rows")]))
        for items in (few, many)
    }
    more = {name: found[many][name] - found[few][name] for name in found[many]}
    assert all(more[name] < 200 for name in ("choice", "loop", "gan")), (found, more)
    assert more["nearest"] < 0.1 * (many - few), (found, more)
