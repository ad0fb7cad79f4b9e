"""Re-balanced training sets: as many items as asked, none of another split, and the loss that repeats would give."""

import numpy as np
import pytest
import torch

import vbg.train.jobs as vt
from vbg.core.files import DataError
from vbg.core.profiles import profile
from vbg.data.balance import BALANCES, balance, balance_targets, class_weights
from vbg.data.store import ExampleData
from vbg.train import fit as fit_module

COUNTS = [40, 11, 5, 2]


def a_set(splits=("train",)):
    label = np.repeat(range(4), COUNTS)
    n = len(label)
    return ExampleData(
        ids=np.array([f"i{i}" for i in range(n)]),
        pixels=np.arange(n * 12).reshape(n, 2, 2, 3).astype(np.uint8),
        label=label,
        texts=[[f"t{i}"] for i in range(n)],
        split=np.resize(splits, n),
        class_names=list("abcd"),
        input_ids=np.arange(n * 2).reshape(n, 1, 2),
        attention_mask=np.ones((n, 1, 2), np.int64),
    )


@pytest.mark.parametrize("level", ["scarce", 3, 50])
def test_oversampling_reaches_its_targets_and_repeats_whole_items(level):
    data = a_set()
    targets = balance_targets(data.label, 4, level)
    more = balance(data, "oversampling", 3, targets)
    assert np.bincount(more.label).tolist() == targets.tolist() and (targets >= COUNTS).all()
    place = np.array([int(i[1:]) for i in more.ids])
    assert (place[: len(data)] == np.arange(len(data))).all() and [t[0] for t in more.texts] == [f"t{i}" for i in place]
    assert (
        (more.pixels == data.pixels[place]).all()
        and (more.input_ids == data.input_ids[place]).all()
        and (more.label == data.label[place]).all()
    )
    times = np.bincount(place)
    assert all(np.ptp(times[data.label == c]) <= 1 for c in range(4))


def test_weights_give_the_loss_of_classes_that_come_equally_often():
    label = torch.tensor([0, 0, 0, 1, 1, 2])
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    output = type("Output", (), dict(logits=logits, auxiliary_logits={"image": logits.flip(1)}))
    equal = torch.tensor([0, 1, 2, 3, 4, 3, 4, 3, 4, 5, 5, 5, 5, 5, 5, 0, 1, 2])  # six of each class
    often = type("Output", (), dict(logits=logits[equal], auxiliary_logits={"image": logits.flip(1)[equal]}))
    weight = torch.from_numpy(class_weights(label.numpy(), 3))[label]
    assert torch.allclose(
        fit_module.training_loss(output, label, 0.5, weight),
        fit_module.training_loss(often, label[equal], 0.5),
        atol=1e-6,
    )


def test_held_out_items_and_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match=", ".join(BALANCES)):
        balance(a_set(), "more", 0, COUNTS)
    for kind in BALANCES[1:]:
        with pytest.raises(DataError, match="of split 'test'.*Remedy"):
            balance(a_set(("train", "validation", "test")), kind, 0, COUNTS)
        assert len(balance(a_set(("train", "validation")), kind, 0, COUNTS)) == sum(COUNTS)


def test_runs_are_balanced_at_an_equal_budget(tmp_path, monkeypatch):
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    batches, fits, whole = [], {}, fit_module.train_epoch
    fit = fit_module.fit

    def counted(loop, *rest):
        out = whole(loop, *rest)
        batches.append((len(loop.loader), out[2]))
        return out

    monkeypatch.setattr(fit_module, "train_epoch", counted)
    for kind, more in [
        ("none", {}),
        ("oversampling", {}),
        ("class_weights", {}),
        ("oversampling", dict(mixup=0.4, crop=0.2)),
    ]:
        monkeypatch.setattr(
            vt,
            "fit",
            lambda **k: (
                fits.setdefault((kind, len(more)), (np.bincount(k["train"].label), k["train"].weight)) and fit(**k)
            ),
        )
        asked = {"train": dict(epochs=1, items_per_epoch=80) | more, "balance": dict(kind=kind)}
        (run,) = vt.train_runs(
            "smoke", "met", models="without_gan", seeds=[0], overrides=asked, store=f"{kind}{len(more)}"
        )
        assert run.info["inputs"]["settings"]["balance"]["kind"] == kind
    assert batches == [(3, 80)] * 4
    plain, raised = fits["none", 0][0], fits["oversampling", 0][0]
    assert (
        raised.tolist() == balance_targets(np.repeat(range(len(plain)), plain), len(plain)).tolist()
        and raised.sum() > plain.sum()
    )
    assert fits["none", 0][1] is None and fits["class_weights", 0][1].mean() == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="none, oversampling, class_weights"):
        vt.train_runs(
            "smoke", "met", models="without_gan", seeds=[0], overrides={"balance": dict(kind="smote")}, store="x"
        )


def test_every_profile_leaves_classes_as_they_are():
    for name in ("smoke", "mini", "paper", "pretrained"):
        made = profile(name)
        assert (
            made.balance["kind"] == "none"
            and made.train["items_per_epoch"] is None
            and made.train["crop"] == made.train["mixup"] == 0
        )
