"What the notebook data/07_met does not show: bad files, odd folders, invariances, and the whole museum at once."

import csv
import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from vbg.core.files import DataError
from vbg.data.met import (
    COARSE,
    FINE,
    LABEL_COLUMNS,
    MET_COLUMNS,
    TEXT_FIELDS,
    column_key,
    compose_text,
    label_objects,
    label_rules,
    read_met,
)

KINDS = [
    ("Ceramics-Porcelain", "Vase", "Flowers"),
    ("Sculpture-Bronze", "Bust", "Men"),
    ("Prints|Ephemera", "Print", "Horses"),
    ("", "Side Chair", ""),
]


def objects(n=8):
    "Rows in the museum's columns; ids start at 100, so object `100 + i` stands in spreadsheet row `2 + i`."
    return [
        {
            "Object ID": str(100 + i),
            "Classification": c,
            "Object Name": name,
            "Tags": tags,
            "Title": f"Work {i}, large\nand late",
            "Medium": 'Wood, "gilt"',
            "Culture": "French",
            "Object Date": f"{1700 + i}",
        }
        for i, (c, name, tags) in enumerate((KINDS * n)[:n])
    ]


def write(folder, rows, pictures=True, columns=MET_COLUMNS, **how):
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with open(folder / "MetObjects.csv", "w", encoding="utf-8-sig", newline="") as f:
        table = csv.DictWriter(f, columns, restval="", extrasaction="ignore", **how)
        table.writeheader()
        table.writerows(rows)
    for row in rows if pictures else ():
        (folder / "images" / f"{row['Object ID']}.jpg").touch()
    return folder


def raw(folder, change):
    "Pass the bytes of the CSV through `change`."
    path = folder / "MetObjects.csv"
    path.write_bytes(change(path.read_bytes()))
    return folder


def test_header_is_the_museums():
    known = (
        "Object Number,Is Highlight,Is Timeline Work,Is Public Domain,Object ID,Gallery Number,Department,"
        "AccessionYear,Object Name,Title,Culture,Period,Dynasty,Reign,Portfolio,Constituent ID,Artist Role,"
        "Artist Prefix"
    )
    assert ",".join(MET_COLUMNS).startswith(known) and len(MET_COLUMNS) == 54


def test_read_keeps_order_rows_and_files(tmp_path):
    met = read_met(write(tmp_path, objects()))
    assert met.table.id.tolist() == [str(100 + i) for i in range(8)]
    assert met.table.row.tolist() == list(range(2, 10))
    assert [p.name for p in met.files] == ["MetObjects.csv"] and met.name == "met" and not len(met.skipped)
    assert (met.table.image == [str(tmp_path / "images" / f"{i}.jpg") for i in met.table.id]).all()
    assert json.loads(met.table.attributes[0]) == {"Culture": "French", "Object Date": "1700", "Medium": 'Wood, "gilt"'}


def test_no_label_column_reaches_the_text(tmp_path):
    plain = read_met(write(tmp_path / "a", objects()), text_fields=[c for c in MET_COLUMNS if c not in LABEL_COLUMNS])
    marked = [r | {c: f"qq{i}marker" for c in LABEL_COLUMNS} for i, r in enumerate(objects())]
    blind = read_met(write(tmp_path / "b", marked), text_fields=[c for c in MET_COLUMNS if c not in LABEL_COLUMNS])
    assert not (blind.table.text + blind.table.attributes).str.contains("marker").any()
    assert blind.table.text.tolist() == plain.table.text.tolist()
    assert set(label_rules().column) <= set(LABEL_COLUMNS) and not set(TEXT_FIELDS) & set(LABEL_COLUMNS)


@pytest.mark.parametrize("column", LABEL_COLUMNS + ("object_name", "TAGS", "classification"))
def test_label_column_as_text_is_refused(tmp_path, column):
    with pytest.raises(DataError, match="may not enter the text"):
        read_met(write(tmp_path, objects()), text_fields=("Title", column))


def test_nothing_else_is_removed(tmp_path):
    "A title that repeats the object's name stays as it is: only columns are refused, never words."
    rows = [r | {"Title": f"{r['Object Name']}, porcelain"} for r in objects()]
    assert read_met(write(tmp_path, rows)).table.text.str.startswith("Vase, porcelain.").tolist()[0]


def test_text_does_not_depend_on_other_rows():
    many = {"Title": ["A", "B|C", ""], "Medium": ["x.", "", "y\n z"]}
    alone = [compose_text({k: [v[i]] for k, v in many.items()}, ["Title", "Medium"]).to_pylist()[0] for i in range(3)]
    assert compose_text(many, ["Title", "Medium"]).to_pylist() == alone == ["A. x.", "B, C.", "y z."]


def test_every_label_is_in_its_set_and_row_order_does_not_matter():
    table = pd.DataFrame(
        [
            (c, n, t)
            for c in ["Codices", "", "Swords", "Installations", "Drawings|Prints"]
            for n in ["Vase", "", "Dress"]
            for t in ["Birds|Men", "", "Churches"]
        ],
        columns=["Classification", "Object Name", "Tags"],
    )
    for label_set, names in (("coarse", COARSE), ("fine", FINE)):
        labels = label_objects(table, label_set)
        assert set(labels) <= set(names)
        assert (label_objects(table[::-1].reset_index(drop=True), label_set)[::-1] == labels).all()


def test_own_rules_change_the_label(tmp_path):
    rules = pd.DataFrame(
        [("Classification", "^ceram", "pots", "Pots")], columns=["column", "pattern", "fine", "coarse"]
    )
    assert read_met(write(tmp_path, objects()), rules=rules).table.label.tolist()[:2] == ["Pots", "Other"]
    with pytest.raises(ValueError, match="Department"):
        read_met(tmp_path, rules=rules.assign(column="Department"))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda b: b"version https://git-lfs.github.com/spec/v1\noid sha256:05a1\nsize 317038305\n", "Git LFS pointer"),
        (lambda b: b"<!DOCTYPE html><html>", "web page"),
        (lambda b: b"", "empty"),
        (lambda b: b.decode("utf-8-sig").encode("utf-16"), "UTF-16, not UTF-8.*CSV UTF-8"),
        (lambda b: b.replace(b"Object ID", b"Object Key", 1), "'Object ID' is absent"),
        (lambda b: b.replace(b",Classification,", b",Class,", 1), "row 1: column 'Classification' is absent"),
        (lambda b: b.replace(b",Medium,", b",Stuff,", 1), "row 1: column 'Medium' is absent.*text_fields"),
        (lambda b: b.replace(b"Work 3", "Würk 3".encode("latin-1")), "row 5: .*UTF8.*CSV UTF-8"),
        (lambda b: b.replace(b"Title,", "Títle,".encode("latin-1"), 1), "row 1: column names are not UTF-8"),
        (lambda b: b.replace(b'"Work 6', b"Work 6", 1), "row 8: [0-9]+ cells"),
        (lambda b: b.replace(b'Work 6, large\nand late"', b"Work 6, large\nand late", 1), "row 8: "),
        (lambda b: b.rstrip() + b'"swallowed\nto the end', "row 9: .*a quotation mark is not closed"),
        (
            lambda b: b.replace(b"French,,", b"French,,,", 2).replace(b"French,,,", b"French,,", 1),
            "row 3: 55 cells where the header has 54",
        ),
        (lambda b: b.replace(b",104,", b",x,", 1), "row 6: Object ID is not a number: id 'x'"),
        (lambda b: b.replace(b",104,", b",,", 1), "row 6: Object ID is not a number"),
        (lambda b: b.replace(b",104,", b",101,", 1), "row 6: duplicate id: id '101'"),
    ],
)
def test_bad_file(tmp_path, change, message):
    with pytest.raises(DataError, match=f"(?s)MetObjects.csv.*{message}"):
        read_met(raw(write(tmp_path, objects()), change))


def test_bad_folder(tmp_path):
    with pytest.raises(DataError, match="MetObjects.csv: file is absent.*download"):
        read_met(tmp_path)
    folder = write(tmp_path, objects())
    with pytest.raises(DataError, match="image folder is absent"):
        read_met(folder, images="pictures")
    with pytest.raises(DataError, match="did you mean 'Dimensions'"):
        read_met(folder, text_fields=["Dimension"])
    for wrong in (dict(label_set="rough"), dict(missing_image="ignore")):
        with pytest.raises(ValueError):
            read_met(folder, **wrong)


def test_bad_rows_are_errors_or_counted_skips(tmp_path):
    rows = objects(16)
    rows[1] |= {c: "" for c in TEXT_FIELDS}  # row 3: no text
    rows[5]["Object ID"] = "104"  # row 7: id of row 6
    folder = write(tmp_path, rows)
    (folder / "images" / "103.jpg").unlink()  # row 5: no image
    raw(
        folder, lambda b: b.replace(b",110,", b",110,,", 1) + b"\r\n"
    )  # row 12: too many cells; a blank line at the end
    with pytest.raises(DataError, match="row 12: 55 cells"):
        read_met(folder)
    met = read_met(folder, lenient=True)
    assert dict(zip(met.skipped.row.astype(int), met.skipped.reason)) == {
        12: "55 cells where the header has 54",
        18: "blank line",
        5: "no image file for this object",
        7: "duplicate id",
        3: "text is empty",
    }
    assert met.table.row.tolist() == [2, 4, 6, 8, 9, 10, 11, 13, 14, 15, 16, 17]  # the others keep their numbers
    assert set(met.skipped.file) == {str(folder / "MetObjects.csv")}


def test_missing_image(tmp_path):
    folder = write(tmp_path, objects(12))
    (folder / "images" / "103.jpg").rename(folder / "images" / "103.txt")
    (folder / "images" / "104.jpg").rename(folder / "images" / "104.PNG")
    with pytest.raises(DataError, match="row 5: no image file for this object: id '103'.*missing_image='skip'"):
        read_met(folder)
    met = read_met(folder, missing_image="skip")
    assert (met.skipped.row.tolist(), met.skipped.id.tolist(), len(met)) == ([5], ["103"], 11)
    assert met.table.image[3].endswith("104.PNG")
    with pytest.raises(DataError, match="row 5"):
        read_met(folder, lenient=True, missing_image="error")


def test_snake_case_columns(tmp_path):
    published = read_met(write(tmp_path, objects()))
    table = pd.read_csv(tmp_path / "MetObjects.csv", dtype=str, encoding="utf-8-sig")
    table.columns = [c.lower().replace(" ", "_") for c in table]
    (tmp_path / "MetObjects.csv").unlink()
    table.to_csv(tmp_path / "objects.csv", index=False)
    pd.testing.assert_frame_equal(read_met(tmp_path).table, published.table)
    assert len({column_key(c) for c in MET_COLUMNS}) == 54


def test_instance_recognition_layout(tmp_path):
    folder = write(tmp_path, objects(), pictures=False)
    shots = [{"path": f"MET/{i}/{k}.jpg", "id": i} for i in range(100, 108) for k in (0, 1)]
    queries = [
        {"path": "test_met/a.jpg", "MET_id": 101},
        {"path": "test_met/b.jpg", "MET_id": 105},
        {"path": "test_other/c.jpg"},
    ]
    (folder / "ground_truth").mkdir()
    for entry in shots + queries:
        (folder / "images" / entry["path"]).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / entry["path"]).touch()
    (folder / "ground_truth" / "MET_database.json").write_text(json.dumps(shots))
    (folder / "ground_truth" / "testset.json").write_text(json.dumps(queries))
    met = read_met(folder, database=["MET_database.json", "testset.json"], label_set="fine")
    assert len(met) == 18 and met.table.id.is_unique and met.table.id[0] == "MET/100/0"
    assert met.table.groupby("group").text.nunique().eq(1).all()
    assert met.skipped[["id", "reason"]].values.tolist() == [["test_other/c.jpg", "not an object of the Met"]]
    assert met.table.set_index("id").label["test_met/a"] == "sculpture"
    (folder / "ground_truth" / "testset.json").write_text('[{"path": "test_met/a.jpg", "MET_id": 999}]')
    with pytest.raises(DataError, match="testset.json: entry 1: the CSV has no Object ID 999"):
        read_met(folder, database="testset.json")
    for text, message in [
        ("[{", "not JSON"),
        ('[{"id": 1}]', "entry 1 has no 'path'"),
        ("version https://git-lfs.github.com/spec/v1", "LFS"),
    ]:
        (folder / "ground_truth" / "testset.json").write_text(text)
        with pytest.raises(DataError, match=f"testset.json.*{message}"):
            read_met(folder, database="testset.json")


def test_record_across_blocks_keeps_its_row_number(tmp_path):
    "Rows are counted over parser blocks as well, embedded line breaks included."
    from vbg.data.met import met_header
    from vbg.data.tables import read_columns

    folder = write(tmp_path, [r | {"Title": f"Work {i}\nline\nline"} for i, r in enumerate(objects(400))])
    raw(folder, lambda b: b.replace(b",377,", b",377,,", 1))
    path = folder / "MetObjects.csv"
    table, lost = read_columns(path, {c: met_header(path)[c] for c in ("Object ID", "Title")}, lenient=True, block=2000)
    assert lost == [(279, "55 cells where the header has 54")]
    ids, rows = table["Object ID"].to_pylist(), table["row"].to_pylist()
    assert all(int(i) - 98 == r for i, r in zip(ids, rows)) and len(ids) == 399


MEASURE = """
import resource, sys, time
from vbg.data.met import read_met
wall, work = time.perf_counter(), time.process_time()
met = read_met(sys.argv[1], label_set=sys.argv[2])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == 'darwin' else 1024) / 2**10
print(len(met), time.perf_counter() - wall, time.process_time() - work, peak)
"""


def write_museum(folder, n=485_000):
    """About 300 MB in the museum's layout, with empty image files.

    Every row has its own id, title, date and link; every tenth title has a line break."""
    (folder / "images").mkdir(parents=True)
    blank = dict.fromkeys(MET_COLUMNS, "")
    filler = {
        "Is Highlight": "False",
        "Is Timeline Work": "False",
        "Is Public Domain": "True",
        "Department": "European Sculpture and Decorative Arts",
        "Artist Role": "Maker|Designer",
        "Artist Display Name": "Meissen Manufactory|Johann Joachim Kandler",
        "Artist Display Bio": "German, 1710-present|German, Fischbach 1706-1775 Meissen",
        "Artist ULAN URL": "http://vocab.getty.edu/page/ulan/500010254",
        "Credit Line": "Gift of Irwin Untermyer, 1964",
        "Medium": "Hard-paste porcelain, gilt bronze",
        "Culture": "German, Meissen",
        "Geography Type": "Made in",
        "Country": "Germany",
        "Repository": "Metropolitan Museum of Art, New York, NY",
        "Tags AAT URL": "http://vocab.getty.edu/page/aat/300132399",
    }
    with open(folder / "MetObjects.csv", "w", encoding="utf-8-sig", newline="") as f:
        table = csv.writer(f)
        table.writerow(MET_COLUMNS)
        for i in range(n):
            c, name, tags = KINDS[i % 4]
            row = (
                blank
                | filler
                | {
                    "Object Number": f"64.101.{i}",
                    "Object ID": i + 1,
                    "Classification": c,
                    "Object Name": f"{name} {i % 25000}",
                    "Tags": tags,
                    "Title": f"Covered piece no. {i}" + ("\nwith a stand" if i % 10 == 0 else ""),
                    "Object Date": f"ca. {1400 + i % 500}",
                    "Dimensions": f"H. {i % 97} x W. {i % 89} in. ({i % 997} x {i % 991} cm)",
                    "Link Resource": f"http://www.metmuseum.org/art/collection/search/{i + 1}",
                }
            )
            table.writerow(row.values())
    for i in range(n):
        os.close(os.open(folder / "images" / f"{i + 1}.jpg", os.O_CREAT))
    return folder


@pytest.mark.slow
def test_half_a_million_rows(tmp_path):
    """485,000 rows become examples in 10 s and 1.5 GB, images not decoded.

    It runs in a process of its own, so that the peak is the reader's. The reader runs on one thread. Processor time is
    asserted, which other jobs on the machine distort less; wall time is printed."""
    folder = write_museum(tmp_path / "met")
    for label_set in ("coarse", "fine"):
        out = subprocess.run(
            [sys.executable, "-c", MEASURE, str(folder), label_set], capture_output=True, text=True, check=True
        ).stdout
        n, wall, seconds, peak = (float(v) for v in out.split())
        size = (folder / "MetObjects.csv").stat().st_size / 1e6
        times = f"{seconds:.1f} s of processor, {wall:.1f} s of wall"
        print(f"{label_set}: {size:.0f} MB, {n:.0f} examples, {times}, peak {peak:.2f} GB")
        assert n == 485_000 and seconds <= 10 and peak <= 1.5
