"""What training must not see, what it must not depend on, and what becomes of odd requests."""
import json

import numpy as np
import pandas as pd
import pytest

import vbg.train as vt
from vbg.data import DataError
from vbg.runs import run_folder

TINY = {"train": dict(epochs=1)}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBG_HOME", str(folder))
        vt.train_runs("smoke", "met", models="without_gan", seeds=[0], overrides=TINY, store="plain")
        yield folder


def spoiled(sets):
    "The same data with pixels, texts and labels of every test item replaced."
    natural = sets["natural"]
    test = natural.split == "test"
    assert test.sum() > 10
    natural.pixels = natural.pixels.copy()
    natural.pixels[test] = 255 - natural.pixels[test]
    natural.label = np.where(test, 0, natural.label)
    natural.texts = [["zebra quartz unheard word"] if t else texts for t, texts in zip(test, natural.texts)]
    return sets


def test_the_fit_is_blind_to_the_test_split(home, monkeypatch):
    plain = vt.study_data
    monkeypatch.setattr(vt, "study_data", lambda *a, **k: spoiled(plain(*a, **k)))
    monkeypatch.setattr(vt, "_tokenise_once", lambda data, folder, key, tokenizer, length: vt.tokenise(data, tokenizer, length))
    vt.train_runs("smoke", "met", models="without_gan", seeds=[0], overrides=TINY, store="spoiled")
    a, b = (run_folder(store, "met", "without_gan", 0) for store in ("plain", "spoiled"))
    assert (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()
    columns = ["train_loss", "validation_loss", "validation_accuracy"]
    assert pd.read_csv(a / "history.csv")[columns].equals(pd.read_csv(b / "history.csv")[columns])
    assert json.loads((a / "metrics.json").read_text())["test"] != json.loads((b / "metrics.json").read_text())["test"]


def test_tokens_are_stored_once_and_read_back(home):
    folder = vt.study_folders("smoke", "met")["natural"]
    files = sorted(folder.glob("*.npy"))
    assert [f.name.split("-")[0] for f in files] == ["attention_mask", "input_ids"]
    before = [f.stat().st_mtime_ns for f in files]
    vt.train_runs("smoke", "met", models="without_vit_gan", seeds=[0], overrides=TINY, store="again")
    assert sorted(folder.glob("*.npy")) == files and [f.stat().st_mtime_ns for f in files] == before


def test_a_set_of_another_size_is_mapped_into_memory(home, monkeypatch):
    monkeypatch.setattr(vt, "IN_MEMORY", 0)
    asked = []
    monkeypatch.setattr(vt, "load_examples", lambda folder, in_memory: asked.append(in_memory))
    vt._load(vt.study_folders("smoke", "met")["natural"])
    assert asked == [False]


def test_random_captions_are_uniform_over_the_texts_an_item_has():
    data = vt.ExampleData(ids=np.array(["a", "b"]), pixels=np.zeros((2, 8, 8, 3), np.uint8), label=np.array([0, 1]), texts=[["x", "y"], ["z"]],
                          split=np.array(["train", "train"]), class_names=["p", "q"])
    data.input_ids = np.arange(10).reshape(2, 5, 1)
    data.attention_mask = np.ones((2, 5, 1), bool)
    batches = vt.Batches(data=data, train=True, seed=0)
    seen = [batches.__getitems__([0, 1])["input_ids"].flatten().tolist() for _ in range(400)]
    first, second = zip(*seen)
    assert set(first) == {0, 1} and 150 < first.count(0) < 250 and set(second) == {5}


def test_unknown_model_and_data_set_are_refused_by_name(home):
    with pytest.raises(ValueError, match="without_gan"):
        vt.train_runs("smoke", "met", models="with_gan", seeds=[0])
    with pytest.raises(ValueError, match="only met, coco"):
        vt.train_runs("smoke", "louvre", models="without_gan", seeds=[0])


def test_absent_real_data_ends_in_an_error_with_a_remedy(home):
    with pytest.raises(DataError, match="MetObjects.csv.*Remedy"):
        vt.study_data("paper", "met")
