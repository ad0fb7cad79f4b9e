"""Export and clean a copy of the notebooks; fail and name every file that would change.

Needs no network and changes nothing here."""

import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IGNORE = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "*.failed.ipynb")


def files(folder):
    found = (p for name in ("nbs", "vbg") for p in (folder / name).rglob("*") if p.is_file())
    return {p.relative_to(folder) for p in found if not {"__pycache__", ".ipynb_checkpoints"} & set(p.parts)}


def main():
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "vbg"
        copy.mkdir()
        for part in ("nbs", "vbg"):
            shutil.copytree(ROOT / part, copy / part, ignore=IGNORE)
        for part in ("settings.ini", "setup.py", "pyproject.toml"):
            shutil.copy(ROOT / part, copy / part)
        for command in ("nbdev_export", "nbdev_clean"):
            subprocess.run([Path(sys.executable).with_name(command)], cwd=copy, check=True)
        ours, theirs = files(ROOT), files(copy)
        differ = sorted(str(f) for f in ours ^ theirs) + sorted(
            str(f) for f in ours & theirs if not filecmp.cmp(ROOT / f, copy / f, shallow=False)
        )
    if differ:
        sys.exit(
            "nbdev_export or nbdev_clean changes these files; run `make export` and commit:\n  " + "\n  ".join(differ)
        )
    print(f"exports: {len(ours)} files are what nbdev_export and nbdev_clean make")


if __name__ == "__main__":
    main()
