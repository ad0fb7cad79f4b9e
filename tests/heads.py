"""Where each module notebook stands: its head links the notebooks beside it, those it reads and those that read it.

`python tests/heads.py --write` writes the line into every head (`make export` does). Without it, the script names the
heads whose line is out of date and exits with 1."""

import argparse
import ast
import json
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from vbg.runs.version import imports_of  # noqa: E402

PACKAGES = ("core", "stats", "runs", "data", "models", "gan", "train", "results", "explain", "reports")
MARK, MOST = "**Where it stands.**", 6


def module_of(path):
    "Dotted name of the module that a notebook exports, or None."
    text = "".join("".join(cell["source"]) + "\n" for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])
    found = re.search(r"^#\|\s*default_exp\s+([\w.]+)", text, re.M)
    return found and found.group(1)


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
            found[".".join([*package, name])] = {
                ".".join([*package[: len(package) - level + 1], path] if level else [path])
                for level, path, _ in imports_of(tree)
            }
    return found


def expected_lines():
    "Notebook -> the line that its head shall hold."
    notebooks = [path for package in PACKAGES for path in (ROOT / "nbs" / package).rglob("*.ipynb")]
    places = {module_of(path): path for path in reading_order(notebooks)}
    reads, order = imports_by_module(), [*places]
    lines = {}
    for k, (module, path) in enumerate(places.items()):

        def link(other, path=path):
            return f"[`{other}`]({os.path.relpath(places[other], path.parent).replace(os.sep, '/')})"

        readers = [other for other in order if module in reads[other]]
        packages = list(dict.fromkeys(other.split(".")[0] for other in readers))
        told = {
            "reads": ", ".join(link(other) for other in order if other in reads[module]) or "nothing of the project",
            "read by": ", ".join(map(link, readers))
            if len(readers) <= MOST
            else f"{len(readers)} modules of {', '.join(packages)}",
            "before": link(order[k - 1]) if k else "",
            "after": link(order[k + 1]) if k + 1 < len(order) else "",
        }
        if not readers:
            told["read by"] = "the study notebooks and the command line"
        lines[path] = f"{MARK} " + " · ".join(f"{word}: {value}" for word, value in told.items() if value)
    return lines


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
