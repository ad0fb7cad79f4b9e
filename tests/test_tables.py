"""A table as people have it: names, encodings, separators, titles, workbooks, cells. One fact a test."""

import datetime
import gzip
import io
import json
import re
import unicodedata
import warnings
import zipfile

import numpy as np
import openpyxl
import pytest
from PIL import Image

from vbg.core.collection_plan import collection_name
from vbg.core.files import DataError
from vbg.data.card import data_card
from vbg.data.collection import join_fields, read_collection
from vbg.data.met import read_met
from vbg.data.splits import assign_splits
from vbg.data.tables import read_table

HEADER = ["image", "title", "description", "category"]
ROWS = [[f"images/{i}.png", f"Title {i}", f"Clay, piece {i}", "bowl" if i % 2 else "coin"] for i in range(6)]


@pytest.fixture
def museum(tmp_path):
    "Six photographs, without a table."
    (tmp_path / "images").mkdir()
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"images/{i}.png")
    return tmp_path


def table(rows=ROWS, header=HEADER, sep=",", end="\n"):
    "Text of a table; fields are quoted where they hold a separator."
    quoted = lambda f: f'"{f}"' if any(s in f for s in ",;\t|\n") else f
    return end.join(sep.join(map(quoted, row)) for row in [header, *rows]) + end


def changed(row, column, value):
    "The rows with another value; rows counted from 0."
    return [
        [value if (i, HEADER[c]) == (row, column) else v for c, v in enumerate(line)] for i, line in enumerate(ROWS)
    ]


def read(museum, content=None, name="objects.csv", **options):
    "The examples, read without a warning's being an error."
    if content is not None:
        (museum / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_collection(museum, **dict(label="category") | options)


def book(museum, name="objects.xlsx", rows=ROWS, change=lambda book: None):
    "A workbook beside the photographs."
    made = openpyxl.Workbook()
    for row in [HEADER, *rows]:
        made.active.append(row)
    change(made)
    made.save(museum / name)
    return museum


# ---- the table's name


@pytest.mark.parametrize(
    "name", ["Objects.csv", "OBJECTS.CSV", "objects.tsv", "Objects.TXT", "objects.tab", "list.csv"]
)
def test_a_table_is_found_in_other_spellings(museum, name):
    assert len(read(museum, table(sep="\t" if "s.t" in name.lower() else ","), name)) == 6


@pytest.mark.parametrize("name", ["Objects.xlsx", "objects.xlsm", "Inventar 2024.xlsx", "objects.csv"])
def test_a_workbook_is_known_by_its_content(museum, name):
    assert read(book(museum, name)).table.text[0] == "Title 0. Clay, piece 0"


def test_objects_csv_goes_before_other_tables_and_they_are_told(museum):
    book(museum)
    (museum / "other.csv").write_text("a\n")
    assert "objects.xlsx is not read" in read(museum, table()).notes[0]


def test_several_tables_are_refused_by_name(museum):
    (museum / "a.csv").write_text(table())
    with pytest.raises(DataError, match=r"several tables: a\.csv, b\.csv.*give the path"):
        read(museum, table(), "b.csv")


def test_columns_without_a_table_are_refused(museum):
    with pytest.raises(DataError, match="no objects.csv is there"):
        read(museum)


def test_an_unknown_option_names_its_neighbour(museum):
    with pytest.raises(DataError, match="option 'lable' is not known.*did you mean 'label'"):
        read(museum, table(), lable="category")


ODS = "urn:oasis:names:tc:opendocument:xmlns:"


def test_an_open_document_is_read(museum):
    cell = lambda text: f"<t:table-cell><x:p>{text}</x:p></t:table-cell>"
    rows = "".join(f"<t:table-row>{''.join(map(cell, row))}</t:table-row>" for row in [HEADER, *ROWS])
    spaces = f'xmlns:t="{ODS}table:1.0" xmlns:x="{ODS}text:1.0"'
    with zipfile.ZipFile(museum / "objects.ods", "w") as f:
        f.writestr("content.xml", f'<d {spaces}><t:table t:name="Blatt1">{rows}</t:table></d>')
    assert "sheet 'Blatt1'" in read(museum).notes[0]


@pytest.mark.parametrize(
    "content, said",
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), r"old Excel workbook.*save it as \.xlsx"),
        (gzip.compress(table().encode()), "gzip archive.*unpack"),
        (b"%PDF-1.7\n", "PDF document.*CSV"),
        (b"<html><table><tr><td>image</td></tr></table></html>", "web page.*xlsx"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "Git LFS pointer.*git lfs pull"),
        (b"/annex/objects/MD5E-s9--1.csv\n", "git-annex pointer.*git annex get"),
        (b"PK\x03\x04 cut", "damaged workbook or zip"),
        (b'[{"image": "a.png"}]', "this is JSON"),
    ],
)
def test_what_is_no_table_is_named_with_a_remedy(museum, content, said):
    with pytest.raises(DataError, match=f"(?s)objects.csv.*{said}"):
        read(museum, content)


def test_a_zip_archive_is_named(museum):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as f:
        f.writestr("objects.csv", table())
    with pytest.raises(DataError, match="zip archive.*unpack"):
        read(museum, made.getvalue(), "objects.zip")


def test_a_link_of_git_annex_to_nothing_is_named(museum):
    (museum / "objects.csv").symlink_to("../.git/annex/objects/x/y.csv")
    with pytest.raises(DataError, match="git annex get"):
        read(museum)


# ---- encodings and separators

WORDS = {
    "cp1252": "Schüssel, größer",
    "cp1250": "Żółta waza, dzbanek z uchem",
    "cp1251": "Ваза синяя, Китай",
    "cp1253": "Αγγείο με ζωγραφιά",
    "cp1254": "ışıklı gümüş kâse",
    "cp1255": "קערה כחולה",
    "cp1256": "مصباح زيتي",
    "cp932": "青い花瓶、江戸時代",
    "gbk": "青花瓷碗，清代",
    "big5": "青花瓷碗，清代",
    "cp949": "청자 항아리",
    "utf-8": "青花 Schüssel",
    "utf-8-sig": "青花 Schüssel",
    "utf-16": "青花 Schüssel",
    "utf-16-le": "青花 Schüssel",
    "utf-32": "青花 Schüssel",
}


@pytest.mark.parametrize("codec", WORDS)
def test_an_encoding_is_found_and_told(museum, codec):
    made = read(museum, table(changed(1, "title", WORDS[codec]), sep=";").encode(codec))
    assert made.table.text[1].startswith(WORDS[codec]) and "separated by semicolons" in made.notes[0]


@pytest.mark.parametrize(
    "name, codec",
    [("ANSI", "cp1252"), ("utf8", "utf-8-sig"), ("UTF-8", "utf-8-sig"), ("Latin-1", "cp1252"), ("latin1", "cp1252")]
    + [("Windows-1252", "cp1252"), ("ISO 8859-1", "cp1252"), ("1252", "cp1252"), ("Unicode", "utf-16")],
)
def test_an_encoding_has_its_common_names(museum, name, codec):
    made = read(museum, table(changed(1, "title", "Größe")).encode(codec), encoding=name)
    assert made.table.text[1].startswith("Größe")


@pytest.mark.parametrize("name, codec", [("GBK", "gbk"), ("gb2312", "gbk"), ("Shift-JIS", "cp932"), ("sjis", "cp932")])
def test_an_encoding_of_asia_has_its_common_names(museum, name, codec):
    made = read(museum, table(changed(1, "title", "青花")).encode(codec), encoding=name)
    assert made.table.text[1].startswith("青花")


@pytest.mark.parametrize("name", ["ANSI-9", "", 5, "base64", "undefined", "a\0b"])
def test_an_unknown_encoding_is_refused_by_name(museum, name):
    if name == "":
        assert len(read(museum, table(), encoding=name)) == 6
    else:
        with pytest.raises(DataError, match="encoding .* is not known.*cp1252"):
            read(museum, table(), encoding=name)


@pytest.mark.parametrize(
    "sep, names", [("\t", ["\\t", "tab", "TAB", "\t"]), (";", ["semicolon", ";"]), ("|", ["pipe"])]
)
def test_a_separator_has_names_and_is_found_without(museum, sep, names):
    for name in [None, *names]:
        assert len(read(museum, table(sep=sep), separator=name)) == 6


@pytest.mark.parametrize("name", ["::", '"', "\n", 7.5])
def test_a_separator_that_cannot_be_is_refused_by_name(museum, name):
    with pytest.raises(DataError, match="separator .* is not one sign"):
        read(museum, table(), separator=name)


@pytest.mark.parametrize("first", ["sep=;\n", '"sep=;"\r\n', "SEP=;\n"])
def test_the_line_sep_is_obeyed_and_is_no_row(museum, first):
    assert read(museum, first + table(sep=";")).table.row.tolist() == [2, 3, 4, 5, 6, 7]


def test_decimal_commas_do_not_hide_the_semicolons(museum):
    rows = [[*row, "12,5", "3,75"] for row in ROWS]
    made = read(museum, "\n".join(";".join(row) for row in [[*HEADER, "cm", "kg"], *rows]))
    assert json.loads(made.table.attributes[0]) == {"cm": "12,5", "kg": "3,75"}


def test_quotes_escaped_by_a_backslash_are_read_and_told(museum):
    rows = changed(2, "title", 'Vase called \\"Three\\", big')
    made = read(museum, table(rows))
    assert made.table.text[2].startswith('Vase called "Three", big.') and "backslash" in made.notes[0]


def test_a_backslash_at_the_end_of_a_field_stays(museum):
    assert "C:\\shelf\\" in read(museum, table(changed(2, "title", "Clay, C:\\shelf\\"))).table.text[2]


def test_blanks_before_quotes_are_no_part_of_a_field(museum):
    content = table(changed(2, "title", "Bowl, blue")).replace(',"', ', "')
    assert read(museum, content).table.text[2].startswith("Bowl, blue. ")


@pytest.mark.parametrize("name", ["ANSI", "cp1252", "latin-1"])
def test_utf8_that_is_called_a_code_page_is_read_as_it_is_and_told(museum, name):
    made = read(museum, table(changed(1, "title", "Größe")), encoding=name)
    assert made.table.text[1].startswith("Größe") and "not " + name in made.notes[0]


@pytest.mark.parametrize("content", ["\ufeff", "\n\n\n", ",,,\n,,,\n"])
def test_a_table_with_nothing_in_it_says_so(museum, content):
    with pytest.raises(DataError, match="the table holds nothing"):
        read(museum, content)


def test_a_sheet_of_a_text_is_refused(museum):
    with pytest.raises(DataError, match="sheet is for a workbook"):
        read(museum, table(), sheet="Sheet")


def test_a_text_of_200000_signs_is_read(museum):
    assert len(read(museum, table(changed(2, "description", "word " * 40_000))).table.text[2]) > 199_000


# ---- the header


@pytest.mark.parametrize("title", ["Collection export of 2024\n", "Export,,,\n\n,,,\n", '"Museum, Basel"\nPage 1\n\n'])
def test_title_lines_are_passed_over_and_told(museum, title):
    made = read(museum, title + table())
    assert made.table.row[0] == title.count("\n") + 2 and f"header in row {title.count(chr(10)) + 1}" in made.notes[0]


def test_a_title_is_told_from_the_header_without_the_columns(tmp_path):
    (tmp_path / "t.csv").write_text("Export of 2024\n\n" + table())
    assert read_table(tmp_path / "t.csv")[0].columns.tolist() == HEADER


def test_a_total_below_the_table_is_named(museum):
    with pytest.raises(DataError, match="row 8: image cell is empty"):
        read(museum, table([*ROWS, ["", "Total", "6", ""]]))


@pytest.mark.parametrize("name", ["row", "index", "id", "label", "text", "group", "cell", "split", "origin", "image "])
def test_a_column_may_have_any_name(museum, name):
    header = [*HEADER, name] if name != "image " else [name, *HEADER[1:], "x"]
    rows = [[*row, f"Shelf {i}"] for i, row in enumerate(ROWS)]
    made = read(museum, table(rows, header), text=["title", name.strip() if name != "image " else "x"])
    assert made.table.text[0] == "Title 0. Shelf 0" and made.table.row.tolist() == [2, 3, 4, 5, 6, 7]


def test_a_column_called_row_stays_among_the_attributes(museum):
    made = read(museum, table([[*row, "Shelf"] for row in ROWS], [*HEADER, "row"]), text="title")
    assert json.loads(made.table.attributes[0])["row"] == "Shelf"


def test_columns_are_named_without_outer_blanks_and_marks(museum):
    made = read(
        museum, table(header=["\ufeff image", "\xa0title ", "description", "Cate\u0301gorie"]), label="Catégorie"
    )
    assert len(made) == 6


def test_a_column_without_a_name_keeps_its_values(museum):
    made = read(museum, table([[str(i), *row] for i, row in enumerate(ROWS)], ["", *HEADER]))
    assert json.loads(made.table.attributes[3]) == {"column 1": "3"}


def test_columns_with_nothing_in_them_are_dropped(museum):
    made = read(museum, table([[*row, "", ""] for row in ROWS], [*HEADER, "", ""]))
    assert made.table.attributes[0] == "{}"


@pytest.mark.parametrize("choice", [dict(text=5.5), dict(label=["a"]), dict(id={}), dict(label=None), dict(image="")])
def test_a_choice_that_is_no_name_is_refused(museum, choice):
    with pytest.raises(DataError):
        read(museum, table(), **choice)


# ---- workbooks


def test_the_sheet_with_the_columns_is_read_and_told(museum):
    made = read(book(museum, change=lambda b: b.create_sheet("Notes", 0).append(["how to fill in"])))
    assert len(made) == 6 and "sheet 'Sheet'" in made.notes[0]


def test_two_sheets_with_the_columns_need_a_name(museum):
    book(museum, change=lambda b: setattr(b.copy_worksheet(b.active), "title", "2023"))
    with pytest.raises(DataError, match="2 sheets hold.*'Sheet', '2023'"):
        read(museum)
    assert len(read(museum, sheet="2023")) == 6


def test_a_hidden_sheet_is_passed_over(museum):
    def change(b):
        b.copy_worksheet(b.active).sheet_state = "hidden"

    assert len(read(book(museum, change=change))) == 6


@pytest.mark.parametrize(
    "value, shown, said",
    [(7, "General", "7"), (7.0, "0.00", "7"), (2.5, "General", "2.5"), (7, "0000", "0007"), (True, "General", "TRUE")]
    + [(datetime.datetime(1920, 5, 1), "dd.mm.yyyy", "1920-05-01")]
    + [("NA", "General", "NA"), ("007", "@", "007"), (datetime.date(1999, 12, 31), "d/m/yy", "1999-12-31")],
)
def test_a_cell_is_the_text_that_it_means(museum, value, shown, said):
    def change(b):
        b.active["E1"], b.active["E2"] = "extra", value
        b.active["E2"].number_format = shown

    assert json.loads(read(book(museum, change=change)).table.attributes[0]) == {"extra": said}


def test_a_formula_without_a_value_is_named_where_it_is_used(museum):
    book(museum, change=lambda b: b.active.cell(4, 4, '="bo"&"wl"'))
    with pytest.raises(DataError, match="row 4: column 'category' holds a formula whose value was not saved"):
        read(museum)
    assert read(museum, lenient=True).skipped.row.tolist() == [4]


def test_a_formula_elsewhere_is_counted(museum):
    made = read(book(museum, change=lambda b: (b.active.cell(1, 5, "sum"), b.active.cell(4, 5, "=1+1"))))
    assert "1 cells with a formula whose value was not saved read as empty" in made.notes[0]


def test_merged_cells_hold_for_each_row(museum):
    rows = [[*row[:3], "coin" if i == 0 else "bowl" if i == 3 else None] for i, row in enumerate(ROWS)]
    made = read(book(museum, rows=rows, change=lambda b: [b.active.merge_cells(a) for a in ("D2:D4", "D5:D7")]))
    assert made.table.label.tolist() == ["coin"] * 3 + ["bowl"] * 3 and "2 merged ranges" in made.notes[0]


def test_a_sheet_formatted_to_its_last_row_is_read_at_once(museum):
    def change(b):
        b.active.cell(1_000_000, 40).number_format = "0.00"

    assert len(read(book(museum, change=change))) == 6


def test_a_merged_title_is_passed_over(museum):
    def change(b):
        b.active.insert_rows(1, 2)
        b.active["A1"] = "Inventory"
        b.active.merge_cells("A1:D1")

    assert read(book(museum, change=change)).table.row[0] == 4


# ---- cells


@pytest.mark.parametrize(
    "other", [unicodedata.normalize("NFD", "Schüssel blau"), "Schüssel\xa0blau", "Schüssel  blau", "Schüs\xadsel blau"]
)
def test_labels_that_look_the_same_are_one_and_that_is_told(museum, other):
    rows = [[*row[:3], ("Schüssel blau", other, "coin")[i % 3]] for i, row in enumerate(ROWS)]
    made = read(museum, table(rows))
    assert set(made.table.label) == {"Schüssel blau", "coin"} and "2 ways that look the same" in made.notes[1]


def test_labels_that_differ_in_case_alone_stay_apart_and_that_is_told(museum):
    rows = [[*row[:3], ("Bowl", "bowl")[i % 2]] for i, row in enumerate(ROWS)]
    assert "differ in case alone stay apart: 'Bowl', 'bowl'" in read(museum, table(rows)).notes[1]


def test_the_data_card_holds_what_was_taken_for_what(museum):
    made = read(museum, table(), lenient=True)
    assert data_card(assign_splits(made, minimum=1))["notes"] == made.notes


@pytest.mark.parametrize("word", ["NA", "null", "None", "nan", "N/A", "-", "TRUE", "007"])
def test_words_that_look_like_nothing_are_words(museum, word):
    rows = [[*row[:3], word if i % 2 else "coin"] for i, row in enumerate(ROWS)]
    assert set(read(museum, table(rows)).table.label) == {word, "coin"}


@pytest.mark.parametrize(
    "cell", ["images/0.png;images/x.png", "images/0.png | images/x.png", "images/0.png\nimages/x.png"]
)
def test_several_photographs_are_items_of_one_group(museum, cell):
    Image.new("RGB", (8, 8)).save(museum / "images/x.png")
    made = read(museum, table(changed(0, "image", cell)))
    assert made.table.group.tolist() == ["row 2", "row 2", *[""] * 5] and "several photographs" in made.notes[1]


def test_a_comma_separates_photographs_and_belongs_to_names(museum):
    Image.new("RGB", (8, 8)).save(museum / "images/a, b.png")
    made = read(
        museum, table([*changed(0, "image", "images/0.png, images/a, b.png")[1:], ["images/a, b.png", *ROWS[0][1:]]])
    )
    assert len(made) == 6


def test_a_photograph_in_two_rows_is_taken_once(museum):
    made = read(museum, table(changed(0, "image", "images/0.png;images/1.png")))
    assert len(made) == 6 and "stand in several rows" in made.notes[2]


@pytest.mark.parametrize(
    "cell, said",
    [
        ("", "image cell is empty"),
        ("https://museum.org/0.jpg", "image is a web address.*download"),
        ("data:image/png;base64,AAAA", "image is written into the cell"),
        ("C:\\Fotos\\0.jpg", "path of another computer.*relative"),
        ("\\\\server\\share\\0.jpg", "path of another computer"),
        ("file:///D:/x/0.jpg", "path of another computer"),
        ("images/none.png;images/no.png", "image file is absent"),
        ("x" * 5000 + ".png", "image file is absent"),
    ],
)
def test_an_image_that_is_not_here_is_named_with_row_and_remedy(museum, cell, said):
    content = table(changed(3, "image", cell))
    with pytest.raises(DataError, match=f"objects.csv, row 5: .*{said}"):
        read(museum, content)
    assert len(read(museum, lenient=True)) == 5


@pytest.mark.parametrize("cell", ["images\\3.png", "IMAGES/3.PNG", "./images/3.png", " images/3.png "])
def test_an_image_is_found_as_other_systems_spell_it(museum, cell):
    assert len(read(museum, table(changed(3, "image", cell)))) == 6


@pytest.mark.parametrize(
    "raw, plain",
    [
        ("<p>Bowl&nbsp;with <i>two</i> handles &amp; a lid</p>", "Bowl with two handles & a lid"),
        ("Red<br/>blue<br>green", "Red blue green"),
        ('<a href="https://x.org/?a=1&amp;b=2">Lamp</a>s', "Lamps"),
        ("&lt;b&gt;Caf&eacute;&lt;/b&gt; &#8212; &#x41;", "Café — A"),
        ("<!-- note -->Jar<style>p {color: red}</style>", "Jar"),
        ("inscribed <illegible>, 3 < 4 & 5 > 2; AT&T", "inscribed <illegible>, 3 < 4 & 5 > 2; AT&T"),
    ],
)
def test_markup_is_no_text(raw, plain):
    assert join_fields([raw]) == plain


def test_markup_is_told(museum):
    assert "taken out of 1 texts" in read(museum, table(changed(0, "title", "<b>Bowl</b>"))).notes[1]


def test_scripts_without_blanks_are_kept_whole(museum):
    made = read(museum, table(changed(0, "title", "青花瓷碗")))
    assert made.table.text[0] == "青花瓷碗. Clay, piece 0"


def test_folders_in_any_script_have_names_of_their_own():
    folders = ["博物館", "متحف", "музей", "set 2024.v1", "set 2024.v2", "Set 2024.v1", "a b", "a-b", "Ä", "Ö", "x" * 60]
    names = [collection_name(f"/data/{folder}") for folder in folders]
    assert len({name.casefold() for name in names}) == len(folders) and all(name.isascii() for name in names)


# ---- the museum's own table

MET = ["Object ID", "Classification", "Object Name", "Title", "Culture", "Period", "Dynasty", "Reign"]
MET += ["Artist Display Name", "Object Date", "Medium", "Dimensions", "City", "State", "Country", "Region"]


def met(folder, content):
    "A folder in the Met's layout."
    (folder / "images").mkdir()
    for i in range(4):
        (folder / f"images/{i}.jpg").touch()
    (folder / "MetObjects.csv").write_bytes(content)
    return folder


def met_table(sep=",", title="Bowl"):
    rows = [[str(i), "Ceramics", "Bowl", f"{title} {i}", *[""] * (len(MET) - 4)] for i in range(4)]
    return "\n".join(sep.join(row) for row in [MET, *rows]) + "\n"


@pytest.mark.parametrize("sep", [",", "\t", ";", "|"])
def test_the_met_is_read_with_any_separator(tmp_path, sep):
    assert len(read_met(met(tmp_path, met_table(sep).encode("utf-8-sig")))) == 4


def test_the_met_is_read_with_quotes_escaped_by_backslash(tmp_path):
    made = read_met(met(tmp_path, re.sub("(big .)", r'\1"', met_table(title='"Vase called \\"Three\\", big')).encode()))
    assert made.table.text[2].startswith('Vase called "Three", big 2')


@pytest.mark.parametrize(
    "content, said",
    [
        (gzip.compress(met_table().encode()), "gzip archive.*unpack"),
        (b"\xd0\xcf\x11\xe0" + bytes(99), "old Excel workbook"),
        (met_table().encode("utf-16"), "UTF-16, not UTF-8"),
        (b"/annex/objects/x\n", "git annex get"),
    ],
)
def test_what_is_not_the_mets_table_is_named(tmp_path, content, said):
    with pytest.raises(DataError, match=f"MetObjects.csv.*{said}"):
        read_met(met(tmp_path, content))


@pytest.mark.parametrize("name", ["metobjects.CSV", "MetObjects.tsv", "METOBJECTS.TXT"])
def test_the_mets_table_is_found_in_other_spellings(tmp_path, name):
    (met(tmp_path, met_table("\t").encode()) / "MetObjects.csv").rename(tmp_path / name)
    assert len(read_met(tmp_path)) == 4


@pytest.mark.parametrize("name, said", [("MetObjects.csv.gz", "gzip"), ("MetObjects.zip", "zip archive")])
def test_an_archive_in_the_place_of_the_mets_table_is_named(tmp_path, name, said):
    (met(tmp_path, b"") / "MetObjects.csv").unlink()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as f:
        f.writestr("MetObjects.csv", met_table())
    (tmp_path / name).write_bytes(gzip.compress(b"a") if name.endswith("gz") else made.getvalue())
    with pytest.raises(DataError, match=f"{name}: this is a {said}.*unpack"):
        read_met(tmp_path)
