"""Every module notebook runs from its first cell to its last, each in a process of its own."""

import pytest
from conftest import ROOT, run_notebooks

NOTEBOOKS = sorted(
    path
    for path in (ROOT / "nbs").rglob("*.ipynb")
    if not path.with_name(".notest").exists() and ".ipynb_checkpoints" not in path.parts
)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.relative_to(ROOT / "nbs").as_posix())
def test_notebook_runs(path, tmp_path):
    run_notebooks(tmp_path / "said.txt", path)
