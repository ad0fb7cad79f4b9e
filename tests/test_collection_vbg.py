"""VBG among the rivals of a collection: told before, left out by the budget, kept as numbers, asked by `predict`."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import draw_museum, write_encoders

import vbg.explain.collection as collections
import vbg.explain.links as links
import vbg.explain.suggest as suggests
import vbg.train.vbg_rival as vbg_rival
from vbg.core.profiles import profile
from vbg.models.text import train_tokenizer
from vbg.train.encoded import Encoders

SIZES = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
OLD, NEW = 30, 10


pytestmark = pytest.mark.filterwarnings("ignore:.*has no preprocessor_config.json")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "A rendered museum of 40 objects; encoders of one layer, with random weights, in place of the pretrained ones."
    place = tmp_path_factory.mktemp("museum")
    table = draw_museum(place, OLD + NEW, 32)[["id", "image", "text", "label"]]
    table.columns = ["id", "image", "title", "category"]
    table[:OLD].to_csv(place / "old.csv", index=False)
    table[OLD:].drop(columns="category").to_csv(place / "new.csv", index=False)
    words = train_tokenizer(list(table.title), 200)
    write_encoders(place, words, 32, 8, **SIZES)
    made = profile("pretrained")
    vision = made.vision | dict(image_size=32, layers=None, checkpoint=str(place / "vit"))
    text = made.text | dict(max_length=24, checkpoint=str(place / "bert"))
    tiny = replace(made, vision=vision, text=text, fusion=made.fusion | dict(hidden_size=16, num_heads=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBG_HOME", str(place))
        patch.setattr(vbg_rival, "EPOCHS", 3)
        for module in (collections, suggests):
            patch.setattr(module, "encoders_here", lambda want="": Encoders(tiny, "encoders of one layer"))
        yield place


def test_a_budget_too_small_leaves_vbg_out_and_says_so(home):
    lines = []
    [compared] = collections.compare_collection(home / "old.csv", {}, lines.append, budget=0.001)
    assert any(line.startswith("VBG is left out: with it the table would take up to ") for line in lines)
    assert collections.TITLES["vbg"] not in set(compared.table.rival)


def test_vbg_stands_in_the_table_and_its_kept_weights_say_the_same(home, monkeypatch):
    monkeypatch.setattr(
        collections, "choose_rival", lambda labels, tables: ("vbg", {name: k for k, name in enumerate(tables)})
    )
    lines = []
    [compared] = collections.compare_collection(home / "old.csv", {}, lines.append, budget=1000.0)
    said = next(k for k, line in enumerate(lines) if line.startswith("VBG is among the rivals: it takes at most about"))
    assert said < lines.index("fold 1 of 5") and "VBG, fold 5 of 5" in lines
    assert compared.table.set_index("rival").verdict[collections.TITLES["vbg"]] == "chosen"
    table = suggests.suggest(collections.load_models(compared.place), home / "new.csv", say=lines.append)
    again = suggests.suggest([compared.model], home / "new.csv", say=lines.append)
    assert len(table) == NEW and table.equals(again)
    assert all(said.startswith(f"machine: {collections.TITLES['vbg']}") for said in table.made_by)
    held = pd.read_csv(compared.place / "out_of_fold.csv")
    assert len(held) == OLD and held.probability.between(0.5, 1).all()
    told = json.loads((compared.place / "model/model.json").read_text("utf-8"))
    assert told["rival"] == "vbg" and {*told["calibration"]} == {"image", "vbg"}
    hidden, *_ = links.hide([compared.model], suggests.encoders_here(), compared.data.take([0]))
    assert hidden.maps.shape == hidden.link.shape == (len(hidden.words), links.GRID**2)
    assert hidden.maps.min() >= 0 < hidden.maps.max() and 0 < hidden.common <= 1
    seen = suggests.suggest([compared.model], home / "old.csv", say=lines.append).set_index("id")
    assert hidden.whole.max() == pytest.approx(seen.probability[str(compared.data.ids[0])], abs=1e-3)
    moved = [len(np.unique(p.round(7), axis=0)) for p in (hidden.no_word, hidden.no_region)]
    assert min(moved) > 1 and hidden.link.max() > 0
