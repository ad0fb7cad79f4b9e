"""Every module notebook runs from its first cell to its last, each in a process of its own."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from vbg.runs.forkserver import forked

NOTEBOOKS = sorted(
    path
    for path in (ROOT / "nbs").rglob("*.ipynb")
    if not path.with_name(".notest").exists() and ".ipynb_checkpoints" not in path.parts
)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.relative_to(ROOT / "nbs").as_posix())
def test_notebook_runs(path, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "VBG_HOME"}
    words = ["module_notebook", str(path)]
    with open(tmp_path / "said.txt", "w") as said:
        streams = (said.fileno(), said.fileno())
        process = forked(words, environment, ROOT / "tests", streams=streams)
        if process is None:
            words = [sys.executable, "-m", *words]
            process = subprocess.Popen(words, env=environment, cwd=ROOT / "tests", stdout=said, stderr=said)
        code = process.wait(timeout=900)
    assert code == 0, (tmp_path / "said.txt").read_text()[-6000:]
