"""What a change of code asks to be run again: the Snakefile of an edited copy, on a finished smoke study.

Nothing is run."""

import json
import shutil
import subprocess
from types import SimpleNamespace

import pytest
from conftest import ROOT, Plans, smoke_targets

from vbg.runs.workflow import TRAINS

CODE = "\nprint\n"  # a statement of the module: counts wherever the module is used
WORDS = '\n# A comment of a test.\n"A string that is no code."\n'


@pytest.fixture(scope="module")
def project(tmp_path_factory, smoke_home):
    "A copy of the tracked files of the project, and what tells its plans."
    folder = tmp_path_factory.mktemp("project")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [n for n in listed.split("\0") if n and (ROOT / n).is_file() and not n.startswith("figures/")]
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    with Plans(smoke_home, folder) as plans:
        yield SimpleNamespace(folder=folder, plans=plans, files=files)


@pytest.fixture
def copy(project):
    "That copy, to be edited."
    yield project.folder
    for name in project.files:
        if (project.folder / name).stat().st_mtime_ns != (ROOT / name).stat().st_mtime_ns:
            shutil.copy2(ROOT / name, project.folder / name)


def again(project, targets=None):
    "The rules that the copy would run again on a finished study, and those that it would not."
    jobs = project.plans(*(targets or smoke_targets()))
    assert jobs
    return {job.rule for job in jobs if job.state != "done"}, {job.rule for job in jobs if job.state == "done"}


def edit(copy, module, text):
    with open(copy.joinpath("vbg", *module.split(".")).with_suffix(".py"), "a", encoding="utf-8") as handle:
        handle.write(text)


def docstring(copy, module, function):
    "Put other words into a function's docstring."
    path = copy.joinpath("vbg", *module.split(".")).with_suffix(".py")
    head, rest = path.read_text(encoding="utf-8").split(f"\ndef {function}(", 1)
    signature, tail = rest.split('\n    "', 1)
    path.write_text(f'{head}\ndef {function}({signature}\n    "Other words. {tail}', encoding="utf-8")


def test_a_comment_or_a_docstring_runs_nothing_again(copy, project):
    for module, function in (("data.leaks", "leak_table"), ("data.sets", "study_data")):
        edit(copy, module, WORDS)
        docstring(copy, module, function)
    changed, _ = again(project)
    assert changed == set()


def test_the_leak_audit_is_its_own_job(copy, project):
    edit(copy, "data.leaks", CODE)
    changed, _ = again(project)
    assert changed == {"artefact_label_leaks"}


def test_a_table_is_drawn_again_without_training(copy, project):
    edit(copy, "stats.comparison", CODE)
    changed, rest = again(project)
    assert "artefact_table3_comparison" in changed and not changed & set(TRAINS)
    assert {"data", "train", "artefact_label_leaks"} <= rest


def test_another_model_is_trained_again(copy, project):
    edit(copy, "models.vbg", CODE)
    changed, rest = again(project)
    assert {"train", "artefact_table3_comparison"} <= changed and "train" not in rest  # every seed on every set


@pytest.mark.parametrize(
    "notebook, module, wanted",
    [
        ("train", None, {"train", "experiment"}),
        ("gan", None, {"gans", "train"}),
        ("gan_measured", None, {"gans_measured", "artefact_gan_samples"}),
        ("language_model", "models.adaptation", {"language_model"}),
        (None, "train.gan_jobs", {"gans", "gans_measured", "train"}),
    ],
)
def test_a_notebook_that_trains_is_run_again_when_it_or_its_module_changes(copy, project, notebook, module, wanted):
    if notebook:
        path = copy / "nbs" / "study" / "train" / f"{notebook}.ipynb"
        executed = json.loads(path.read_text(encoding="utf-8"))
        next(cell for cell in executed["cells"] if cell["cell_type"] == "code" and not cell["metadata"].get("tags"))[
            "source"
        ].append(CODE)
        path.write_text(json.dumps(executed), encoding="utf-8")
    if module:
        edit(copy, module, CODE)
    changed, rest = again(project)
    assert wanted <= changed and "data" in rest, (changed, rest)


def test_a_drawing_knows_every_module_that_its_notebook_imports(copy, project):
    "None is named by hand: `explain` opens the model of Fig. 1, `figures` saves the table of leaks."
    drawn = smoke_targets(extras=())  # the others measure, too
    edit(copy, "explain.restore", CODE)
    changed, rest = again(project, drawn)
    assert {"artefact_fig1_architecture", "artefact_fig7_heatmap"} <= changed and {
        "train",
        "artefact_label_leaks",
        "artefact_table3_comparison",
    } <= rest
    edit(copy, "results.publish", CODE)
    changed, rest = again(project, drawn)
    assert {
        "artefact_label_leaks",
        "artefact_table3_comparison",
        "artefact_fig1_architecture",
    } <= changed and not changed & set(TRAINS)
