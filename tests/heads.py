"""Where each notebook stands. The head of a module links its neighbours, those it reads and those that read it.
The head of a study notebook links the modules it reads and what it saved in `figures/mini`.

`python tests/heads.py --write` writes the line into every head (`make export` does). Without it, the script names the
heads whose line is out of date and exits with 1."""

import argparse
import ast
import json
import os
import re
import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from vbg.core.artefacts import ARTEFACTS  # noqa: E402
from vbg.core.places import committed_place  # noqa: E402
from vbg.runs.version import imports_of  # noqa: E402

# A package imports only those before it.
PACKAGES = ("core", "stats", "runs", "data", "models", "gan", "train", "results", "explain", "reports")
MARK, MOST = "**Where it stands.**", 6


def code_of(path):
    "The code cells of a notebook, joined."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code")


def module_of(path):
    "Dotted name of the module that a notebook exports, or None."
    found = re.search(r"^#\|\s*default_exp\s+([\w.]+)", code_of(path), re.M)
    return found and found.group(1)


def link(title, target, path):
    "A Markdown link from one notebook to another file."
    return f"[`{title}`]({os.path.relpath(target, path.parent).replace(os.sep, '/')})"


def reading_order(paths):
    "Notebooks in the order of the packages, a folder's own before those of its subfolders' parents."
    return sorted(paths, key=lambda path: (PACKAGES.index(path.relative_to(ROOT / "nbs").parts[0]), path.as_posix()))


def imports_by_module():
    "Module -> the modules of vbg that it imports."
    found = {}
    for file in sorted((ROOT / "vbg").rglob("*.py")):
        *package, name = file.relative_to(ROOT / "vbg").with_suffix("").parts
        if not name.startswith("_"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            found[".".join([*package, name])] = {path for path, _ in imports_of(tree, ".".join(package))}
    return found


def module_lines(places):
    "Module notebook -> the line that its head shall hold."
    reads, order = imports_by_module(), [*places]
    lines = {}
    for k, (module, path) in enumerate(places.items()):
        linked = partial(lambda other, path: link(other, places[other], path), path=path)
        readers = [other for other in order if module in reads[other]]
        packages = list(dict.fromkeys(other.split(".")[0] for other in readers))
        told = {
            "reads": ", ".join(linked(other) for other in order if other in reads[module]) or "nothing of the project",
            "read by": ", ".join(map(linked, readers))
            if len(readers) <= MOST
            else f"{len(readers)} modules of {', '.join(packages)}",
            "before": linked(order[k - 1]) if k else "",
            "after": linked(order[k + 1]) if k + 1 < len(order) else "",
        }
        if not readers:
            told["read by"] = "the study notebooks and the command line"
        lines[path] = joined(told)
    return lines


def study_lines(places):
    "Study notebook -> the line that its head shall hold: its own part's modules first."
    lines = {}
    for path in sorted((ROOT / "nbs" / "study").rglob("*.ipynb")):
        asked = {name for name, _ in imports_of(ast.parse(code_of(path)))}
        reads = [module for module in reversed(places) if module in asked]
        rest = sorted({module.split(".")[0] for module in reads[MOST:]}, key=PACKAGES.index)
        more = [f"more of {', '.join(rest)}"] * bool(rest)
        profile = "collection-commons-museum" if path.stem == "small_collection" else "mini"
        artefact = ARTEFACTS.get(path.stem)
        saved = artefact and ROOT / committed_place(profile, artefact.group, path.stem)
        told = {
            "reads": ", ".join([link(module, places[module], path) for module in reads[:MOST]] + more),
            "saved": link(saved.relative_to(ROOT).as_posix(), saved, path) if saved and saved.is_dir() else "",
        }
        lines[path] = joined(told)
    return lines


def joined(
    told,  # word -> what it says, "" for nothing
):
    "One line of a head."
    return f"{MARK} " + " · ".join(f"{word}: {value}" for word, value in told.items() if value)


def expected_lines():
    "Notebook -> the line that its head shall hold."
    notebooks = [path for package in PACKAGES for path in (ROOT / "nbs" / package).rglob("*.ipynb")]
    places = {module_of(path): path for path in reading_order(notebooks)}
    return module_lines(places) | study_lines(places)


def out_of_date(
    write,  # write the lines into the notebooks
):
    "Notebooks whose head did not hold its line."
    stale = []
    for path, line in expected_lines().items():
        notebook = json.loads(path.read_text(encoding="utf-8"))
        head = "".join(notebook["cells"][0]["source"]).split("\n")
        if line in head:
            continue
        stale.append(path.relative_to(ROOT).as_posix())
        kept = [part for part in head if not part.startswith(MARK)]
        claim = max(k for k, part in enumerate(kept) if part.startswith(">"))
        rest = "\n".join(kept[claim + 1 :]).strip("\n")
        text = "\n".join(kept[: claim + 1]) + f"\n\n{line}" + (f"\n\n{rest}" if rest else "")
        notebook["cells"][0]["source"] = text.splitlines(True)
        if write:
            path.write_text(json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return stale


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the lines into the notebooks")
    write = parser.parse_args().write
    stale = out_of_date(write)
    if stale and not write:
        sys.exit("run `make export`: these heads do not say where their notebook stands\n  " + "\n  ".join(stale))
    print(f"heads: {len(stale)} written" if write else "heads: all notebooks say where they stand")


if __name__ == "__main__":
    main()
