"""What two studies left, compared: every table, figure, prediction and weight.

`python tests/compare_studies.py OLD NEW` names what differs between two folders that hold `runs/` and `data/`, and
exits with 1 if anything does. What a clock writes is left out. With `--provenance`, so is what a move of code changes:
hashes of code and data cards, names of modules and notebooks, what tells how a figure was made, the folder that a
figure or run lies in, and columns that a table has gained. All else is compared byte by byte."""

import argparse
import hashlib
import json
import re
import sys
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd

from vbg.results.verify import without_clock

OF_TIME = {"seconds", "items_per_second"}  # columns of a history


def without_columns(text, mark):
    "A printed table without its columns of seconds and without the padding of its cells."
    rows = [[cell.strip() for cell in re.split(mark, line)] for line in text.splitlines() if re.search(mark, line)]
    drop = {k for k, cell in enumerate(rows[0]) if "seconds" in cell}
    assert len(drop) == 3, rows[0]
    return [[cell for k, cell in enumerate(row) if k not in drop and cell.strip(":-")] for row in rows]


def cost(path):
    "table3_cost or table4_cost in any of its formats."
    if path.suffix == ".csv":
        return without_clock(pd.read_csv(path)).to_csv(index=False)
    return without_columns(path.read_text(), r"\|" if path.suffix == ".md" else r"(?<!\\)&")


def without_sums(path):
    "The manifest without the checksums of the files that print seconds."
    told = json.loads(path.read_text())
    for key, entry in told["artefacts"].items():
        if re.search(r"/(table[34]_cost|audit)$", key):
            entry["files"] = sorted(entry["files"])
        for part in entry.get("made_from", []):
            if isinstance(part, dict) and part.get("file", "").endswith("/inputs.json"):  # of a GAN
                del part["sha256"]
    return told


def history(path):
    table = pd.read_csv(path)
    return table.drop(columns=sorted(OF_TIME & set(table.columns))).to_csv(index=False)


def gan(path):
    told = json.loads(path.read_text())
    return told | {
        "history": [{key: value for key, value in row.items() if key not in OF_TIME} for row in told["history"]]
    }


def run(path):
    told = json.loads(path.read_text())
    kept = {key: value for key, value in told.items() if key not in ("seconds", "written")}
    return kept | {"files": {name: digest for name, digest in told["files"].items() if name != "history.csv"}}


def note(path):
    "What a thing was made from; the checksums of its files cover seconds."
    return {key: value for key, value in json.loads(path.read_text()).items() if key != "files"}


def ledger(path):
    table = pd.read_csv(path, dtype=str)
    kept = without_clock(table)
    assert 3 / 4 * len(table) < len(kept) < len(table)
    return kept.to_csv(index=False) + "\n".join(table.id)


def name_alone(path):
    return None


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# What a clock writes, and so may differ between two runs: file -> (how it is compared, what is left out and why).
# All else is compared byte by byte.
EXCUSED = {
    "runs/*.ipynb": (name_alone, "an executed notebook tells when each cell began and ended"),
    "runs/*.log": (name_alone, "a log tells how long each step took"),
    "runs/*/history.csv": (history, "two columns: seconds and items per second of an epoch"),
    "runs/*/text_generator.csv": (history, "one column: seconds of an epoch"),
    "runs/*/gan[0-9]*/gan.json": (gan, "seconds of each epoch"),
    "runs/*/inputs.json": (note, "checksums of gan.json and text_generator.csv"),
    "runs/*/made_from.json": (note, "checksum of text_generator.csv"),
    "runs/*/run.json": (run, "when the run was written, how many seconds it took, and the checksum of history.csv"),
    "runs/*/figures/*/table[34]_cost.*": (cost, "three columns of seconds"),
    "runs/*/figures/*/audit.csv": (ledger, "rows that judge the paper's claims on training time by our seconds"),
    "runs/*/figures/*/audit.md": (
        name_alone,
        "prints those rows and counts their verdicts; all other rows are compared in audit.csv",
    ),
    "runs/*/figures/*/audit.html": (name_alone, "as audit.md"),
    "runs/*/figures/manifest.json": (without_sums, "checksums of the files above"),
}


def results(home):
    "What a study leaves, by name: a checksum, or what a clock did not write."
    kept = [p for top in ("runs", "data") for p in sorted((home / top).rglob("*")) if p.is_file()]
    names = {p.relative_to(home).as_posix(): p for p in kept}
    return {
        name: next((how for pattern, (how, _) in EXCUSED.items() if fnmatch(name, pattern)), digest)(p)
        for name, p in names.items()
    }


def differences(ours, theirs):
    "Names that only one of two studies has, and those of files that differ."
    return sorted(ours.keys() ^ theirs.keys()), [
        name for name in sorted(ours.keys() & theirs.keys()) if ours[name] != theirs[name]
    ]


# ---- across a move of code

PROVENANCE = {
    "code",
    "modules",
    "notebook",
    "environment",
    "written",
    "versions",
    "seconds",
    "made_from",
    "files",
}
NAMES = re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{16}\b|nbs/[\w/]+\.ipynb|\bvbg(?:\.\w+)+|\bvbg \w+\b")


NOTES = ("inputs.json", "made_from.json", "classifier.json")


def bare(told):
    "JSON without what tells where a thing came from."
    if isinstance(told, dict):
        return {key: bare(value) for key, value in told.items() if key not in PROVENANCE | OF_TIME}
    if isinstance(told, list):
        return [bare(value) for value in told]
    return plain_text(told) if isinstance(told, str) else told


def plain_text(text):
    "Text without hashes and names of modules, and with the places and stores of runs as they were."
    text = re.sub(r"\b(smoke|mini)/([a-z][\w.]*-[\w.-]+|plain)\b", r"\1-\2", text)  # a store
    return NAMES.sub("#", old_runs(text))


def old_runs(text):
    "Places of runs and GANs as they were when `runs/` was flat."
    text = re.sub(r"\bruns/([\w-]+)/classifiers/", r"runs/\1/", text)
    text = re.sub(r"\bruns/([\w-]+)/experiments/", r"runs/\1-", text)
    return re.sub(r"\bruns/([\w-]+)/gans/", r"runs/\1/gan/", text)


def tensors(path):
    "The tensors of a safetensors file: their places, kinds, shapes and bytes, without the notes in its head."
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + length])
    head.pop("__metadata__", None)
    return sorted(head.items()), hashlib.sha256(content[8 + length :]).hexdigest()


def columns(table):
    "The columns of a table. Today's may have more."
    return {name: [plain_text(str(value)) for value in table[name]] for name in table}


def moved(path, name):
    "A file as a move of code leaves it. The name is that of today."
    if path.name in NOTES or path.name.endswith(".rendered.json"):
        return None  # what a thing was made from, and the checksums of its files
    if path.suffix == ".json":
        told = bare(json.loads(path.read_text(encoding="utf-8")))
        return {key: value for key, value in told.items() if path.name != "quality.json" or key != "inputs"}
    if path.suffix == ".safetensors":
        return tensors(path)
    excused = next((how for pattern, (how, _) in EXCUSED.items() if fnmatch(name, pattern)), None)
    if "/figures/" in name and path.suffix == ".csv":
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table = without_clock(table) if excused in (ledger, cost) else table
        if excused is ledger:
            table = table.drop(columns=[c for c in table if "command" in c or "how" in c.lower()])
        return columns(table)
    if excused:
        return excused(path)
    return plain_text(path.read_text(encoding="utf-8")) if path.suffix in (".csv", ".md", ".html") else digest(path)


def old_place(name):
    "The name of a file of today as it was when `runs/` and `figures/` were flat."
    name = re.sub(r"^runs/([\w-]+)/figures/.*/([^/]+)$", r"figures/\1/\2", name)
    return re.sub(r"-[0-9a-f]{16}(?=[/.])", "-#", old_runs(name))


UNSAVED = re.compile(
    r"\.(tex|pdf|json)$|/(fig8_coordinates|fig7_per_class)_\w+\.md$"
)  # that a run saved in figures/ before


def results_moved(home):
    "As `results`, across a move of code."
    kept = [p for top in ("runs", "figures", "data") for p in sorted((home / top).rglob("*")) if p.is_file()]
    names = {p.relative_to(home).as_posix(): p for p in kept if p.suffix not in (".ipynb", ".log", ".lock")}
    today = {re.sub(r"^figures/([\w-]+)/", r"runs/\1/figures/-/-/", name): path for name, path in names.items()}
    today = {name: path for name, path in today.items() if not ("/figures/" in name and UNSAVED.search(name))}
    return {old_place(name): moved(path, name) for name, path in today.items()}


def differences_moved(old, new):
    "As `differences`; a table of today may have more columns."
    shared = {name: new[name] for name in old.keys() & new.keys()}
    for name, value in shared.items():
        if name.startswith("figures/") and isinstance(value, dict):
            shared[name] = {column: value[column] for column in old[name] if column in value}
    return differences(old, new | shared)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("old", type=Path, help="folder of one study")
    parser.add_argument("new", type=Path, help="folder of the other")
    parser.add_argument("--provenance", action="store_true", help="leave out what a move of code changes")
    asked = parser.parse_args(arguments)
    read = results_moved if asked.provenance else results
    ours, theirs = read(asked.old), read(asked.new)
    stray, differ = (differences_moved if asked.provenance else differences)(ours, theirs)
    print(
        *(f"only in {'old' if name in ours else 'new'}: {name}" for name in stray),
        *(f"differs: {name}" for name in differ),
        sep="\n",
    )
    print(f"{len(ours.keys() & theirs.keys())} files in both, {len(differ)} differ; {len(stray)} in one alone")
    return int(bool(stray or differ))


if __name__ == "__main__":
    sys.exit(main())
