"""Every lesson and its solutions run; each has goals, minutes, pictures, and exercises whose solutions are checked."""

import ast
import re
import textwrap

import nbformat
import pytest
from conftest import ROOT, run_notebooks

from vbg.core.places import weights_file
from vbg.data.sets import study_folders
from vbg.explain.lessons import ALIKE, FOLDER, MODEL
from vbg.runs.made import read_note, why_broken

LESSONS = sorted((ROOT / "nbs" / "lessons").glob("*.ipynb"))
PARTS = ("Try it", "What we measured", "Exercises", "Key points", "Further reading")
each = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def solution_of(path):
    return path.parent / "solutions" / path.name


def cells(path):
    return nbformat.read(path, as_version=4).cells


def text_of(path):
    "The Markdown of a notebook."
    return "\n\n".join(cell.source for cell in cells(path) if cell.cell_type == "markdown")


def exercises(path):
    "Title -> the sources of the code cells below it, until the next exercise or part."
    found, title = {}, None
    for cell in cells(path):
        if cell.cell_type == "code":
            if title:
                found[title].append(cell.source)
            continue
        heads = re.findall(r"^##+ (.*)", cell.source, re.M)
        title = heads[-1] if heads and heads[-1].startswith("Exercise ") else None if heads else title
        found |= {title: []} if heads and title else {}
    return found


def checks(source):
    "The lines of the checks that wait for an answer: what stands below `if answer is not ...:`."
    tree = ast.parse(source)
    waits = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test).endswith("is not ...")]
    lines = source.splitlines()
    return [
        line
        for node in waits
        for line in textwrap.dedent("\n".join(lines[node.body[0].lineno - 1 : node.end_lineno])).splitlines()
    ]


@pytest.fixture(scope="module")
def rendered():
    "The objects of the lessons, drawn once where they lie for the lessons too."
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("VBG_HOME", raising=False)
        patch.chdir(ROOT)
        return study_folders("mini", "met")


@each
def test_a_lesson_and_its_solutions_run(path, rendered, tmp_path):
    run_notebooks(tmp_path / "said.txt", path, solution_of(path), timeout=600)


def test_lessons_are_numbered_and_each_has_its_solutions():
    assert len({path.stem[:2] for path in LESSONS}) == len(LESSONS) and all(
        1 <= int(path.stem[:2]) <= 12 for path in LESSONS
    )
    solved = sorted((ROOT / "nbs" / "lessons" / "solutions").glob("*.ipynb"))
    assert solved == [solution_of(path) for path in LESSONS]


@each
def test_a_lesson_says_what_it_teaches_and_how_long_it_takes(path):
    text, head = text_of(path), cells(path)[0].source
    assert re.match(rf"# Lesson {int(path.stem[:2])}: \S", head)
    goals = re.search(r"\*\*Goals\.\*\*.*\n((?:- .*\n)+)", head)
    assert goals and 3 <= goals[1].count("- ") <= 4
    assert 20 <= int(re.search(r"^\*\*Minutes\*\*: (\d+)$", head, re.M)[1]) <= 60
    assert re.search(r"^\*\*Before\*\*: .*\]\(", head, re.M)
    heads = re.findall(r"^## (.*)", text, re.M)
    assert [part for part in heads if part in PARTS] == list(PARTS)
    reading = text.partition("## Further reading")[2]
    assert len(re.findall(r"\]\(https://", reading)) >= 3


@each
def test_a_lesson_shows_six_pictures(path):
    "Each with a title and named axes or ticks that name what stands there."
    shown = [c for c in cells(path) if any("image/png" in o.get("data", {}) for o in c.get("outputs", []))]
    assert len(shown) >= 6
    for cell in shown:
        assert "title" in cell.source, cell.source
    for path_ in (path, solution_of(path)):
        said = [o for c in cells(path_) if c.cell_type == "code" for o in c.outputs]
        assert not [o for o in said if o.output_type == "error" or o.get("name") == "stderr"]


@each
def test_every_exercise_has_a_solution_that_passes_the_check_of_the_lesson(path):
    asked, solved = exercises(path), exercises(solution_of(path))
    assert list(asked) == list(solved) and 3 <= len(asked) <= 5
    for title, sources in asked.items():
        wanted, given = checks("\n".join(sources)), "\n".join(solved[title]).splitlines()
        assert any(line.startswith("assert ") for line in wanted), f"{title} has no check"
        assert not [line for line in wanted if line.strip() and line not in given], title
        assert " = ..." in "\n".join(sources) and " = ..." not in "\n".join(solved[title]), title


def test_the_model_of_the_lessons_is_whole_and_decides_as_the_run_did():
    note = weights_file(FOLDER, MODEL).with_suffix(".json")
    assert why_broken(note) is None
    held = read_note(note)
    assert held["validation"]["same_class"] >= ALIKE and note.with_suffix(".safetensors").stat().st_size <= 700_000


def test_the_model_of_the_lessons_scores_on_the_validation_what_its_note_says(rendered, monkeypatch):
    from vbg.explain.lessons import lesson_model
    from vbg.explain.restore import items_of
    from vbg.models.batches import predict

    monkeypatch.delenv("VBG_HOME", raising=False)
    monkeypatch.chdir(ROOT)
    found = lesson_model()
    data = items_of(found, "validation")
    told = read_note(weights_file(FOLDER, MODEL).with_suffix(".json"))["validation"]
    right = (predict(found.model, data).argmax(1) == data.label).mean()
    assert right == pytest.approx(told["accuracy"], abs=1.5 / told["items"])  # another processor adds up otherwise
