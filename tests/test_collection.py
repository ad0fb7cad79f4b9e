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
from vbg.data.splits import assign_splits, keep_splits
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


def test_a_published_split_is_kept_and_an_unknown_one_names_its_row(tmp_path):
    parts = ["train"] * 4 + ["Training", "dev", "VALID", "val"] + ["test"] * 4
    table = write(tmp_path, change=[(i, "place", part) for i, part in enumerate(parts)])
    made = keep_splits(read_collection(table, split="place", **CHOICE)).table
    assert made.split.tolist() == ["train"] * 5 + ["validation"] * 3 + ["test"] * 4
    assert "place" not in made.attributes[0], "it is no attribute"
    table = write(tmp_path, change=[(i, "place", part) for i, part in enumerate(parts[:-1])])
    with pytest.raises(
        DataError, match="objects.csv, row 13: split in column 'place' is unknown: id 'n11'.*write one of train"
    ):
        read_collection(table, split="place", **CHOICE)
    assert len(read_collection(table, split="place", lenient=True, **CHOICE)) == 11
    with pytest.raises(DataError, match="would put the label, the group or the split into the text"):
        read_collection(table, split="place", text=["title", "place"], **CHOICE)


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


# ---- every file of a folder is read, listed or refused


def photo(path, seed=0, kind=None):
    "A small photograph of seeded noise; its folders are made."
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8))
    image.save(path, kind or "JPEG")
    return path


def museum(folder, classes=("bowl", "coin"), n=3, name="old clay {}.jpg"):
    "A folder of n photographs a class."
    for c, label in enumerate(classes):
        for i in range(n):
            photo(folder / label / name.format(i), 10 * c + i)
    return folder


def left_out(examples):
    "File and reason of each file that is listed as left out."
    return dict(zip(examples.skipped.id, examples.skipped.reason))


@pytest.mark.parametrize("name", ["a.jfif", "b.JPE", "c.jp2", "d.Tif", "noending", "photo.2024", "e.photo"])
def test_an_image_of_any_name_is_read(tmp_path, name):
    museum(tmp_path)
    photo(tmp_path / "bowl" / name, kind={".jp2": "JPEG2000", ".Tif": "TIFF"}.get(os.path.splitext(name)[1]))
    assert f"bowl/{name}" in read_folder(tmp_path).table.id.tolist()


@pytest.mark.parametrize(
    "name,content,kind",
    [
        ("a.svg", b"<svg/>", "SVG"),
        ("a.jxl", b"\xff\x0a", "JPEG XL"),
        ("a.CR2", b"II*\0\x10\0\0\0CR\2\0", "raw file"),
        ("a.nef", b"MM\0*", "raw file"),
        ("a", b"\0\0\0\x18ftypcrx ", "raw file"),
    ],
)
def test_a_photograph_that_cannot_be_read_is_refused_or_listed(tmp_path, name, content, kind):
    (museum(tmp_path) / "bowl" / name).write_bytes(content)
    with pytest.raises(DataError, match=f"bowl/{name}: file is .*{kind}.* Remedy: convert it"):
        read_folder(tmp_path)
    kept = read_folder(tmp_path, lenient=True)
    assert len(kept) == 6 and kind in left_out(kept)[f"bowl/{name}"]


def test_a_heic_is_an_item_and_a_broken_one_is_named_when_decoded(tmp_path):
    (museum(tmp_path, n=6) / "bowl" / "IMG_1 seen.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    made = read_folder(tmp_path)
    assert len(made) == 13
    with pytest.raises(DataError, match="IMG_1 seen.HEIC: file is HEIC.*convert it to JPEG"):
        build_dataset(assign_splits(made), 16, tmp_path / "cache")


def test_a_raw_file_beside_its_jpeg_is_listed(tmp_path):
    (museum(tmp_path) / "bowl" / "old clay 0.nef").write_bytes(b"II*\0")
    made = read_folder(tmp_path)
    assert len(made) == 6 and "beside it" in left_out(made)["bowl/old clay 0.nef"]


@pytest.mark.parametrize("name", ["a.mov", "a.pdf", "a.xmp", "a.mpg", "a.h5", "README", "a.docx", "data.json"])
def test_what_is_no_photograph_is_listed(tmp_path, name):
    (museum(tmp_path) / "bowl" / name).write_bytes(b"%PDF-1.7" if name == "a.pdf" else b"some words")
    made = read_folder(tmp_path)
    assert len(made) == 6 and "no photograph" in left_out(made)[f"bowl/{name}"]


def test_hidden_photographs_are_listed_and_clutter_of_systems_is_not(tmp_path):
    museum(tmp_path)
    photo(tmp_path / "bowl" / ".hidden.jpg")
    for name in ("bowl/._old clay 0.jpg", "bowl/Thumbs.db", "bowl/desktop.ini", ".DS_Store"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    photo(tmp_path / "__MACOSX" / "bowl" / "x.jpg"), photo(tmp_path / "bowl" / "@eaDir" / "x.jpg")
    made = read_folder(tmp_path)
    assert len(made) == 6 and left_out(made) == {"bowl/.hidden.jpg": "hidden"}


def test_a_class_that_begins_with_underscores_is_a_class(tmp_path):
    assert set(read_folder(museum(tmp_path, ("__new", "coin"))).table.label) == {"__new", "coin"}


def test_an_empty_folder_is_listed(tmp_path):
    (museum(tmp_path) / "lamp").mkdir()
    assert left_out(read_folder(tmp_path)) == {"lamp": "folder is empty"}


def test_a_folder_without_images_says_what_is_there(tmp_path):
    (tmp_path / "bowl").mkdir()
    (tmp_path / "bowl" / "a.mov").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no image was found \(1 files: no photograph \(\.mov\)\)"):
        read_folder(tmp_path)


# ---- links


def test_a_class_folder_may_be_a_link(tmp_path):
    museum(tmp_path / "far", ("lamp",))
    (museum(tmp_path / "museum") / "lamp").symlink_to(tmp_path / "far" / "lamp")
    made = read_folder(tmp_path / "museum")
    assert made.table.label.value_counts().to_dict() == dict(bowl=3, coin=3, lamp=3)


def test_a_photograph_may_be_a_link(tmp_path):
    (museum(tmp_path / "museum") / "bowl" / "a.jpg").symlink_to(photo(tmp_path / "far" / "x.jpg"))
    assert len(read_folder(tmp_path / "museum")) == 7


@pytest.mark.parametrize("target,problem", [("none", "leads nowhere"), (".", "leads to a folder above")])
def test_a_link_that_cannot_be_followed_is_named(tmp_path, target, problem):
    (museum(tmp_path) / "lamp").symlink_to(tmp_path / target)
    with pytest.raises(DataError, match=f"lamp: link {problem}"):
        read_folder(tmp_path)
    kept = read_folder(tmp_path, lenient=True)
    assert len(kept) == 6 and problem in left_out(kept)["lamp"]


def test_a_changed_photograph_behind_a_link_is_seen(tmp_path):
    from vbg.train.rules import listing

    far = museum(tmp_path / "far", ("lamp",))
    (museum(tmp_path / "museum") / "lamp").symlink_to(far / "lamp")
    before = listing.__wrapped__(tmp_path / "museum")
    photo(far / "lamp" / "new.jpg")
    assert listing.__wrapped__(tmp_path / "museum") != before


# ---- splits as folders


@pytest.mark.parametrize("splits", [("train", "val", "test"), ("Training", "Validation"), ("train",)])
def test_folders_of_splits_are_no_classes(tmp_path, splits):
    for k, split in enumerate(splits):
        museum(tmp_path / split, ("cat", "dog"), name=f"grey {k} {{}}.jpg")
    with pytest.warns(UserWarning, match="are splits, not classes.*split anew"):
        made = read_folder(tmp_path)
    assert set(made.table.label) == {"cat", "dog"} and len(made) == 6 * len(splits)
    assert set(made.table.group) == {""}


def test_splits_inside_the_classes_are_no_groups(tmp_path):
    for label in ("cat", "dog"):
        museum(tmp_path / label, ("train", "test"))
    with pytest.warns(UserWarning, match="test, train are splits"):
        made = read_folder(tmp_path)
    assert set(made.table.label) == {"cat", "dog"} and set(made.table.group) == {""}


def test_an_object_in_two_splits_stays_one_group(tmp_path):
    for split in ("train", "test"):
        museum(tmp_path / split / "cat", ("one",)), museum(tmp_path / split / "dog", ("two",))
    with pytest.warns(UserWarning, match="splits"):
        assert set(read_folder(tmp_path).table.group) == {"cat/one", "dog/two"}


def test_splits_without_classes_are_refused(tmp_path):
    with pytest.raises(DataError, match="test, train are splits, not classes.*one folder a class"):
        read_folder(museum(tmp_path, ("train", "test")))


def test_a_test_split_without_classes_is_named(tmp_path):
    museum(tmp_path / "train", ("cat", "dog")), museum(tmp_path, ("test",))
    with pytest.warns(UserWarning), pytest.raises(DataError, match="label is empty.*test.*folder of its class"):
        read_folder(tmp_path)


def test_a_train_among_other_vehicles_is_a_class(tmp_path):
    assert set(read_folder(museum(tmp_path, ("train", "bus"))).table.label) == {"train", "bus"}


def test_a_folder_around_the_classes_is_named(tmp_path):
    museum(tmp_path / "photos")
    with pytest.raises(DataError, match="all images lie below one folder, 'photos'.*give the folder photos"):
        read_folder(tmp_path)


# ---- texts beside the images


@pytest.mark.parametrize("text", ["IMG 0.TXT", "IMG 0.Txt", "img 0.txt", "IMG 0.JPG.txt", "IMG 0.jpg.TXT", "IMG 0.txt"])
def test_a_text_is_found_in_every_spelling(tmp_path, text):
    museum(tmp_path, name="IMG {}.JPG")
    for label in ("bowl", "coin"):
        for i in range(3):
            (tmp_path / label / text.replace("0", str(i))).write_text(f"glazed {i}")
    assert read_folder(tmp_path).table.text.tolist() == ["glazed 0", "glazed 1", "glazed 2"] * 2


def test_two_texts_that_differ_in_case_go_to_their_images(tmp_path):
    museum(tmp_path, name="a{}.jpg")
    for i in range(3):
        (tmp_path / "coin" / f"a{i}.txt").write_text("coin")
        (tmp_path / "bowl" / f"a{i}.txt").write_text("small")
    photo(tmp_path / "bowl" / "A0.JPG")
    (tmp_path / "bowl" / "A0.TXT").write_text("large")
    said = read_folder(tmp_path).table.set_index("id").text
    assert said["bowl/A0.JPG"] == "large" and said["bowl/a0.jpg"] == "small"


def test_a_text_without_a_photograph_is_listed(tmp_path):
    (museum(tmp_path) / "bowl" / "README.txt").write_text("bowls of 1900")
    made = read_folder(tmp_path)
    assert left_out(made) == {"bowl/README.txt": "text without a photograph"} and made.table.text[0] == "old clay"


def test_names_of_classes_in_two_forms_are_one_class(tmp_path):
    names = [unicodedata.normalize(form, "Dé") for form in ("NFC", "NFD")]
    made = read_folder(museum(tmp_path, (*names, "青花瓷", "मूर्ति")))
    assert sorted(set(made.table.label)) == sorted(["Dé", "青花瓷", "मूर्ति"])


def test_vowel_signs_are_no_separators():
    assert words_of_name("मूर्ति_012", "x") == "मूर्ति" and words_of_name("น้ำ-ชา2", "x") == "น้ำ ชา"


# ---- paths in a table


@pytest.mark.parametrize("said", ["photos/3.PNG", "Photos/3.png", r"PHOTOS\3.png"])
def test_a_path_of_other_case_is_found(tmp_path, said):
    table = write(tmp_path, change=[(3, "image", said)])
    assert read_collection(table, **CHOICE).table.image[3] == str(tmp_path / "photos/3.png")


def test_a_path_that_fits_two_files_is_absent(tmp_path):
    table = write(tmp_path, change=[(3, "image", "photos/X.PNG")])
    photo(tmp_path / "photos/x.png"), photo(tmp_path / "photos/x.Png")
    with pytest.raises(DataError, match="row 5: image file is absent"):
        read_collection(table, **CHOICE)


def test_a_link_that_became_a_text_file_is_named(tmp_path):
    museum(tmp_path / "far", ("lamp",))
    (museum(tmp_path / "museum") / "lamp").write_text("../far/lamp")
    with pytest.raises(DataError, match="lamp: link was copied as a text file. Remedy: make the link again"):
        read_folder(tmp_path / "museum")
