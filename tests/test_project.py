"""What the project promises about itself: pins that agree, notebooks in the house style, pages as they are made."""

import ast
import csv
import os
import re
import shlex
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
import yaml
from heads import PACKAGES, imports_by_module, module_of
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
STUDY = [p for p in NOTEBOOKS if p.parent.parent.name == "study"]
LESSONS = [p for p in NOTEBOOKS if (ROOT / "nbs" / "lessons") in p.parents]
MODULES = [p for p in NOTEBOOKS if p not in STUDY + LESSONS and p.name != "index.ipynb"]


def read_settings():
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return config["DEFAULT"]


def pins():
    lines = (line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    wanted = (Requirement(line) for line in lines if line)
    return {canonicalize_name(r.name): str(next(iter(r.specifier)).version) for r in wanted}


def cells(path, kind="code"):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == kind]


@pytest.mark.parametrize("field", ["requirements", "dev_requirements", "pretrained_requirements"])
def test_every_requirement_is_pinned_inside_its_range(field):
    for word in read_settings()[field].split():
        requirement = Requirement(word)
        name = canonicalize_name(requirement.name)
        assert name in pins(), f"{name} of settings.ini has no line in constraints.txt"
        assert requirement.specifier.contains(pins()[name]), (
            f"constraints.txt pins {name} {pins()[name]}, settings.ini wants {requirement}"
        )


def test_constraints_are_exact():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.\-]+==[\w.!+]+", line) for line in lines)
    assert len(lines) == len(pins())


def test_environment_file_uses_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert "--constraint constraints.txt" in pip and "--editable .[dev]" in pip
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    python = next(d for d in conda if d.startswith("python="))
    assert python == f"python={read_settings()['min_python']}"
    for word in conda:  # a version that conda pins is the version that pip pins
        name, _, version = word.partition("=")
        assert name in ("python", "pip") or not version or pins().get(canonicalize_name(name)) == version.lstrip("=")


def test_installed_versions_are_the_pinned_ones():
    from importlib.metadata import version

    for word in read_settings()["requirements"].split() + read_settings()["dev_requirements"].split():
        name = canonicalize_name(Requirement(word).name)
        assert version(name).split("+")[0] == pins()[name], f"{name}: rerun `make install`"


@pytest.mark.parametrize("path", STUDY, ids=lambda p: p.stem)
def test_study_notebook_has_one_parameters_cell_of_literals(path):
    tagged = [c for c in cells(path) if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    for node in ast.parse(tagged[0].source).body:
        assert isinstance(node, ast.Assign)
        ast.literal_eval(node.value)
    assert nbformat.read(path, as_version=4).metadata.kernelspec.language == "python"


@pytest.mark.parametrize("path", STUDY, ids=lambda p: p.stem)
def test_study_notebook_is_bare_and_holds_no_logic(path):
    for cell in cells(path):
        assert not cell.outputs and cell.execution_count is None
        tree = ast.parse(cell.source)
        logic = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.If, ast.Lambda)
        assert not any(isinstance(node, logic) for node in ast.walk(tree)), cell.source
        if path.stem not in (
            *("train", "domains", "language_model", "gan", "gan_measured", "loop", "gan_choice", "gan_ladder"),
        ):
            assert not re.search(
                r"train_runs|train_across|adapt_runs|train_gans|measure_gans|loop_runs|choice_gans|ladder_gans"
                r"|ladder_runs|\bfit\(",
                cell.source,
            )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_light(path):
    assert path.stat().st_size <= 200_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_text_cells_are_100_words_at_most(path):
    "Rows of tables and the line of links that `make export` writes are not counted."
    for cell in cells(path, "markdown"):
        told = [line for line in cell.source.splitlines() if not re.match(r"\s*\||\*\*Where it stands\.", line)]
        assert len(" ".join(told).split()) <= 100, cell.source


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_export_cells_are_short(path):
    "40 lines at most, tables of settings and classes included."
    lengths = [len(c.source.splitlines()) for c in cells(path) if re.match(r"#\s*\|\s*exporti?\b", c.source)]
    assert max(lengths, default=0) <= 40, f"an export cell of {max(lengths)} lines"


def test_the_package_holds_what_the_notebooks_export_and_nothing_else():
    files = sorted(
        p.relative_to(ROOT / "vbg").as_posix() for p in (ROOT / "vbg").rglob("*.py") if not p.name.startswith("_")
    )
    assert files == sorted(module_of(path).replace(".", "/") + ".py" for path in MODULES)
    assert {p.parent for p in (ROOT / "vbg").rglob("__init__.py")} == {
        ROOT / "vbg",
        *((ROOT / "vbg" / name).parent for name in files),
    }


def test_notebooks_lie_in_the_folder_of_their_package_and_are_numbered_from_01():
    for folder in {path.parent for path in MODULES}:
        here = sorted(path for path in MODULES if path.parent == folder)
        assert [path.name[:3] for path in here] == [f"{k:02}_" for k in range(1, len(here) + 1)], folder
        for path in here:
            assert module_of(path).split(".") == [*path.relative_to(ROOT / "nbs").parts[:-1], path.stem[3:]], path
    assert {path.relative_to(ROOT / "nbs").parts[0] for path in MODULES} == {*PACKAGES}


def test_imports_go_down_the_list_of_packages():
    found = imports_by_module()
    for module, imported in found.items():
        assert imported <= {*found}, f"{module} imports {sorted(imported - {*found})}, which is no module"
        for other in imported:
            assert PACKAGES.index(other.split(".")[0]) <= PACKAGES.index(module.split(".")[0]), (
                f"{module} imports {other}, which comes later"
            )


def test_packages_stand_on_eight_floors_at_most():
    below = {package: set() for package in PACKAGES}
    for module, imported in imports_by_module().items():
        below[module.split(".")[0]] |= {other.split(".")[0] for other in imported} - {module.split(".")[0]}
    floor = {}
    for package in PACKAGES:
        floor[package] = 1 + max((floor[other] for other in below[package]), default=0)
    assert max(floor.values()) <= 8, floor


def test_a_module_imports_only_earlier_notebooks_of_its_folder():
    place = {module_of(path): (path.parent, path.name) for path in MODULES}
    for module, imported in imports_by_module().items():
        for other in imported:
            assert place[other][0] != place[module][0] or place[other][1] < place[module][1], (
                f"{module} imports {other}, which stands after it"
            )


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_notebook_that_turns_gradients_off_turns_them_on_again(path):
    "`nbdev_test` runs several notebooks in one process, and this switch outlives a notebook."
    switched = re.findall(r"set_grad_enabled\((True|False)\)", "\n".join(c.source for c in cells(path)))
    assert not switched or switched[-1] == "True", path.name


def private_names(code):
    "The private names of vbg that some code imports, reads or replaces, and those within its strings."
    nodes, found, imported = [*ast.walk(ast.parse(code))], [], set()
    hidden = lambda name: (
        re.match("_[^_]", name) and name not in ("_asdict", "_fields", "_make", "_replace")
    )  # of tuples
    for node in nodes:
        path = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        for name in node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else ():
            if (path or name.name).split(".")[0] == "vbg":
                imported.add((name.asname or name.name).split(".")[0])
                found += [f"{path}.{name.name}"] * bool(hidden(name.name))
    of_vbg = lambda node: re.fullmatch(r"[\w.]+", said := ast.unparse(node)) and said.split(".")[0] in imported
    for node in nodes:
        if isinstance(node, ast.Attribute) and hidden(node.attr) and of_vbg(node.value):
            found.append(ast.unparse(node))
        if isinstance(node, ast.Call) and len(node.args) > 1 and of_vbg(node.args[0]):  # such as `monkeypatch.setattr`
            name = getattr(node.args[1], "value", None)
            found += [name] * (isinstance(name, str) and re.fullmatch(r"_[a-z]\w*", name) is not None)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += re.findall(r"from vbg[\w.]* import .*?\b(_[a-z]\w*)", node.value)
            found += re.findall(r"\bvbg(?:\.\w+)*\._[a-z]\w*", node.value)
    return found


@pytest.mark.parametrize(
    "code, name",
    [
        ("from vbg.core.files import home, {}", "vbg.core.files.{}"),
        ("CODE = 'from vbg.core.files import home, {}'", "{}"),
        ("from vbg.core import files as f\nf.{}()", "f.{}"),
        ("import vbg.core.files\nvbg.core.files.{}", "vbg.core.files.{}"),
        ("def test():\n    from vbg.core import files\n    patch.setattr(files, '{}', None)", "{}"),
        ("patch.setattr('vbg.core.files.{}', None)", "vbg.core.files.{}"),
        ("from vbg.core import files\nfiles.home()._{0}, other.{0}, files.__{0}__", None),
    ],
)
def test_a_private_name_is_found(code, name):
    assert private_names(code.format("_x")) == ([name.format("_x")] if name else [])


def test_no_test_uses_a_private_name_of_the_package():
    found = {path.name: private_names(path.read_text(encoding="utf-8")) for path in (ROOT / "tests").glob("*.py")}
    assert not any(found.values()), {name: names for name, names in found.items() if names}


def test_no_module_uses_a_private_name_of_another():
    exported = lambda path: [c.source for c in cells(path) if re.match(r"#\s*\|\s*exporti?\b", c.source)]
    found = {module_of(path): private_names("\n".join(exported(path))) for path in MODULES}
    assert not any(found.values()), {name: names for name, names in found.items() if names}


def test_readme_is_made_from_the_index_notebook():
    from vbg.results.publish import readme_text

    assert (ROOT / "README.md").read_text(encoding="utf-8") == readme_text(ROOT / "nbs" / "index.ipynb"), (
        "run `make readme`"
    )


def test_readme_is_two_screens_with_a_figure_and_the_commands_first():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 100 and len(text.split()) <= 900
    first_screen = "\n".join(text.splitlines()[:40])
    assert "make reproduce" in first_screen and "make test" in first_screen
    assert re.findall(r"!\[[^\]]+\]\(([^)]+)\)", first_screen)


def test_readme_shows_what_its_cells_give_today():
    "Its numbers are those of the committed tables, its map leads to the notebooks where they lie now."
    namespace = {}
    for cell in cells(ROOT / "nbs" / "index.ipynb"):
        if cell.cell_type == "code":
            *before, last = ast.parse(cell.source).body
            exec(compile(ast.Module(before, []), "index", "exec"), namespace)
            shown = eval(compile(ast.Expression(last.value), "index", "eval"), namespace)
            assert "".join(cell.outputs[0]["data"]["text/markdown"]) == shown.data, "run `make readme`"


def test_numbers_of_the_readme_are_those_of_the_committed_tables():
    from vbg.reports.results_page import SHOWN, figure_file
    from vbg.results.publish import TESTS

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for title, (name, model) in SHOWN.items():
        row = next(line for line in readme.splitlines() if line.startswith(f"| {title} "))
        with figure_file(f"{name}.csv").open(encoding="utf-8") as file:
            rows = [r for r in csv.DictReader(file) if r["model"] == model]
        judged = TESTS["large"] if TESTS["large"] in {r["test"] for r in rows} else TESTS["test"]
        wanted = [r["accuracy, % (paper)"] for r in rows if r["test"] == judged]
        assert [cell.strip() for cell in row.strip("|").split("|")[1:]] == wanted and len(wanted) == 2


def test_every_interval_in_the_text_of_the_readme_stands_in_a_committed_table():
    "As it is, or as a loss: with the other sign."
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tables = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "figures").rglob("*.md"))
    text = "\n".join(line for line in readme.splitlines() if not line.startswith("|"))
    found = re.findall(r"(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]", text)
    assert len(found) >= 6
    turn = lambda number: number.removeprefix("-") if number.startswith("-") else f"-{number}"
    for mean, low, high in found:
        said, turned = f" {mean} [{low}, {high}] ", f" {turn(mean)} [{turn(high)}, {turn(low)}] "
        assert said in tables or turned in tables, said


def test_results_page_is_made_from_the_committed_tables():
    from vbg.reports.results_page import results_markdown

    page = ROOT / "figures" / "mini" / "RESULTS.md"
    assert page.read_text(encoding="utf-8") == results_markdown("mini"), "run `make results`"


def anchors(text):
    "The anchors that headings of Markdown have on a page."
    heads = re.findall(r"^#+ +(.+?) *$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", head).lower()).replace(" ", "-") for head in heads}


def prose(path):
    "Markdown of a page or of a notebook."
    if path.suffix == ".ipynb":
        return "\n\n".join(c.source for c in cells(path, "markdown"))
    return path.read_text(encoding="utf-8")


PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md", "figures/mini/RESULTS.md")]


@pytest.mark.parametrize("path", [*PAGES, *sorted((ROOT / "nbs").rglob("*.ipynb"))], ids=lambda p: p.stem)
def test_every_relative_link_leads_somewhere(path):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", prose(path), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target) or target.startswith("attachment:"):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / unquote(file)).resolve() if file else path
        assert there.exists(), f"{path.name} links to {target}"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there.read_text(encoding="utf-8")), f"{path.name} links to {target}"


def test_module_notebooks_link_the_originals_of_what_they_implement():
    "Without a link to the outside are only those that implement nothing published: paths, plans, pages."
    alone = [path.stem for path in MODULES if not re.search(r"\]\(https?://(?!example\.)", prose(path))]
    assert len(alone) <= 13, alone


def test_light_modules_start_without_torch():
    heavy = "{'torch', 'transformers', 'datasets'}"
    code = f"import sys, vbg.core.profiles, vbg.runs.store; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]", "Snakemake reads these modules at every call"


def test_make_sets_one_thread_a_job_and_no_hub_unless_the_profile_needs_it():
    env = {
        key: value
        for key, value in os.environ.items()
        if key not in ("HF_HUB_OFFLINE", "PROFILE", "MAKEFLAGS", "MAKELEVEL")
    }
    for profile, offline in (("mini", 1), ("smoke", 1), ("paper", 0)):
        command = ["make", "-n", "reproduce", f"PROFILE={profile}"]
        said = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
        assert "OMP_NUM_THREADS=1" in said and f"HF_HUB_OFFLINE={offline}" in said


TARGETS = re.search(r"^\.PHONY:((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.M)[1].replace("\\\n", " ").split()


@pytest.mark.parametrize("target", TARGETS)
def test_every_command_of_a_make_target_has_words_that_its_parser_knows(target, monkeypatch):
    from vbg.reports.command import parser
    from vbg.runs.workflow import refuse_unknown

    env = {
        key: value for key, value in os.environ.items() if key not in ("PROFILE", "TARGETS", "MAKEFLAGS", "MAKELEVEL")
    }
    said = subprocess.run(["make", "-n", target], cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    calls = [line.partition(" -m vbg.reports.command ")[2] for line in said.splitlines()]
    monkeypatch.setenv(
        "VBG_FOLDER", "/mnt/x" * target.startswith("collection")
    )  # as `make collection FOLDER=...` exports it
    for call in filter(None, calls):
        asked = parser().parse_args(shlex.split(call))
        refuse_unknown(getattr(asked, "targets", []))
    assert any(calls) or target in ("help", "install", "export", "test", "test-slow")


def test_tracked_files_hold_no_machine_paths():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
    for name in filter(None, tracked):
        path = ROOT / name
        if path.suffix in (".py", ".ipynb", ".md", ".yml", ".ini", ".toml", ".json", ".csv", "") and path.is_file():
            text = path.read_text(encoding="utf-8", errors="ignore")
            found = re.search(r"(?<![\w.])/(home/\w+|work|root|Users/\w+)/\w", text)
            assert not found, f"{name}: {text[max(0, found.start() - 40) : found.end() + 40]!r}"


@pytest.mark.parametrize("path", STUDY, ids=lambda p: p.stem)
def test_every_figure_has_a_caption_that_says_of_how_many(path):
    every = nbformat.read(path, as_version=4).cells
    for place, cell in enumerate(every):
        if cell.cell_type == "code" and re.search(r"save_figure\(|save_sheets\(|save_round_sheets\(", cell.source):
            beside = " ".join(c.source for c in every[max(0, place - 1) : place + 2] if c.cell_type == "markdown")
            assert re.search(r"\b(seeds?|items?|images?|runs?|batch|parameters)\b", beside), (
                f"no caption beside {cell.source!r}"
            )


@pytest.mark.parametrize("path", [p for p in STUDY if p.parent.name != "train"], ids=lambda p: p.stem)
def test_the_head_of_a_study_notebook_names_the_files_and_the_folder_that_it_saves(path):
    from vbg.core.artefacts import ARTEFACTS
    from vbg.core.places import figures_place

    artefact, profile = ARTEFACTS[path.stem], "collection-<name>" if path.stem == "small_collection" else "<profile>"
    head = next(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
    claim = next(line for line in head.splitlines() if line.startswith(">"))
    named = [place for place in re.findall(r"`(runs/[^`]*)`", claim) if "/figures/" in place]
    assert named == [f"{figures_place(profile, artefact.group, path.stem).as_posix()}/"]
    stems = {name.removesuffix(".html").partition(".")[0] for name in artefact.files("<dataset>")}
    assert stems <= set(re.findall(r"`([^`]*)`", claim.replace(".html`", "`"))), claim


def test_the_heads_of_the_training_notebooks_name_the_folders_of_runs_and_gans():
    from vbg.core.places import checkpoint_place, gans_place, run_place

    wanted = {
        "train": run_place("<store>", "<dataset>", "<model>", "<k>"),
        "domains": run_place("<store>", "<dataset>", "<model>", "<k>"),
        "gan": gans_place("<store>", "<dataset>") / "<conditioning>" / "gan<k>",
        "gan_measured": gans_place("<store>", "<dataset>") / "<conditioning>" / "gan<k>",
        "language_model": checkpoint_place("<store>", "<dataset>", "<k>"),
    }
    for name, place in wanted.items():
        assert f"`{place.as_posix()}/`" in prose(ROOT / "nbs" / "study" / "train" / f"{name}.ipynb"), name
