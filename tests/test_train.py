"""What training must not see, what it must not depend on, and what becomes of odd requests."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import vbg.train.jobs as vt
from vbg.core.files import DataError
from vbg.core.profiles import profile as read_profile
from vbg.data import sets as sets_module
from vbg.data.store import ExampleData
from vbg.models import batches as batches_module
from vbg.models.vbg import build_model
from vbg.runs.store import run_folder
from vbg.train import fit as fit_module

TINY = {"train": dict(epochs=1)}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBG_HOME", str(folder))
        vt.train_runs("smoke", "met", models="without_gan", seeds=[0], overrides=TINY, store="plain")
        yield folder


def spoiled(sets, apart):
    "In a folder apart, for their tokens: the same data with pixels, texts and labels of every test item replaced."
    natural = sets["natural"]
    test = natural.split == "test"
    assert test.sum() > 10
    natural.pixels = natural.pixels.copy()
    natural.pixels[test] = 255 - natural.pixels[test]
    natural.label = np.where(test, 0, natural.label)
    natural.texts = [["zebra quartz unheard word"] if t else texts for t, texts in zip(test, natural.texts)]
    for name in sets["folders"]:
        (apart / name).mkdir()
    return sets | dict(folders={name: apart / name for name in sets["folders"]})


def test_the_fit_is_blind_to_the_test_split(home, monkeypatch, tmp_path):
    plain = vt.study_data
    monkeypatch.setattr(vt, "study_data", lambda *a, **k: spoiled(plain(*a, **k), tmp_path))
    vt.train_runs("smoke", "met", models="without_gan", seeds=[0], overrides=TINY, store="spoiled")
    a, b = (run_folder(store, "met", "without_gan", 0) for store in ("plain", "spoiled"))
    assert (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()
    columns = ["train_loss", "validation_loss", "validation_accuracy"]
    assert pd.read_csv(a / "history.csv")[columns].equals(pd.read_csv(b / "history.csv")[columns])
    assert json.loads((a / "metrics.json").read_text())["test"] != json.loads((b / "metrics.json").read_text())["test"]


def test_tokens_are_stored_once_and_read_back(home):
    folder = sets_module.study_folders("smoke", "met")["natural"]
    files = sorted(folder.glob("*.npy"))
    assert [f.name.split("-")[0] for f in files] == ["attention_mask", "input_ids"]
    before = [f.stat().st_mtime_ns for f in files]
    vt.train_runs("smoke", "met", models="without_vit_gan", seeds=[0], overrides=TINY, store="again")
    assert sorted(folder.glob("*.npy")) == files and [f.stat().st_mtime_ns for f in files] == before


def test_a_set_of_another_size_is_mapped_into_memory(home, monkeypatch):
    monkeypatch.setattr(sets_module, "IN_MEMORY", 0)
    asked, load = [], sets_module.load_examples
    monkeypatch.setattr(
        sets_module, "load_examples", lambda folder, in_memory: asked.append(in_memory) or load(folder, in_memory)
    )
    sets_module.study_data("smoke", "met")
    assert asked and not any(asked)


def test_random_captions_are_uniform_over_the_texts_an_item_has():
    data = ExampleData(
        ids=np.array(["a", "b"]),
        pixels=np.zeros((2, 8, 8, 3), np.uint8),
        label=np.array([0, 1]),
        texts=[["x", "y"], ["z"]],
        split=np.array(["train", "train"]),
        class_names=["p", "q"],
    )
    data.input_ids = np.arange(10).reshape(2, 5, 1)
    data.attention_mask = np.ones((2, 5, 1), bool)
    batches = batches_module.Batches(data=data, train=True, seed=0)
    seen = [batches.__getitems__([0, 1])["input_ids"].flatten().tolist() for _ in range(400)]
    first, second = zip(*seen)
    assert set(first) == {0, 1} and 150 < first.count(0) < 250 and set(second) == {5}


def test_a_run_tells_its_epochs_and_whether_it_was_trained_out(home):
    def told(store, models=("without_vit_gan",), **train):
        made = vt.train_runs("smoke", "met", models=models, seeds=[0], overrides={"train": train}, store=store)
        assert all(len(run.history) == run.info["epochs"] for run in made)
        return [(run.info["epochs"], run.info["plateau"]) for run in made]

    assert told("short", ("without_vit_gan", "majority"), epochs=2) == [(2, False), (1, True)]
    assert told("last", epochs=2, select="last") == [(2, None)]  # no validation split: nothing can tell
    # from the second epoch on no loss is a tenth of the one before: a plateau, and one epoch in which the rate falls
    assert told("ended", epochs=20, plateau_gain=0.9, patience=1) == [(3, True)]
    history = pd.read_csv(run_folder("ended", "met", "without_vit_gan", 0) / "history.csv")
    assert history.lr.iloc[-1] == 0 < history.lr.iloc[1]


def test_unknown_model_and_data_set_are_refused_by_name(home):
    with pytest.raises(ValueError, match="without_gan"):
        vt.train_runs("smoke", "met", models="with_gan", seeds=[0])
    with pytest.raises(ValueError, match="only met, coco"):
        vt.train_runs("smoke", "louvre", models="without_gan", seeds=[0])


def test_absent_real_data_ends_in_an_error_with_a_remedy(home):
    with pytest.raises(DataError, match="MetObjects.csv.*Remedy"):
        sets_module.study_data("paper", "met")


def test_the_pieces_of_an_epoch_make_every_item_come_equally_often():
    for count, items, epochs in [(7, 20, 3), (50, 20, 7), (5, 5, 2), (3, 1, 4)]:
        order = fit_module.SeededOrder(count=count, seed=3, items=items)
        seen = []
        for order.epoch in range(1, epochs + 1):
            piece = list(order)
            assert len(piece) == len(order) == items
            seen += piece
        assert np.ptp(np.bincount(seen, minlength=count)) <= 1


def test_crop_and_mixup_draw_nothing_when_they_are_off(home):
    data = sets_module.study_data("smoke", "met", overrides=TINY)["natural"].select("train").take(slice(0, 8))
    data.input_ids, data.attention_mask = np.ones((8, 2, 4), int), np.ones((8, 2, 4), int)
    plain, cut = (
        batches_module.Batches(data=data, train=True, flip=0.5, shift=2, crop=crop, seed=1) for crop in (0.0, 0.3)
    )
    first = [b.__getitems__(range(8))["pixel_values"] for b in (plain, cut)]
    assert not first[0].equal(first[1])
    draws = torch.Generator().manual_seed(1)
    torch.rand(8, generator=draws)  # choice of text
    batches_module.augment(torch.zeros(8, 4, 4, 3, dtype=torch.uint8), 0.5, 2, draws)
    assert plain.generator.get_state().equal(draws.get_state()) and not cut.generator.get_state().equal(
        draws.get_state()
    )
    assert fit_module.mixup_draws(0.0, 0) is None


def test_stored_tokens_are_mixed_like_those_of_running_encoders(home):
    model = build_model(read_profile("smoke"), variant="without_gan", num_classes=4, vocab_size=60, seed=0).eval()
    draw = torch.Generator().manual_seed(0)
    batch = dict(
        pixel_values=torch.randn(4, 3, 64, 64, generator=draw),
        input_ids=torch.randint(5, 60, (4, 6), generator=draw),
        attention_mask=(torch.arange(6) < torch.tensor([[6], [3], [4], [2]])).long(),
    )
    tokens = model.encode(batch["pixel_values"], batch["input_ids"], batch["attention_mask"].bool())
    tokens["text_tokens"][1, 3:] = 1e6  # what a store holds under padding does not count
    stored = dict(attention_mask=batch["attention_mask"], label=None, **tokens)
    partner = torch.tensor([1, 2, 3, 0])
    one, two = (model(**fit_module.mix_batch(model, b, 0.3, partner)).logits for b in (batch, stored))
    assert torch.allclose(one, two, atol=1e-5)
    with pytest.raises(ValueError, match="crop has no image"):
        batches_module.Batches(
            data=ExampleData(
                ids=["a"],
                pixels=None,
                label=np.zeros(1, int),
                texts=[["x"]],
                split=["train"],
                class_names=["a"],
                image_tokens=np.zeros((1, 2, 3), np.float32),
            ),
            train=True,
            crop=0.1,
        )
