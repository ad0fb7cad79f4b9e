"""Photographs of one object become one decision; several labels with gaps become a model each, in one folder."""

import pandas as pd
import pytest
from conftest import draw_museum
from PIL import Image, ImageOps

from vbg.explain.collection import find_collection
from vbg.reports import command

OLD, NEW, GAPS = 30, 6, 10


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "Objects in two photographs, one mirrored: 30 with a category, 20 of them with a place, and 6 without either."
    place = tmp_path_factory.mktemp("museum")
    drawn = draw_museum(place, OLD + NEW)
    (place / "photos").mkdir()
    rows = []
    for n, row in enumerate(drawn.itertuples()):
        picture = Image.open(row.image)
        for side, made in dict(front=picture, back=ImageOps.mirror(picture)).items():
            made.save(place / "photos" / f"{n}-{side}.png")
            where = ("Doha", "Basra")[n % 2] if GAPS <= n < OLD else ""
            one = {"Object number": f"A.{n}", "Photo": f"photos/{n}-{side}.png", "Title": row.text}
            rows.append(one | {"Category": row.label, "Place": where})
    table = pd.DataFrame(rows)
    table[: 2 * OLD].to_csv(place / "old.csv", index=False)
    new = table[2 * OLD :].drop(columns=["Category", "Place"])
    new.to_csv(place / "new.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBG_HOME", str(place))
        words = ["--encoders", "drawings", "--columns", '{"label": ["Category", "Place"], "text": "Title"}']
        assert command.main(["collection", str(place / "old.csv"), *words]) == 0
        yield place


@pytest.fixture(scope="module")
def kept(home):
    return next((home / "runs").glob("collection-*"))


def predicted(home, model, source, *words):
    assert command.main(["predict", str(model), str(source), "--out", str(home / "x.csv"), *words]) == 0
    return pd.read_csv(home / "x.csv", dtype=str, keep_default_na=False)


def test_the_column_of_objects_is_guessed_and_can_be_undone(home):
    found = find_collection(home / "old.csv", dict(label="Category"))
    assert any(f"'Object number', guessed: {2 * OLD} rows show {OLD} objects" in line for line in found.lines)
    assert (len(found.photos), len(found.fields[0].objects)) == (2 * OLD, OLD)
    alone = find_collection(home / "old.csv", dict(label="Category", object=""))
    assert len(alone.fields[0].objects) == 2 * OLD


def test_each_label_is_compared_on_the_objects_that_have_it(kept):
    files = {p.relative_to(kept).as_posix() for p in kept.rglob("*") if p.is_file()}
    kinds = ("rivals-{}.csv", "rivals-{}.md", "out_of_fold-{}.csv", "doubtful_labels-{}.csv", "doubtful_labels-{}.html")
    kinds += ("model/{}/model.json", "model/{}/model.safetensors")
    assert files == {kind.format(field) for kind in kinds for field in ("category", "place")}
    for field, count in dict(category=OLD, place=OLD - GAPS).items():
        unseen = pd.read_csv(kept / f"out_of_fold-{field}.csv")
        assert len(unseen) == count and unseen.id.is_unique and set(unseen.id.str[:2]) == {"A."}
    assert {*unseen.label} == {"Doha", "Basra"} and {*unseen.id} == {f"A.{n}" for n in range(GAPS, OLD)}


def test_predictions_have_a_row_an_object_and_a_block_a_label(home, kept):
    table = predicted(home, kept, home / "new.csv").set_index("id")
    assert [*table.index] == [f"A.{n}" for n in range(OLD, OLD + NEW)] and set(table.problem) == {""}
    assert table.image["A.31"] == "photos/31-back.png; photos/31-front.png"
    assert set(table["Place: suggestion"]) <= {"Doha", "Basra"}
    assert not {*table["Category: suggestion"]} & {"Doha", "Basra"}
    apart = predicted(home, kept, home / "new.csv", "--columns", '{"object": ""}').set_index("image")
    assert len(apart) == 2 * NEW
    one = predicted(home, kept / "model" / "place", home / "new.csv").set_index("id")
    assert (one.suggestion == table["Place: suggestion"]).all()


def test_a_lost_photograph_is_told_beside_the_others_of_its_object(home, kept):
    new = pd.read_csv(home / "new.csv", dtype=str)
    new.loc[0, "Photo"] = "photos/none.png"
    new.loc[[2, 3], "Photo"] = "gone.png"
    new.to_csv(home / "lost.csv", index=False)
    table = predicted(home, kept, home / "lost.csv").set_index("id")
    assert len(table) == NEW and table.problem["A.30"] == "left out, image file is absent: photos/none.png"
    assert table["Category: suggestion"]["A.30"] != "" and table["Category: suggestion"]["A.31"] == ""
    assert table.problem["A.31"] == "image file is absent" and (table.problem[2:5] == "").all()


def test_folders_of_photographs_are_objects_where_that_is_asked(home, kept):
    place = home / "boxes"
    for n in (30, 31):
        (place / f"box {n}").mkdir(parents=True)
        for side in ("front", "back"):
            (place / f"box {n}" / f"{side}.png").write_bytes((home / "photos" / f"{n}-{side}.png").read_bytes())
    assert len(predicted(home, kept, place)) == 4
    table = predicted(home, kept, place, "--columns", '{"object": "folder"}')
    assert [*table.id] == ["box 30", "box 31"] and table.image[0] == "box 30/back.png; box 30/front.png"
