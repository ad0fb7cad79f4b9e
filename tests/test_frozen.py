"""Frozen features in the study's own path: cached tokens and frozen encoders give one result, each by its key."""

import re
import shutil

import numpy as np
import pytest
from conftest import write_encoders
from safetensors.torch import load_file, save_file
from test_resume import left_behind, result, stop_after

import vbg.train.jobs as vt
from vbg.core.files import DataError
from vbg.data import sets as sets_module
from vbg.explain.restore import restore
from vbg.models import batches as batches_module
from vbg.models.text import train_tokenizer
from vbg.models.vbg import build_model, load_weights
from vbg.runs import resume

SIZES = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, initializer_range=0.2)


def settings(home, **train):
    absent = dict.fromkeys(("hidden_size", "patch_size", "num_layers", "num_heads", "intermediate_size"))
    vision = absent | dict(image_size=64, stem="linear", position="learned", checkpoint=str(home / "vit"))
    text = {k: v for k, v in absent.items() if k != "patch_size"} | dict(
        vocab_size=None, max_length=24, checkpoint=str(home / "bert")
    )
    return dict(
        vision=vision,
        text=text,
        fusion=dict(num_heads=2),
        train=dict(epochs=1, flip=0.0, shift=0, token_masking=0.0, encoders="cached") | train,
    )


def run(home, model="without_gan", store="cached", **train):
    return vt.train_runs("smoke", "met", models=model, seeds=[0], overrides=settings(home, **train), store=store)[0]


def folders(home):
    return {
        p
        for name in ("natural", "large", "balanced")
        for p in sets_module.study_folders("smoke", "met")[name].glob("features-*")
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frozen")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBG_HOME", str(folder))
        texts = sets_module.study_data("smoke", "met")["natural"].select("train").texts
        tokenizer = train_tokenizer([text for several in texts for text in several], 300)
        write_encoders(folder, tokenizer, 64, 16, **SIZES)
        run(folder)
        yield folder


def test_cached_and_live_give_the_same_predictions(home):
    cached, live = run(home), run(home, store="live", encoders="frozen")
    for split in ("validation", "test", "balanced"):
        a, b = cached.select(split), live.select(split)
        assert (a[0] == b[0]).all() and np.abs(a[2] - b[2]).max() < 1e-5


def test_a_training_on_cached_tokens_goes_on_to_the_same_bits(home, monkeypatch, capsys):
    monkeypatch.setattr(resume, "EVERY", 0.0)
    monkeypatch.setattr(resume, "SHARE", 1.0)
    unbroken = result(run(home, store="unbroken", epochs=4).folder)
    stop_after(2, monkeypatch, lambda: run(home, store="stopped", epochs=4))
    assert result(run(home, store="stopped", epochs=4).folder) == unbroken
    assert "goes on after epoch 2\n" in capsys.readouterr().out and left_behind(home) == []


def test_a_run_with_frozen_encoders_can_be_loaded_and_predicts_the_same(home):
    made = run(home)
    weights = load_file(made.folder / "model.safetensors")
    assert weights and not [name for name in weights if name.startswith(("vision.", "text."))]
    config = sets_module.study_settings("smoke", "met", overrides=settings(home))
    sets = sets_module.study_data("smoke", "met")
    batches_module.tokenise_sets(sets, config)
    model = build_model(config, num_classes=sets["natural"].num_classes, seed=9).freeze_encoders()
    found = batches_module.predict(
        load_weights(model, made.folder / "model.safetensors"), sets["natural"].select("test")
    )
    assert np.abs(found - made.select("test")[2]).max() < 1e-5
    with pytest.raises(DataError, match="weights of another model"):
        load_weights(
            build_model(config, num_classes=sets["natural"].num_classes, seed=9), made.folder / "model.safetensors"
        )


def test_tokens_are_made_once_for_all_models_that_read_both_sides(home):
    before = folders(home)
    assert len(before) == 6  # natural, large and balanced, each of two encoders
    run(home, "logistic_regression")
    run(home, store="again", epochs=2)
    run(home, "without_bert_gan")
    assert folders(home) == before


def test_the_regression_reads_the_stored_tokens_and_the_items_of_its_rule(home, monkeypatch):
    counts = []
    plain = vt.BASELINES["logistic_regression"]
    monkeypatch.setitem(
        vt.BASELINES, "logistic_regression", lambda data, *rest: counts.append(len(data)) or plain(data, *rest)
    )
    best, last = (
        run(home, "logistic_regression", store="best"),
        run(home, "logistic_regression", store="last", select="last"),
    )
    natural = sets_module.study_data("smoke", "met")["natural"]
    assert counts == [(natural.split == "train").sum(), (natural.split != "test").sum()]
    assert np.isfinite(best.history.validation_accuracy).all() and last.history.validation_accuracy.isna().all()


@pytest.mark.parametrize("change", ["vision weights", "text weights", "length", "tokenizer", "[CLS]"])
def test_whatever_tokens_depend_on_makes_them_anew(home, tmp_path, change):
    for name in ("vit", "bert"):
        shutil.copytree(home / name, tmp_path / name)
    before, asked = folders(home), settings(tmp_path)
    if change.endswith("weights"):
        file = tmp_path / ("vit" if change.startswith("vision") else "bert") / "model.safetensors"
        save_file({name: value + 0.01 for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
    elif change == "length":
        asked["text"]["max_length"] = 20
    elif change == "[CLS]":
        asked["vision"]["tokens"] = "cls"
    else:
        texts = sets_module.study_data("smoke", "met")["natural"].select("train").texts
        train_tokenizer([text for several in texts for text in several], 290).save_pretrained(tmp_path / "bert")
    vt.train_runs("smoke", "met", models="without_gan", seeds=[0], overrides=asked, store=re.sub(r"\W", "-", change))
    assert len(folders(home) - before) == 3


def test_tokens_go_by_what_items_hold_and_not_by_the_name_of_the_set(home, monkeypatch):
    before, plain = folders(home), sets_module.study_data

    def other(*arguments, **named):
        sets = plain(*arguments, **named)
        for name in ("natural", "large", "balanced"):
            sets[name].fingerprint = "f" * 16
        sets["large"].pixels = np.concatenate([255 - sets["large"].pixels[:1], sets["large"].pixels[1:]])
        return sets

    monkeypatch.setattr(vt, "study_data", other)
    said = []
    monkeypatch.setattr(vt.Progress, "say", lambda self, line: said.append(line))
    run(home, store="other-data")
    assert len(folders(home) - before) == 1  # the pictures of the one set of which one changed
    assert [line.split(" items")[0] for line in said if "encoded" in line] == ["met-large, image: 1 of 1"]


def test_the_last_blocks_learn_and_nothing_below_them(home):
    made = run(home, store="last", encoders="last:1", encoder_learning_rate=1e-2)
    weights = load_file(made.folder / "model.safetensors")
    own = {name for name in weights if name.startswith(("vision.", "text."))}
    assert own and all(".layers.0." in name or ".layer.0." in name or "layernorm" in name for name in own)
    assert "text.transformer.encoder.layer.0.output.dense.weight" in own
    config = sets_module.study_settings(
        "smoke", "met", overrides=settings(home, encoders="last:1", encoder_learning_rate=1e-2)
    )
    sets = sets_module.study_data("smoke", "met")
    batches_module.tokenise_sets(sets, config)
    model = build_model(config, num_classes=sets["natural"].num_classes, seed=9).freeze_encoders(1)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    found = batches_module.predict(
        load_weights(model, made.folder / "model.safetensors"), sets["natural"].select("test")
    )
    assert np.abs(found - made.select("test")[2]).max() < 1e-5
    moved = {name for name, value in model.state_dict().items() if not (value == start[name]).all()}
    assert own - {n for n in own if n.endswith("k_proj.bias") or n.endswith("key.bias")} <= moved
    assert not {name for name in moved if name.startswith(("vision.", "text."))} - own


def test_more_blocks_than_there_are_and_a_rate_of_nothing_are_refused(home):
    with pytest.raises(ValueError, match="VisionEncoder has 1 blocks, fewer than 2"):
        run(home, store="deep", encoders="last:2", encoder_learning_rate=1e-2)
    with pytest.raises(ValueError, match="encoder_learning_rate is 0"):
        run(home, store="still", encoders="last:1", encoder_learning_rate=0.0)


def in_folds(home, model, store="folds", **about):
    data = dict(reader="met", folder=str(home / "data/smoke/met/natural"), options=dict(label_set="fine"), minimum=3)
    return vt.train_runs(
        "smoke", "few", models=model, seeds=[0], data=data | about, overrides=settings(home), store=store
    )[0]


@pytest.mark.parametrize("model", ["without_gan", "textcnn", "tfidf", "image_regression"])
def test_a_run_in_folds_predicts_every_item_by_a_network_that_has_not_seen_it(home, model):
    made = in_folds(home, model, folds=3)
    ids, _, probabilities = made.select("test")
    sets = [sets_module.study_data("smoke", "few", made.info["config"]["data"]["few"] | dict(fold=k)) for k in range(3)]
    assert [*ids] == [name for fold in sets for name in fold["natural"].select("test").ids]
    assert sorted(ids) == sorted(sets[0]["natural"].ids)
    alone = in_folds(home, model, store="alone", folds=3, fold=1)
    mine = np.isin(ids, alone.select("test")[0])
    assert mine.sum() == len(alone.select("test")[0]) < len(ids)
    assert np.abs(probabilities[mine] - alone.select("test")[2]).max() < 1e-6
    assert len(made.info["folds"]) == 3 and "folds" not in alone.info
    assert made.info["seconds"] == sum(fold["seconds"] for fold in made.info["folds"])
    validation = made.select("validation")[0]
    assert len({*validation}) == len(validation) == sum(len(fold["natural"].select("validation")) for fold in sets)


def test_the_network_of_the_first_fold_of_a_run_can_be_restored(home):
    found = restore(in_folds(home, "without_gan", folds=3))
    assert len(found.sets["natural"].select("test")) < len(found.run.select("test")[0])


def test_damaged_tokens_are_named_with_a_remedy(home):
    for place in folders(home):
        next(place.glob("*_tokens.npy")).write_bytes(b"half")
    with pytest.raises(DataError, match="_tokens are damaged or absent.*delete this folder"):
        run(home, store="damaged")
