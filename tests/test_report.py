"""The decision report of a small run: read as a file, opened in a browser, asked for objects that do not exist."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from in_browser import browser, probed
from PIL import Image

from vbg.core.files import DataError
from vbg.data.sets import source_folder
from vbg.explain.decision import decide, first_text
from vbg.explain.restore import items_of
from vbg.reports import command
from vbg.reports import object_page as R
from vbg.reports import object_words as W
from vbg.reports import page as P
from vbg.train.jobs import train_runs

PROBE = """<script>const failed = [];
addEventListener("error", e => failed.push(e.target.src || e.target.href || e.message), true);
const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
const light = c => c.map(v => linear(v / 255)).reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);
const numbers = s => s.match(/[\\d.]+/g).map(Number);
const solid = s => { const n = numbers(s); return n.length < 4 || n[3] === 1 };
function ground(e) {
 for (; e; e = e.parentElement) {
  const s = getComputedStyle(e).backgroundColor; if (solid(s)) return numbers(s).slice(0, 3) }
 return [255, 255, 255] }
function contrast(e) {
 const pair = [numbers(getComputedStyle(e).color).slice(0, 3), ground(e)].map(light).sort((x, y) => x - y);
 return (pair[1] + .05) / (pair[0] + .05) }
const start = e => e.textContent.slice(0, 60);
addEventListener("load", () => { const shown = [...document.body.querySelectorAll("*")];
 const texts = shown.filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
 parent.postMessage(JSON.stringify({ title: document.title, failed,
 images: [...document.images].map(i => i.complete && i.naturalWidth * i.naturalHeight),
 scrolls: document.documentElement.scrollWidth > innerWidth, inner: innerWidth,
 out: shown.filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + " " + e.className),
 dull: texts.filter(e => contrast(e) < 4.5).map(start), texts: texts.length,
 small: texts.filter(e => parseFloat(getComputedStyle(e).fontSize) < 12).map(start),
 asked: performance.getEntriesByType("resource").map(e => e.name) }), "*") })</script>"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A folder with one small run in it."
    home = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBG_HOME", str(home))
        train_runs("smoke", "met", models="without_gan", seeds=[0], overrides={"balance": {"kind": "none"}})
        yield home


@pytest.fixture(scope="module")
def desk(place):
    return R.open_run("smoke", "met", "without_gan")


@pytest.fixture(scope="module")
def photo(desk):
    return (
        source_folder(desk.found.settings.data["met"])
        / "natural"
        / "images"
        / f"{items_of(desk.found, 'test').ids[0]}.jpg"
    )


@pytest.fixture(scope="module")
def pages(place, desk, photo):
    "A page of every kind of object; the last has a text that is meant to break it."
    test = items_of(desk.found, "test")
    made = dict(
        test=decide(desk, test.ids[0]),
        collection=decide(desk, desk.collection.data.ids[0]),
        new=decide(desk, image=photo, text=first_text(test, 0)),
        no_text=decide(desk, image=photo),
        no_image=decide(desk, text="Two lions, for a tomb. Copper alloy, cast."),
        hostile=decide(
            desk,
            image=photo,
            text='</p><script>alert(1)</script> <img src="http://example.org/x.png"> ' + "long" * 60 + " clay" * 90,
        ),
    )
    folder = place / "pages"
    folder.mkdir()
    for name, decision in made.items():
        (folder / f"{name}.html").write_text(R.report_html(desk, decision), encoding="utf-8")
    return folder


KINDS = ("test", "collection", "new", "no_text", "no_image", "hostile")


class Page(HTMLParser):
    "What a page loads, its headings, images, tables, ids and the texts of some elements."

    def __init__(self, text):
        super().__init__()
        (
            self.loads,
            self.points,
            self.ids,
            self.images,
            self.headings,
            self.refers,
            self.tables,
            self.open,
            self.has,
            self.texts,
            self.rel,
        ) = [], [], [], [], [], [], [], [], {}, {}, []
        self.feed(text)
        assert not [t for t in self.open if t not in ("p", "li")], self.open

    def handle_starttag(self, tag, attributes):
        has = dict(attributes)
        assert tag not in ("script", "iframe", "object", "embed", "form"), tag
        (self.points if tag == "a" else self.loads).extend(
            has[key] for key in ("href", "src", "srcset", "data", "action", "poster") if has.get(key)
        )
        self.ids += [has["id"]] if "id" in has else []
        self.refers += has.get("aria-labelledby", "").split()
        self.images += [has] if tag == "img" else []
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.tables += [dict(caption=0, heads=[], rows=[])] if tag == "table" else []
        if tag == "caption":
            self.tables[-1]["caption"] += 1
        if tag == "th":
            self.tables[-1]["heads"].append(has.get("scope"))
        self.has.setdefault(tag, has)
        if tag not in ("img", "meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag] = self.texts.get(tag, "") + data


def read(pages, name):
    return Page((pages / f"{name}.html").read_text(encoding="utf-8"))


# ---- as a file


@pytest.mark.parametrize("name", KINDS)
def test_page_holds_all_it_shows_and_points_nowhere(pages, name):
    page, text = read(pages, name), (pages / f"{name}.html").read_text(encoding="utf-8")
    assert page.loads and all(address.startswith("data:") for address in page.loads) and not page.points
    css = re.search(r"<style>(.*?)</style>", text, re.S)[1]
    assert "url(" not in css and "@import" not in css and not re.search(r"\son\w+=", re.sub(r'"[^"]*"', '""', text))
    assert ("http://" in page.texts["section"]) == (name == "hostile")  # as text, where somebody wrote it


@pytest.mark.parametrize("name", KINDS)
def test_page_can_be_read_aloud(pages, name):
    page = read(pages, name)
    assert (
        page.has["html"]["lang"] == "en"
        and page.texts["title"].startswith("Decision report: ")
        and page.texts["title"] == page.texts["h1"]
    )
    assert (
        page.headings[0] == 1
        and page.headings.count(1) == 1
        and all(later - before <= 1 for before, later in zip(page.headings, page.headings[1:]))
    )
    assert len(page.ids) == len(set(page.ids)) and page.refers and set(page.refers) <= set(page.ids)
    assert all(
        len(image["alt"]) > 15 and image["width"].isdecimal() and image["height"].isdecimal() for image in page.images
    )
    assert len({image["alt"] for image in page.images}) == len(page.images), "two pictures with one description"
    assert len(page.tables) == 2 and all(t["caption"] == 1 and set(t["heads"]) == {"col", "row"} for t in page.tables)
    assert {"main", "footer", "h2"} <= set(page.has)


@pytest.mark.parametrize("name", KINDS)
def test_every_colour_of_the_page_is_judged(pages, name):
    css = re.search(r"<style>(.*?)</style>", (pages / f"{name}.html").read_text(encoding="utf-8"), re.S)[1]
    outside = re.sub(r":root \{.*?\}", "", re.sub(r"linear-gradient\((?:#|90deg, #).*?\)", "", css), flags=re.S)
    assert set(re.findall(r"#[0-9a-fA-F]{6}\b", outside)) <= {"#ffffff"}  # the ground of a picture
    assert not re.search(r"[\s;{]color: (?!var\(--|inherit)", css)
    for dark in (False, True):
        colours = P.colours(dark)
        for pairs, least in ((P.TEXT_PAIRS, 4.5), (P.MARK_PAIRS, 3.0)):
            for one, other in pairs:
                assert P.contrast(colours[one], colours[other]) >= least, (dark, one, other)


def test_hostile_text_stands_on_the_page_as_text(pages):
    text = (pages / "hostile.html").read_text(encoding="utf-8")
    assert (
        "<script" not in text
        and "pieces of words were not read" in text
        and "alert" in read(pages, "hostile").texts["section"]
    )


def test_same_object_gives_the_same_bytes(pages, desk):
    again = R.report_html(desk, decide(desk, items_of(desk.found, "test").ids[0]))
    assert again.encode() == (pages / "test.html").read_bytes() and not re.search(
        r"20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", again
    )


def test_page_says_which_modality_was_there(pages, desk):
    "Planted: the text is withheld, then the picture."
    no_text, no_image, both = (
        (pages / f"{name}.html").read_text(encoding="utf-8") for name in ("no_text", "no_image", "test")
    )
    assert (
        "This object came without a text. The decision rests on the picture alone." in no_text
        and "From the picture alone the model takes" in no_text
    )
    assert (
        "This object came without a picture. The decision rests on the text alone." in no_image
        and "From the text alone the model takes" in no_image
    )
    assert "came without" not in both and "From picture and text the model takes" in both
    assert "with heat over it" not in no_image and no_text.count("<mark") == 0 and "Words in both" not in no_text
    assert (
        "text nearer than" not in no_text and "picture nearer than" in no_text and "picture nearer than" not in no_image
    )


def test_page_says_whose_object_it_is(pages):
    said = {name: (pages / f"{name}.html").read_text(encoding="utf-8") for name in KINDS}
    assert (
        "The model learnt from this very object" in said["collection"]
        and "The record itself says" in said["collection"]
    )
    for name in ("new", "no_text", "no_image"):
        assert "from outside the collection" in said[name] and "The record itself says" not in said[name]
    assert all(
        "drawn by a program" in text
        and "runs/smoke/classifiers/met/without_gan/seed0" in text
        and "MET, rendered" in text
        and "check objects" in text
        for text in said.values()
    )


def test_numbers_of_the_page_are_those_of_the_run(pages, desk):
    ids, labels, table = desk.found.run.select("test")
    text = (pages / "test.html").read_text(encoding="utf-8")
    row = re.search(
        r'<th scope="row"[^>]*>([^<]*?) \(suggested[^<]*</th>.*?<span class="number">(.*?)</span>'
        r'.*?<span class="number">(.*?)</span>',
        text,
    )
    assert row[1] == desk.class_names[table[0].argmax()] and row[3] == W.percent(table[0].max())
    n = len(desk.found.run.select("validation")[0])
    assert n < 50 and f"Not calibrated: {n} check objects are too few (50 are needed)" in text
    right = (desk.found.run.select("validation")[2].argmax(1) == desk.found.run.select("validation")[1]).sum()
    assert f"{right} of {n} check objects" in text


def test_heat_is_described_where_it_lies(desk, monkeypatch):
    spot = np.zeros((64, 64), np.float32)
    spot[50:60, 48:62] = 1
    monkeypatch.setattr(R, "heat_of", lambda desk, decision: (spot, ""))
    text = R.report_html(desk, decide(desk, items_of(desk.found, "test").ids[1]))
    assert "is strongest in the lower right." in text and "strongest in the lower right. <span" in text


def test_map_that_says_nothing_is_said_to(desk, monkeypatch):
    monkeypatch.setattr(W, "grad_cam", lambda model, batch, classes: np.zeros((1, 8, 8)))
    text = R.report_html(desk, decide(desk, items_of(desk.found, "test").ids[1]))
    assert "No heat can be drawn" in text and "the same everywhere" in text and "with heat over it" not in text


# ---- the command, and what it refuses


def test_command_writes_the_page(pages, desk, tmp_path, capsys):
    out, name = tmp_path / "one.html", items_of(desk.found, "test").ids[0]
    assert (
        command.main(["report", "--profile", "smoke", "--model", "without_gan", "--item", name, "--out", str(out)]) == 0
    )
    assert out.read_bytes() == (pages / "test.html").read_bytes() and capsys.readouterr().out.strip() == str(out)


@pytest.mark.parametrize(
    "words, said",
    [
        (["--item", "100000000"], "the nearest ids are"),
        (["--image", "absent.png", "--text", "a vase"], "absent.png: file is absent. Remedy:"),
        (["--item", "1", "--text", "x"], "not both"),
        (["--seed", "9", "--item", "1"], "runs are missing"),
        (["--text", "  "], "neither a picture nor a text"),
    ],
)
def test_command_refuses_with_a_remedy(desk, words, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(["report", "--profile", "smoke", "--model", "without_gan", *words]) == (
        1 if "--seed" in words else 2
    )
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_nearest_ids_exist(desk):
    name = str(int(items_of(desk.found, "test").ids[0]) + 10_000_000)
    with pytest.raises(DataError) as caught:
        decide(desk, name)
    near = re.search(r"nearest ids are (.*)", str(caught.value))[1].split(", ")
    assert len(near) == 5 and all(decide(desk, other).data.ids[0] == other for other in near[:1])


def test_damaged_picture_names_file_and_remedy(desk, photo, tmp_path):
    (tmp_path / "half.jpg").write_bytes(photo.read_bytes()[:400])
    (tmp_path / "words.jpg").write_text("no picture")
    for name in ("half.jpg", "words.jpg"):
        with pytest.raises(DataError, match=f"{name}: image cannot be read .*Remedy: replace the image"):
            decide(desk, image=tmp_path / name, text="a vase")


def test_large_photograph_is_read_as_the_model_reads(desk, photo, tmp_path):
    "A file of another size and format, not square, gives a page of the same build."
    with Image.open(photo) as image:
        image.convert("RGB").resize((900, 640)).save(tmp_path / "large.png")
    decision = decide(desk, image=tmp_path / "large.png", text="A vase")
    assert decision.data.pixels.shape == (1, 64, 64, 3) and "new object (large.png)" in R.report_html(desk, decision)


# ---- in a browser


@browser
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", KINDS)
def test_browser_shows_the_page_whole(pages, tmp_path, name, width):
    said, console = probed(pages / f"{name}.html", tmp_path, width, PROBE)
    assert (
        said["inner"] == width
        and said["title"].startswith("Decision report")
        and console == []
        and said["failed"] == []
    )
    assert said["images"] and min(said["images"]) >= 64 * 64 and not said["scrolls"] and said["out"] == [], said["out"]
    assert said["texts"] > 50 and said["dull"] == [] and said["small"] == []
    assert all(asked.startswith("data:") for asked in said["asked"])


@browser
def test_browser_would_tell_of_what_is_wrong(pages, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(
        (pages / "test.html")
        .read_text(encoding="utf-8")
        .replace(
            "</main>",
            '<img src="absent.png" alt=""><p style="width:3000px;max-width:none">x</p>'
            '<p style="color:#999">dull</p></main>',
        ),
        encoding="utf-8",
    )
    said, _ = probed(broken, tmp_path, 360, PROBE)
    assert (
        min(said["images"]) == 0
        and said["scrolls"]
        and said["dull"] == ["dull"]
        and said["failed"][0].endswith("absent.png")
        and any(e.startswith("P") for e in said["out"])
    )
