"""The HTML book: from two notebooks that papermill ran, read as files and opened in a browser where there is one."""

import functools
import re
import shutil
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import nbformat
import numpy as np
import pytest
from conftest import ROOT
from in_browser import browser, probed, shown
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from vbg.core.files import home
from vbg.reports.book import MAKE_TARGETS, make_book, targets_of
from vbg.runs.manifest import write_manifest
from vbg.runs.notebook import run_notebook
from vbg.runs.workflow import Job

SPEC = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
FIRST = (
    """# What was **seen** & counted
> Makes `seen.png` from nothing.

Loss is $-\\log p_{y}$, and
$$A = \\mathrm{softmax}(QK^\\top/\\sqrt{D})\\,U \\tag{4}$$""",
    "import sys\nimport pandas as pd\nfrom PIL import Image\nprint('a ' + 'warning', file=sys.stderr)",
    "pd.DataFrame({f'a long heading {k}': [k * 1.5] * 3 for k in range(20)})",
    "Image.new('RGB', (40 * width, 30), (200, 30, 30))",
)
LESSON = """# Lesson 2: What is added

One and one.

**Before**: [Lesson 1](01_first.ipynb), notes on [sums](../core/01_files.ipynb), [answers](solutions/02_toy.ipynb),
[a paper](https://example.org/sum)."""
PROBE = """<script>const failed = [];
addEventListener("error", e => failed.push(e.target.src || e.target.href || e.message), true);
addEventListener("load", () => parent.postMessage(JSON.stringify({
 title: document.title, inner: innerWidth, failed,
 images: [...document.images].map(i => i.naturalWidth * i.naturalHeight),
 wide: document.documentElement.scrollWidth > innerWidth,
 styled: getComputedStyle(document.body).maxWidth !== "none",
 asked: performance.getEntriesByType("resource").map(e => e.name)}), "*"))</script>"""
TABLES = """<script>addEventListener("load", () => parent.postMessage(JSON.stringify(
 [...document.querySelectorAll(".scroll")].map(t => [t.scrollWidth > t.clientWidth,
  ...["left", "right", "top", "bottom"].map(side => Math.round(t.getBoundingClientRect()[side]))])), "*"))</script>"""


def made():
    "The book of two lessons and these two chapters; the plan has a third."
    folder = "runs/smoke/figures/paper/summary"
    saves = {"summary": tuple(f"{folder}/seen.{kind}" for kind in ("png", "csv"))}
    jobs = [
        Job(f"runs/smoke/notebooks/{name}.ipynb", rule, saves.get(name, ()), "missing", "")
        for name, rule in (
            ("summary", "artefact_summary"),
            ("train-met-0", "train"),
            ("gan_choice", "artefact_gan_choice"),
        )
    ]
    lessons = home() / "lessons"
    lessons.mkdir(exist_ok=True)
    for name, text in (("01_first", "# Lesson 1: First\n\nNothing yet."), ("02_toy", LESSON)):
        code = new_code_cell("1 + 1", outputs=[new_output("execute_result", data={"text/plain": "a 2"})], id="b")
        cells = [new_markdown_cell(text, id="a"), code]
        nbformat.write(new_notebook(cells=cells, metadata=SPEC), lessons / f"{name}.ipynb")
    return make_book("smoke", jobs, lambda profile, names: dict.fromkeys(names, "gan"), lessons)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    "The folder of a book of two lessons and two chapters."
    place = tmp_path_factory.mktemp("book")
    patch = pytest.MonkeyPatch()
    patch.setenv("VBG_HOME", str(place))
    for name, cells in (("summary", FIRST), ("train-met-0", ("# Train", "print('epoch 1')"))):
        code = [new_code_cell("width = 1  # in fortieths", metadata={"tags": ["parameters"]})] + [
            new_code_cell(source) for source in cells[1:]
        ]
        nbformat.write(new_notebook(cells=[new_markdown_cell(cells[0]), *code], metadata=SPEC), place / f"{name}.ipynb")
        run_notebook(place / f"{name}.ipynb", place / "runs/smoke/notebooks" / f"{name}.ipynb", {"width": 2})
    figures = place / "runs/smoke/figures/paper/summary"
    figures.mkdir(parents=True)
    (figures / "seen.csv").write_text("a,b\n1,2\n")
    entry = dict(made_from=[], files={}, environment={})
    write_manifest(figures.parents[1], {f"paper/summary/{name}": entry for name in ("seen", "stray")}, "smoke")
    for name in ("seen", "stray"):
        Image.fromarray(np.random.default_rng(0).integers(255, size=(300, 700, 3), dtype=np.uint8)).save(
            figures / f"{name}.png"
        )
    yield made().parent
    patch.undo()


LESSONS = ("01_first.html", "02_toy.html")


class Links(HTMLParser):
    "Everything that a page loads or points at, its language, headings and images."

    def __init__(self, text):
        super().__init__()
        self.loads, self.points, self.ids, self.images, self.headings, self.language = [], [], set(), [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        has = dict(attributes)
        (self.points if tag == "a" else self.loads).extend(
            has[key] for key in ("href", "src", "srcset", "data", "action", "poster") if has.get(key)
        )
        self.ids |= {has["id"]} if "id" in has else set()
        self.images += [has] if tag == "img" else []
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.language = has.get("lang") if tag == "html" else self.language
        assert tag not in ("script", "iframe", "object", "embed"), tag


def pages(book):
    return {path.name: Links(path.read_text(encoding="utf-8")) for path in sorted(book.glob("*.html"))}


# ---- as files


def test_chapters_index_and_style_are_there_and_nothing_else(book):
    pages = [*LESSONS, "book.css", "index.html", "saved", "summary.html", "train-met-0.html"]
    assert sorted(p.name for p in book.iterdir()) == pages
    assert [p.name for p in (book / "saved").iterdir()] == ["seen.csv"]


def test_every_link_and_resource_is_in_the_folder(book):
    there = pages(book)
    for name, page in there.items():
        for target in page.loads + page.points:
            parts = urlsplit(target)
            if parts.scheme == "data" or (name in LESSONS and target == "https://example.org/sum"):
                continue
            assert not parts.scheme and not parts.netloc, f"{name}: {target[:80]}"
            assert not parts.path or (book / unquote(parts.path)).is_file(), f"{name}: {target}"
            assert not parts.fragment or parts.fragment in there[parts.path or name].ids, f"{name}: {target}"
    assert "url(" not in (book / "book.css").read_text() and "@import" not in (book / "book.css").read_text()


def test_each_chapter_leads_to_its_neighbours_and_the_index(book):
    there = pages(book)
    assert {"summary.html", "train-met-0.html"} <= set(there["index.html"].points)
    assert (
        there["summary.html"].points.count("train-met-0.html")
        == there["train-met-0.html"].points.count("summary.html")
        == 2
    )
    assert there["summary.html"].points.count("index.html") == 2


def test_pages_can_be_read_aloud(book):
    for name, page in pages(book).items():
        assert page.language == "en" and page.headings.count(1) == 1 and page.headings[0] == 1, name
        assert all(image.get("alt", "").strip() for image in page.images), name
        assert all(later - before <= 1 for before, later in zip(page.headings, page.headings[1:])), name


def test_cells_of_the_machinery_are_a_table_and_noise_is_left_out(book):
    text = (book / "summary.html").read_text(encoding="utf-8")
    assert re.findall(r"<td[^>]*>(?:<div>)?(.*?)(?:</div>)?</td>", text)[:3] == [
        "<code>2</code>",
        "<code>1</code>",
        "in fortieths",
    ]
    assert "a warning" not in text and "effective" not in text and "injected" not in text and "<style" not in text
    assert text.count("<math") == 2 and "<span>(4)</span>" in text and "mathrm" not in re.sub(r'alt="[^"]*"', "", text)


def test_lessons_stand_before_the_study_with_their_code_and_outputs(book):
    index, lesson = ((book / name).read_text(encoding="utf-8") for name in ("index.html", "02_toy.html"))
    at = [index.index(said) for said in ("<h2>Lessons</h2>", "01_first.html", "02_toy.html", "<h2>Tables</h2>")]
    assert at == sorted(at) and '<span class="claim">One and one.</span>' in index
    assert "a 2" in lesson and "<details" not in lesson
    assert '<a href="01_first.html">Lesson 1</a>, notes on sums, answers,' in lesson
    assert 'rel="next">What was seen &amp; counted' in lesson


def test_index_names_what_is_missing_and_what_nobody_made(book):
    text = (book / "index.html").read_text(encoding="utf-8")
    assert "<code>gan_choice</code>: <code>make gan PROFILE=smoke</code>" in text
    assert "<li><code>stray</code></li>" in text and "<li><code>seen</code></li>" not in text
    assert re.search(r'<code>seen</code><br><a href="summary.html">', text)
    assert re.search(r"<details><summary>1 notebook</summary>.*train-met-0.html", text, re.S)
    assert not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", text)


def test_same_notebooks_give_the_same_bytes(book):
    content = lambda: {p.name: p.read_bytes() for p in book.rglob("*") if p.is_file()}
    before = content()
    made()
    assert content() == before


# ---- in a browser


@browser
@pytest.mark.parametrize(
    "name, title, images",
    [
        ("index.html", "The executed study, profile smoke", 2),
        ("summary.html", "What was seen & counted – vbg, profile smoke", 1),
    ],
)
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
    broken.write_text(
        (book / "summary.html")
        .read_text(encoding="utf-8")
        .replace(
            "</main>",
            '<img src="absent.png" alt=""><img src="http://example.org/far.png" alt="">'
            '<div style="width:3000px">x</div></main>',
        ),
        encoding="utf-8",
    )
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
    assert (pixels == 255).all(1).mean() > 0.3 and (pixels == (200, 30, 30)).all(
        1
    ).sum() >= 80 * 30 * 0.9  # paper, and the red picture at its own size


@browser
def test_a_table_that_is_cut_has_a_shadow_there_and_no_other_has(book, tmp_path):
    tables, _ = probed(book / "summary.html", tmp_path, 800, TABLES)
    shown(book / "summary.html", tmp_path, f"--screenshot={tmp_path / 'shot.png'}", width=800)
    with Image.open(tmp_path / "shot.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert [cut for cut, *_ in tables] == [False, True]  # the parameters fit, the 20 columns do not
    for cut, left, right, top, bottom in tables:
        assert bottom < len(pixels)
        dark = [np.mean((pixels[top:bottom, x] < 200).all(1)) for x in (left, right - 1)]  # share of the edge
        assert dark[0] < 0.3 and (dark[1] > 0.9) == cut, (cut, dark)


# ---- the real plan, on a finished smoke study


@pytest.fixture(scope="module")
def whole(own_home, smoke_plan):
    "Its index; the names of the notebooks in the plan of each rule; the make target that is named for each notebook."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBG_HOME", str(own_home))
        ask = functools.partial(targets_of, plan=lambda profile, rules: smoke_plan(*rules))
        index = make_book("smoke", smoke_plan("everything"), ask)
        text = index.read_text(encoding="utf-8")
        shutil.rmtree(index.parent)
        names = {rule: {job.name for job in smoke_plan(rule)} for rule in ("everything", *MAKE_TARGETS)}
        return text, names, ask("smoke", sorted(names["everything"]))


def test_every_table_and_figure_has_its_chapter(whole):
    text, _, _ = whole
    assert "Made by no chapter" not in text and "no chapter of this book" not in text
    for artefact, page in (
        ("fig7_curves_met", "fig7_heatmap-met"),
        ("per_class_recall", "per_class"),
        ("loop_samples_coco", "loop"),
        ("fig1_architecture", "fig1_architecture"),
    ):
        assert re.search(rf'<code>{artefact}</code><br><a href="{page}.html">', text), artefact


def test_the_command_beside_a_missing_notebook_runs_it(whole, smoke_home):
    text, names, _ = whole
    there = {path.stem for path in (smoke_home / "runs/smoke/notebooks").glob("*.ipynb")}
    said = dict(re.findall(r"<li><code>([^<]+)</code>: <code>make ([\w-]+) PROFILE=smoke</code></li>", text))
    assert (
        {"gan_scarcity", "recipe_search", "loop_choice"}
        | {
            f"{search}-{dataset}"
            for search in ("learning_rates", "baseline_learning_rates")
            for dataset in ("met", "coco")
        }
        <= said.keys()
        == {name for name in names["everything"] if "/" not in name} - there
    )
    rule_of = dict(
        re.findall(
            r"^([\w-]+): install(?: \$\(ENCODERS\))?\n(?:\t.*\n)*?\t@\$\(SNAKE\) (\w+)$",
            (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(if $(QUICK),quick,all)", "all"),
            re.M,
        )
    )
    assert rule_of.pop("everything") == "everything"  # all of them
    assert MAKE_TARGETS == {rule: target for target, rule in rule_of.items()} | {"seeds": "everything"}
    rule_of["everything"] = "seeds"  # what it alone asks for
    for name, target in said.items():
        assert name in names[rule_of[target]], (name, target)


def test_each_notebook_has_the_first_target_that_runs_it(whole):
    _, names, target = whole
    assert target.keys() == names["everything"]
    wanted = {
        "per_class": "reproduce",
        "calibration": "reproduce",
        "gan-met-attributes-0-0": "reproduce",
        "gan-met-attributes-25-0": "scarcity",
        "gan-coco-attributes-200-0": "scarcity",
        "gan-met-class-0-0": "gan",
        "language_model-met": "supplement",
        "fig7_heatmap-coco": "explain",
        "loop_choice": "loop-choice",
        "recipe_search": "recipe",
        "learning_rates-met": "recipe",
        "audit": "reproduce",
    }
    assert {name: target.get(name) for name in wanted} == wanted


def test_chapters_stand_in_their_group(whole):
    text, _, _ = whole
    group = lambda name: re.findall(r"<h2>(.*?)</h2>", text[: text.index(f'href="{name}.html"')])[-1]
    wanted = {
        "calibration": "Tables",
        "per_class": "Tables",
        "audit": "Audit",
        "loop": "GAN",
        "fig4_gan": "Figures",
        "input_ablation": "Supplement",
        "gan-met-attributes-0-0": "Training logs",
        "decision_report-met": "Words and decisions",
    }
    wanted |= {path.stem: "Lessons" for path in sorted((ROOT / "nbs" / "lessons").glob("*.ipynb"))}
    assert {name: group(name) for name in wanted} == wanted and "Run by no target" not in text
