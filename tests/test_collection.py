"""Whole tables and folders through `vbg.data.collection`: encodings, ragged rows, paths, leaks."""

import json
import os
import random
import unicodedata

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vbg.core.files import DataError
from vbg.data.collection import join_fields, read_collection, read_folder, read_objects, words_of_name
from vbg.data.splits import assign_splits
from vbg.data.store import build_dataset, load_examples
from vbg.data.tables import read_table

HEADER = ["id", "image", "title", "description", "category", "place"]
CHOICE = dict(label="category", id="id")


def write(folder, encoding="utf-8", separator=",", end="\n", name="objects.csv", change=()):
    "Twelve objects, one of them with everything that a field may hold; `change` is (row index, column, value)."
    rows = [
        [f"n{i}", f"photos/{i}.png", f"Title {i}", f"Description {i}", "jar" if i % 2 else "lamp", ""]
        for i in range(12)
    ]
    rows[1][2:4] = ["مصباح زيتي", 'Glass, "blue"\nsecond line']
    for i, column, value in change:
        rows[i][HEADER.index(column)] = value
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    for i in range(12):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(
            folder / f"photos/{i}.png"
        )
    text = pd.DataFrame(rows, columns=HEADER).to_csv(index=False, sep=separator, lineterminator=end)
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_one_table_in_every_dress_is_the_same_examples(tmp_path, encoding, end):
    plain, other = (
        read_objects(write(tmp_path / n, e, end=l), **CHOICE, name="x")
        for n, e, l in (("a", "utf-8", "\n"), ("b", encoding, end))
    )
    assert plain.table.drop(columns="image").equals(other.table.drop(columns="image"))
    assert plain.table.text[1] == 'مصباح زيتي. Glass, "blue" second line' and plain.table.row.tolist() == list(
        range(2, 14)
    )


def test_separators_and_encodings_may_be_named(tmp_path):
    texts = [
        read_objects(write(tmp_path / "a", separator="\t", name="o.tsv"), **CHOICE).table.text.tolist(),
        read_objects(write(tmp_path / "b", separator=";"), separator=";", **CHOICE).table.text.tolist(),
        read_objects(write(tmp_path / "c", "utf-16"), encoding="utf-16", **CHOICE).table.text.tolist(),
        read_objects(write(tmp_path / "d", "cp1256"), encoding="cp1256", **CHOICE).table.text.tolist(),
    ]
    assert all(t == texts[0] for t in texts)


def test_a_table_of_another_separator_than_the_named_one_says_so(tmp_path):
    with pytest.raises(DataError, match="columns are separated by semicolons, not by tabs"):
        read_objects(write(tmp_path, separator=";", change=[(1, "description", "x")]), separator="tab", **CHOICE)


def test_an_encoding_other_than_the_named_one_is_told_with_its_line(tmp_path):
    with pytest.raises(DataError, match=r"objects\.csv: line 3 is not UTF-8.*cp1256"):
        read_objects(write(tmp_path, "cp1256"), encoding="utf-8", **CHOICE)


FAULTS = [
    ("id", "n1", "duplicate id"),
    ("id", "", "id is empty"),
    ("image", "photos/none.png", "image file is absent"),
    ("image", "", "image cell is empty"),
    ("category", "", "label is empty"),
    ("category", "vase", "class has this item only"),
]


@pytest.mark.parametrize("column,value,problem", FAULTS)
def test_each_fault_is_named_with_file_row_and_remedy(tmp_path, column, value, problem):
    table = write(tmp_path, change=[(6, column, value)])
    with pytest.raises(DataError, match=rf"objects\.csv, row 8: {problem}.*Remedy: ") as error:
        read_collection(table, **CHOICE)
    assert error.value.row == 8
    kept = read_collection(table, lenient=True, **CHOICE)
    assert len(kept) == 11 and kept.skipped[["row", "reason"]].values.tolist() == [[8, problem]]


def test_a_row_without_text_is_a_fault(tmp_path):
    table = write(tmp_path, change=[(6, "title", " "), (6, "description", "\n")])
    with pytest.raises(DataError, match="row 8: text is empty"):
        read_collection(table, **CHOICE)


def test_ragged_rows_are_named_or_counted(tmp_path):
    table = write(tmp_path)
    lines = table.read_text(encoding="utf-8").splitlines()
    lines[5] = lines[5].replace("Title 3", "Title 3, part one")  # record 4 spreads over two lines: this is row 5
    table.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=r"objects\.csv, row 5: 7 fields where the header has 6.*quote"):
        read_collection(table, **CHOICE)
    kept = read_collection(table, lenient=True, **CHOICE)
    assert len(kept) == 11 and kept.skipped.row.tolist() == [5] and "n3" not in kept.table.id.tolist()


def test_blank_rows_are_no_items_but_count_as_rows(tmp_path):
    table = write(tmp_path)
    table.write_text(table.read_text(encoding="utf-8").replace("n5,", "\n,,,,,\nn5,") + ",,,,,\n\n", encoding="utf-8")
    rows = read_collection(table, **CHOICE).table
    assert len(rows) == 12 and rows.set_index("id").row["n4"] == 6 and rows.set_index("id").row["n5"] == 9


@pytest.mark.parametrize(
    "content,problem",
    [
        ("", "file is empty"),
        ("version https://git-lfs.github.com/spec/v1\n", "LFS pointer"),
        ("id,image,title,description,category\n", "no example is left"),
        (None, "absent"),
        ('id,image\n1,"x\n2,y\n', "close the quote"),
    ],
)
def test_tables_that_hold_nothing(tmp_path, content, problem):
    if content is not None:
        (tmp_path / "objects.csv").write_text(content)
    with pytest.raises(DataError, match=problem):
        read_collection(tmp_path / "objects.csv", **CHOICE)


@pytest.mark.parametrize(
    "change,problem",
    [
        (dict(text=["title", "category"]), "'category' would put the label"),
        (dict(text=[]), "no text field"),
        (dict(label="Category"), "did you mean 'category'"),
        (dict(group="owner"), "column 'owner' is absent"),
        (dict(text=["title", "place"], group="place"), "'place' would put"),
        (dict(id="number"), "column 'number' is absent"),
    ],
)
def test_choices_that_cannot_be(tmp_path, change, problem):
    with pytest.raises(DataError, match=problem):
        read_collection(write(tmp_path), **CHOICE | change)


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = write(tmp_path)
    table.write_text(table.read_text(encoding="utf-8").replace("place", "title", 1), encoding="utf-8")
    with pytest.raises(DataError, match="row 1: column 'title' stands 2 times"):
        read_collection(table, **CHOICE)


def test_what_is_not_used_becomes_attributes(tmp_path):
    made = read_collection(write(tmp_path, change=[(0, "place", "بغداد")]), text="title", **CHOICE).table
    assert (
        json.loads(made.attributes[0]) == {"description": "Description 0", "place": "بغداد"}
        and made.text[0] == "Title 0"
    )


def test_paths_of_windows_and_of_macos(tmp_path):
    table = write(
        tmp_path, change=[(0, "image", r"photos\0.png"), (2, "image", unicodedata.normalize("NFC", "photos/Café.png"))]
    )
    os.rename(tmp_path / "photos/2.png", tmp_path / unicodedata.normalize("NFD", "photos/Café.png"))
    assert len(read_collection(table, **CHOICE)) == 12


def test_order_of_rows_changes_nothing_but_row_numbers(tmp_path):
    table = write(tmp_path)
    first = assign_splits(read_collection(table, **CHOICE, name="x")).table.set_index("id").split
    header, *rows = pd.read_csv(table, header=None, dtype=str, keep_default_na=False).values.tolist()
    random.Random(0).shuffle(rows)
    pd.DataFrame(rows, columns=header).to_csv(table, index=False)
    second = assign_splits(read_collection(table, **CHOICE, name="x")).table.set_index("id").split
    assert first.sort_index().equals(second.sort_index())


def test_groups_stay_together(tmp_path):
    table = write(tmp_path, change=[(i, "place", f"g{i // 4}") for i in range(8)])
    made = assign_splits(read_collection(table, group="place", **CHOICE)).table
    assert made[made.group != ""].groupby("group").split.nunique().tolist() == [1, 1]


def test_a_folder_gives_its_table_or_its_subfolders(tmp_path):
    write(tmp_path)
    assert read_collection(tmp_path, **CHOICE).name == tmp_path.name
    os.remove(tmp_path / "objects.csv")
    with pytest.raises(DataError, match="absent|no image|text is empty"):
        read_collection(tmp_path)
    with pytest.raises(DataError, match="file or folder is absent"):
        read_collection(tmp_path / "none")


def shelf(folder):
    "Two classes of six images; hidden files of two operating systems."
    for i in range(12):
        path = folder / ("lamps", "jars")[i % 2] / f"{('old', 'new')[i % 3 == 0]}_lamp-{i}.PNG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    (folder / "jars/._old_lamp-1.png").write_bytes(b"\0")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX/x.png").write_bytes(b"\0")
    (folder / "jars/Thumbs.db").write_bytes(b"\0")
    return folder


def test_a_folder_of_images(tmp_path):
    made = read_folder(shelf(tmp_path)).table
    assert len(made) == 12 and made.label.value_counts().to_dict() == dict(lamps=6, jars=6)
    assert set(made[made.label == "lamps"].text) == {"old", "new"} and set(made[made.label == "jars"].text) == {
        "old lamp",
        "new lamp",
    }
    data = load_examples(build_dataset(assign_splits(read_folder(tmp_path)), 16, tmp_path / "cache"))
    assert data.pixels.shape == (12, 16, 16, 3) and sorted(data.ids) == made.id.tolist()


def test_sidecar_texts_are_all_or_an_error(tmp_path):
    folder = shelf(tmp_path)
    images = sorted(p for p in folder.glob("*/*.PNG"))
    for p in images[:-1]:
        p.with_suffix(".txt").write_text(f"\ufeffشرح {p.stem}\n", encoding="utf-8")
    with pytest.raises(DataError, match=f"text is empty: id '{images[-1].parent.name}/{images[-1].name}'"):
        read_folder(folder)
    kept = read_folder(folder, lenient=True)
    assert len(kept) == 11 and kept.table.text[0] == f"شرح {images[0].stem}"
    images[-1].with_suffix(".txt").write_bytes("Café".encode("cp1252"))
    with pytest.raises(DataError, match=r"\.txt: line 1 is not UTF-8"):
        read_folder(folder)


def test_an_image_outside_every_class_is_named(tmp_path):
    folder = shelf(tmp_path)
    os.rename(folder / "jars/old_lamp-1.PNG", folder / "stray.PNG")
    with pytest.raises(DataError, match="label is empty: id 'stray.PNG'"):
        read_folder(folder)


def test_join_fields_repeats_nothing():
    assert join_fields(["Head.", "Head", "head of a man"]) == "Head. head of a man"
    assert join_fields(["", " "]) == "" and join_fields(["Which? ", "This"]) == "Which? This"


def test_words_of_name_hide_the_label():
    assert words_of_name("IMG_2041_oil-lamp", "oil lamps") == "IMG" and words_of_name("Jar 3 (blue)", "Jar") == "blue"


def test_read_table_keeps_every_field_as_text(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n007,NA\n1e5,\n")
    assert read_table(tmp_path / "t.csv")[0].values.tolist() == [["007", "NA"], ["1e5", ""]]
