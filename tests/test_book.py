"""The HTML book: from two notebooks that papermill ran, read as files and opened in a real browser where there is one."""
import re
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image

from in_browser import browser, probed, shown
from vbg.book import make_book
from vbg.runs import run_notebook
from vbg.study_run import Job

SPEC = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
FIRST = ("""# What was **seen** & counted
> Makes `figures/<profile>/seen.{png,json}` from nothing.

Loss is $-\\log p_{y}$, and
$$A = \\mathrm{softmax}(QK^\\top/\\sqrt{D})\\,U \\tag{4}$$""",
         "import sys\nimport pandas as pd\nfrom PIL import Image\nprint('a ' + 'warning', file=sys.stderr)",
         "pd.DataFrame({f'a long heading {k}': [k * 1.5] * 3 for k in range(20)})",
         "Image.new('RGB', (40 * width, 30), (200, 30, 30))")
PROBE = """<script>const failed = []; addEventListener("error", e => failed.push(e.target.src || e.target.href || e.message), true);
addEventListener("load", () => parent.postMessage(JSON.stringify({
 title: document.title, inner: innerWidth, failed, images: [...document.images].map(i => i.naturalWidth * i.naturalHeight), wide: document.documentElement.scrollWidth > innerWidth,
 styled: getComputedStyle(document.body).maxWidth !== "none", asked: performance.getEntriesByType("resource").map(e => e.name)}), "*"))</script>"""


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    "The folder of a book of two chapters."
    home = tmp_path_factory.mktemp("book")
    patch = pytest.MonkeyPatch()
    patch.setenv("VBG_HOME", str(home))
    for name, cells in (("summary", FIRST), ("train-met-0", ("# Train", "print('epoch 1')"))):
        code = [new_code_cell("width = 1  # in fortieths", metadata={"tags": ["parameters"]})] + [new_code_cell(source) for source in cells[1:]]
        nbformat.write(new_notebook(cells=[new_markdown_cell(cells[0]), *code], metadata=SPEC), home / f"{name}.ipynb")
        run_notebook(home / f"{name}.ipynb", home / "runs/smoke/notebooks" / f"{name}.ipynb", {"width": 2})
    figures = home / "figures" / "smoke"
    figures.mkdir(parents=True)
    for name in ("seen", "stray"):
        (figures / f"{name}.json").write_text("{}")
        Image.fromarray(np.random.default_rng(0).integers(255, size=(300, 700, 3), dtype=np.uint8)).save(figures / f"{name}.png")
    yield make_book("smoke", [Job(f"runs/smoke/notebooks/{name}.ipynb", "r", (), "missing", "") for name in ("summary", "train-met-0", "gan_choice")]).parent
    patch.undo()


class Links(HTMLParser):
    "Everything that a page loads or points at, its language, headings and images."
    def __init__(self, text):
        super().__init__()
        self.loads, self.points, self.ids, self.images, self.headings, self.language = [], [], set(), [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        has = dict(attributes)
        (self.points if tag == "a" else self.loads).extend(has[key] for key in ("href", "src", "srcset", "data", "action", "poster") if has.get(key))
        self.ids |= {has["id"]} if "id" in has else set()
        self.images += [has] if tag == "img" else []
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.language = has.get("lang") if tag == "html" else self.language
        assert tag not in ("script", "iframe", "object", "embed"), tag


def pages(book):
    return {path.name: Links(path.read_text(encoding="utf-8")) for path in sorted(book.glob("*.html"))}


# ---- as files

def test_chapters_index_and_style_are_there_and_nothing_else(book):
    assert sorted(p.name for p in book.iterdir()) == ["book.css", "index.html", "summary.html", "train-met-0.html"]


def test_every_link_and_resource_is_in_the_folder(book):
    there = pages(book)
    for name, page in there.items():
        for target in page.loads + page.points:
            parts = urlsplit(target)
            if parts.scheme == "data":
                continue
            assert not parts.scheme and not parts.netloc, f"{name}: {target[:80]}"
            assert not parts.path or (book / unquote(parts.path)).is_file(), f"{name}: {target}"
            assert not parts.fragment or parts.fragment in there[parts.path or name].ids, f"{name}: {target}"
    assert "url(" not in (book / "book.css").read_text() and "@import" not in (book / "book.css").read_text()


def test_each_chapter_leads_to_its_neighbours_and_the_index(book):
    there = pages(book)
    assert {"summary.html", "train-met-0.html"} <= set(there["index.html"].points)
    assert there["summary.html"].points.count("train-met-0.html") == there["train-met-0.html"].points.count("summary.html") == 2
    assert there["summary.html"].points.count("index.html") == 2


def test_pages_can_be_read_aloud(book):
    for name, page in pages(book).items():
        assert page.language == "en" and page.headings.count(1) == 1 and page.headings[0] == 1, name
        assert all(image.get("alt", "").strip() for image in page.images), name
        assert all(later - before <= 1 for before, later in zip(page.headings, page.headings[1:])), name


def test_cells_of_the_machinery_are_a_table_and_noise_is_left_out(book):
    text = (book / "summary.html").read_text(encoding="utf-8")
    assert "<td><code>2</code></td><td><code>1</code></td><td>in fortieths</td>" in text
    assert "a warning" not in text and "effective" not in text and "injected" not in text and "<style" not in text
    assert text.count('class="math"') == 2 and "<span>(4)</span>" in text and "mathrm" not in re.sub(r'alt="[^"]*"', "", text)


def test_index_names_what_is_missing_and_what_nobody_made(book):
    text = (book / "index.html").read_text(encoding="utf-8")
    assert "<code>gan_choice</code>: <code>make gan PROFILE=smoke</code>" in text
    assert "<li><code>stray</code></li>" in text and "<li><code>seen</code></li>" not in text
    assert re.search(r'<code>seen</code><br><a href="summary.html">', text)
    assert re.search(r"<details><summary>1 notebook</summary>.*train-met-0.html", text, re.S)
    assert not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", text)


def test_same_notebooks_give_the_same_bytes(book):
    before = {p.name: p.read_bytes() for p in book.iterdir()}
    make_book("smoke", [Job(f"runs/smoke/notebooks/{name}.ipynb", "r", (), "missing", "") for name in ("summary", "train-met-0", "gan_choice")])
    assert {p.name: p.read_bytes() for p in book.iterdir()} == before


# ---- in a browser

@browser
@pytest.mark.parametrize("name, title, images", [("index.html", "The executed study, profile smoke", 2), ("summary.html", "What was seen & counted – vbg, profile smoke", 3)])
def test_browser_shows_the_page_whole(book, tmp_path, name, title, images):
    for width in (1200, 390):
        said, console = probed(book / name, tmp_path, width, PROBE)
        assert said["inner"] == width
        assert said["title"] == title and console == [] and said["failed"] == []
        assert len(said["images"]) == images and min(said["images"]) > 0
        assert said["styled"] and not said["wide"], f"wider than a window of {width}"
        assert all(asked.startswith((book.as_uri() + "/", "data:")) for asked in said["asked"]), said["asked"]


@browser
def test_browser_would_tell_of_an_image_that_is_not_there(book, tmp_path):
    broken = book / "broken.html"
    broken.write_text((book / "summary.html").read_text(encoding="utf-8").replace("</main>", '<img src="absent.png" alt=""><img src="http://example.org/far.png" alt=""><div style="width:3000px">x</div></main>'), encoding="utf-8")
    try:
        said, _ = probed(broken, tmp_path, 1200, PROBE)
    finally:
        broken.unlink()
    assert min(said["images"]) == 0 and said["wide"]
    assert [address.rsplit("/", 1)[1] for address in sorted(said["failed"])] == ["absent.png", "far.png"]


@browser
def test_screenshot_is_a_page_and_not_an_error(book, tmp_path):
    shown(book / "summary.html", tmp_path, f"--screenshot={tmp_path / 'shot.png'}", width=1200)
    with Image.open(tmp_path / "shot.png") as image:
        assert image.width == 1200
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert (pixels == 255).all(1).mean() > .3 and (pixels == (200, 30, 30)).all(1).sum() >= 80 * 30 * .9  # paper, and the red picture at its own size
