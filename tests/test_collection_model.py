"""A collection from folder to suggestions by the command line: what is guessed, kept, said and refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import draw_museum
from PIL import Image

from vbg.core.files import DataError
from vbg.data.guess import guess_columns
from vbg.reports import command
from vbg.stats.calibration import prediction_sets, set_limits

OLD, NEW = 60, 30


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "A folder with a rendered museum of two classes: 60 objects with labels, 30 without, and a kept model."
    place = tmp_path_factory.mktemp("museum")
    drawn = draw_museum(place, OLD + NEW)
    drawn["image"] = ["met/images/" + Path(p).name for p in drawn.image]
    table = drawn[["id", "image", "text", "label"]]
    table.columns = ["Object number", "Photo", "Title", "Category"]
    table[:OLD].to_csv(place / "old.csv", index=False)
    table[OLD:].drop(columns="Category").to_csv(place / "new.csv", index=False)
    table[OLD:].to_csv(place / "truth.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBG_HOME", str(place))
        assert command.main(["collection", str(place / "old.csv"), "--encoders", "drawings"]) == 0
        yield place


@pytest.fixture(scope="module")
def model(home):
    return next((home / "runs").glob("collection-*"))


def predicted(home, model, source, *words):
    "The table that `vbg predict` writes."
    out = home / "out" / "objects.csv"
    assert command.main(["predict", str(model), str(source), "--out", str(out), *words]) == 0
    assert [p.name for p in out.parent.iterdir()] == ["objects.csv"]  # no half-written rest
    return pd.read_csv(out, dtype=str, keep_default_na=False, encoding="utf-8-sig")


def test_what_is_kept_holds_no_pickle_and_no_path_of_the_user(home, model):
    files = {p.relative_to(model).as_posix() for p in model.rglob("*") if p.is_file()}
    beside = {"rivals.csv", "rivals.md", "out_of_fold.csv", "doubtful_labels.csv", "doubtful_labels.html"}
    assert files == beside | {"model/model.json", "model/model.safetensors"}
    assert str(home) not in (model / "model/model.json").read_text("utf-8")
    told = json.loads((model / "model/model.json").read_text("utf-8"))
    assert told["objects"] == OLD and told["classes"] == ["painting", "textile"]


def test_the_table_of_rivals_is_that_of_the_unseen_predictions(model):
    unseen, rivals = pd.read_csv(model / "out_of_fold.csv"), pd.read_csv(model / "rivals.csv")
    chosen = rivals[rivals.verdict == "chosen"]
    assert len(chosen) == 1 and len(unseen) == OLD
    assert chosen["accuracy, %: mean"].item() == pytest.approx(100 * (unseen.label == unseen.suggestion).mean())
    assert rivals["log loss, nats"].astype(float).is_monotonic_increasing


def test_doubtful_labels_are_those_that_unseen_predictions_contradict(model):
    unseen, doubts = pd.read_csv(model / "out_of_fold.csv"), pd.read_csv(model / "doubtful_labels.csv")
    wrong = unseen[unseen.label != unseen.suggestion]
    assert {*doubts.id} == {*wrong.id} and (doubts.probability_of_label.diff().dropna() >= 0).all()
    page = (model / "doubtful_labels.html").read_text("utf-8")
    assert page.count("<img ") == len(doubts) and page.count("data:image/png") >= len(doubts)


def test_new_objects_get_suggestions_marked_as_made_by_a_machine(home, model):
    table, truth = predicted(home, model, home / "new.csv"), pd.read_csv(home / "truth.csv", dtype=str)
    table = table.set_index("id").loc[truth["Object number"]]
    told = json.loads((model / "model/model.json").read_text("utf-8"))
    assert (table.suggestion.values == truth.Category.values).mean() > 0.75
    assert all("machine" in said and told["id"] in said for said in table.made_by)
    assert set(table.calibrated) == {"yes"} and set(table.coverage) == {"90%"} and set(table.problem) == {""}
    assert sorted(table["look"].astype(int)) == list(range(1, NEW + 1))
    held = [label in row.split("; ") for label, row in zip(truth.Category, table.cannot_be_ruled_out)]
    assert np.mean(held) >= 0.8  # 90 % of 30, less three standard errors and a half
    agree = (table.picture_says == table.text_says).map({True: "yes", False: "no"})
    assert (table.agree == agree).all()
    assert [p.startswith("met/images/") for p in table.image] == [True] * NEW


def test_nothing_among_new_objects_is_fatal(home, model):
    place = home / "odd"
    place.mkdir()
    for name in ("1", "2", "3"):
        shutil.copy(home / "met" / "images" / f"{name}.jpg", place)
    (place / "cut.jpg").write_bytes((place / "1.jpg").read_bytes()[:300])
    Image.new("RGB", (64, 64), "white").save(place / "blank.png")
    (place / "2.txt").write_text("A woven piece of silk", "utf-8")
    table = predicted(home, model, place).set_index("id")
    assert set(table.index) == {"1.jpg", "2.jpg", "3.jpg", "blank.png", "cut.jpg"} == {*table.image}
    assert table.problem["cut.jpg"].startswith("image cannot be read") and table.suggestion["cut.jpg"] == ""
    assert table.agree["1.jpg"] == "no text" and table.agree["2.jpg"] in ("yes", "no")
    assert table.outside["blank.png"] == "picture" and table["look"]["blank.png"] == "1"
    shutil.copy(place / "cut.jpg", place / "a.jpg")
    for name in ("1.jpg", "2.jpg", "3.jpg", "blank.png"):
        (place / name).unlink()
    assert set(predicted(home, model, place).problem.str[:20]) == {"image cannot be read"}


def test_an_image_that_is_lost_is_named_by_its_path(home, model):
    new = pd.read_csv(home / "new.csv", dtype=str).head(5)
    (home / "met" / "cut.jpg").write_bytes(b"\xff\xd8")
    new["Photo"] = [new.Photo[0], "met/none.jpg", "met/cut.jpg", "https://museum.example/1.jpg", ""]
    new.to_csv(home / "absent.csv", index=False)
    table = predicted(home, model, home / "absent.csv").set_index("id").loc[new["Object number"]]
    assert table.image.tolist() == new.Photo.tolist() and (table.problem != "").tolist() == [False] + [True] * 4
    assert table.problem.iloc[1] == "image file is absent" and table.problem.iloc[3] == "image is a web address"


def test_no_cell_of_a_table_is_computed_by_a_spreadsheet(home, model):
    new = pd.read_csv(home / "new.csv", dtype=str).head(3)
    new["Object number"] = ['=HYPERLINK("x")', "@b", "-c"]
    new.to_csv(home / "formula.csv", index=False)
    table = predicted(home, model, home / "formula.csv")
    assert {*table.id} == {'\'=HYPERLINK("x")', "'@b", "'-c"}
    assert not table.apply(lambda cells: cells.str.match(r"[=+\-@\t]")).any().any()
    assert pd.to_numeric(table.probability).between(0, 1).all()


def test_columns_that_are_called_otherwise_are_named(home, model, capsys):
    pd.read_csv(home / "new.csv", dtype=str).rename(columns=dict(Photo="Bild", Title="Titel")).to_csv(home / "de.csv")
    assert command.main(["predict", str(model), str(home / "de.csv"), "--out", str(home / "x.csv")]) == 2
    assert "column 'Photo' is absent" in capsys.readouterr().err and not (home / "x.csv").exists()
    table = predicted(home, model, home / "de.csv", "--columns", '{"image": "Bild", "text": "Titel"}')
    assert len(table) == NEW and set(table.agree) <= {"yes", "no"}


def test_a_model_of_other_encoders_is_refused(home, model, capsys, tmp_path):
    from vbg.explain.collection import load_model, save_models

    made = load_model(model)
    told = {k: v for k, v in made.told.items() if k != "id"} | dict(encoders=dict(image="other", text=None))
    save_models(tmp_path / "model", {"": (made.rivals, told)})
    assert command.main(["predict", str(tmp_path), str(home / "new.csv"), "--out", str(home / "x.csv")]) == 2
    assert "made with other encoders" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, said",
    [
        (["predict", "none", "."], "there is no model"),
        (["predict"], "which folder?"),
        (["collection", "nowhere"], "file or folder is absent"),
        (["collection"], "which folder?"),
    ],
)
def test_a_wrong_word_ends_in_one_line(words, said, capsys, monkeypatch):
    for name in ("VBG_FOLDER", "VBG_MODEL", "VBG_OUT", "VBG_COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    assert command.main(words) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


# ---- columns


def rows_of(**columns):
    "Forty rows; a value is a function of the row's number."
    return pd.DataFrame([{name: str(made(i)) for name, made in columns.items()} for i in range(40)])


@pytest.fixture
def shelf(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    return tmp_path


BASE = dict(image=lambda i: "a.jpg", title=lambda i: f"thing {i} of {('red', 'blue', 'green')[i % 3]} clay")


def test_columns_of_a_photographic_archive(shelf):
    more = dict(id=lambda i: f"x{i}", category=lambda i: "ab"[i % 2], country=lambda i: "QA" if i % 4 else "OM")
    more |= dict(
        artist=lambda i: f"A. N. Other {i}", license=lambda i: "CC BY-SA 3.0", page_url=lambda i: f"http://x/{i}"
    )
    rows_of(**BASE | more).to_csv(shelf / "objects.csv", index=False)
    path, roles, notes = guess_columns(shelf, {})
    assert roles == dict(image="image", label="category", text=["title"], id="id")
    assert "label: column 'category', guessed; others that may be meant: 'country'" in notes


def test_a_column_that_repeats_the_label_is_no_text(shelf):
    stuff = lambda i: ("Faience", "Porcelain")[i % 2]
    more = dict(class_=stuff, medium_description=lambda i: f"{stuff(i).lower()}, glazed, piece {i}")
    rows_of(**BASE | more).to_csv(shelf / "objects.csv", index=False)
    _, roles, notes = guess_columns(shelf, dict(label="class_"))
    assert roles["text"] == ["title"] and any(
        "'medium_description' holds the label's own words in 100%" in n for n in notes
    )
    named = guess_columns(shelf, dict(label="class_", text=["medium_description"]))[1]
    assert named["text"] == ["medium_description"]


def test_a_label_that_cannot_be_told_is_not_guessed(shelf):
    more = dict(period=lambda i: f"Age {i % 2}", region=lambda i: f"Land {i % 3}")
    rows_of(**BASE | more).to_csv(shelf / "objects.csv", index=False)
    with pytest.raises(DataError, match="it may be 'period', 'region'"):
        guess_columns(shelf, {})
    assert guess_columns(shelf, dict(label="region"))[1]["label"] == "region"


def test_a_folder_of_classes_needs_no_columns(tmp_path):
    (tmp_path / "bowl").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "bowl/a.jpg")
    assert guess_columns(tmp_path, {}) == (tmp_path, {}, ["label: the first sub-folder of each image"])


# ---- coverage


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_each_class_is_covered_as_stated(coverage):
    "Over 300 repeats, of a model that is too sure of itself and knows one class badly."
    rng, hits = np.random.default_rng(3), []
    for _ in range(300):
        labels = rng.integers(0, 3, 400)
        z = 2 * (rng.normal(size=(400, 3)) + np.array([3.0, 1.0, 0.3])[labels][:, None] * np.eye(3)[labels])
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        inside = prediction_sets(p[200:], set_limits(labels[:200], p[:200], coverage))[np.arange(200), labels[200:]]
        hits.append([inside[labels[200:] == c].mean() for c in range(3)])
    assert (np.mean(hits, 0) > coverage - 0.01).all() and (np.mean(hits, 0)[1:] < coverage + 0.03).all()
