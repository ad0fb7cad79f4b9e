"""The package is what the notebooks export, the notebooks are clean, say where they stand, and follow one style."""

import subprocess
import sys

import check_exports
import heads
from conftest import ROOT


def test_export_and_clean_change_no_file():
    check_exports.main()


def test_every_head_says_where_its_notebook_stands():
    assert heads.out_of_date(write=False) == [], "run `make export`"


def test_one_style():
    for words in (["format", "--check"], ["check"]):
        command = [sys.executable, "-m", "ruff", *words, "nbs", "tests"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
