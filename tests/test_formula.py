"""Drawings by formula: the same bytes on every machine, nothing of the miniature sets in them."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from heads import imports_by_module

from vbg.data.formula import draw, drawn_batches, formulas

FIRST = "d8c4a7e8edae45fee92ea32e6f0e9072c4c3a8bfe9811ffa0fa95321e7ddc53e"
HASH = (
    "import hashlib, numpy as np; from vbg.data.formula import draw, formulas; "
    "pixels = draw(formulas(400, 0), np.repeat(np.arange(4), 8), np.random.default_rng(1)); "
    "print(hashlib.sha256(pixels.tobytes()).hexdigest())"
)


def test_the_drawings_are_those_of_the_machine_that_the_weights_were_trained_on():
    pixels = draw(formulas(400, 0), np.repeat(np.arange(4), 8), np.random.default_rng(1))
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == FIRST


def test_a_processor_without_wide_instructions_draws_the_same_bytes():
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    env = dict(os.environ, NPY_DISABLE_CPU_FEATURES=" ".join(found))
    done = subprocess.run([sys.executable, "-c", HASH], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == FIRST, done.stderr[-2000:]


def test_epochs_differ_in_all_but_their_classes():
    classes = formulas(10, 3)
    one, again, other = ([*drawn_batches(classes, 50, 20, seed=[3, epoch], size=32)] for epoch in (1, 1, 2))
    assert [len(labels) for _, labels in one] == [20, 20, 10]
    for (pixels, labels), (same, as_labels) in zip(one, again):
        assert (pixels == same).all() and (labels == as_labels).all()
    images = np.concatenate([pixels for pixels, _ in one + other]).reshape(100, -1)
    assert len(np.unique(images, axis=0)) == 100
    for epoch in (one, other):
        assert np.bincount(np.concatenate([labels for _, labels in epoch])).tolist() == [5] * 10


@pytest.mark.parametrize("size", [32, 96])
def test_a_class_looks_alike_at_every_size(size):
    classes, labels = formulas(6, 1), np.arange(6)
    small, large = (draw(classes, labels, np.random.default_rng(0), k).mean((1, 2)) for k in (size, 64))
    assert np.abs(small - large).max() < 4  # mean colour, of 255: only the grain is drawn anew


def test_the_module_knows_nothing_of_the_miniature_sets():
    assert imports_by_module()["data.formula"] == set()
