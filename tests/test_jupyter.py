"""JupyterLab in the clone: a notebook that is opened is not marked as unsaved; one that is saved is clean."""

import asyncio
import shutil
import sys

import pytest
from conftest import ROOT
from traitlets.config import PyFileConfigLoader

NOTEBOOKS = ("core/01_files", "study/paper/table3_comparison", "index")


@pytest.fixture(scope="module")
def manager_class():
    config = PyFileConfigLoader("jupyter_server_config.py", str(ROOT)).load_config()
    return config.ServerApp.contents_manager_class


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_opened_as_its_kernel_describes_it_and_saved_as_it_was(manager_class, tmp_path, name):
    shutil.copy(ROOT / "nbs" / f"{name}.ipynb", tmp_path / "n.ipynb")
    before = (tmp_path / "n.ipynb").read_bytes()
    manager = manager_class(root_dir=str(tmp_path))
    model = asyncio.run(manager.get("n.ipynb"))
    about = model["content"]["metadata"]
    # what JupyterLab sets when the kernel is there: it marks the notebook as unsaved where they differ
    assert about["kernelspec"] == {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    assert about["language_info"]["version"] == sys.version.split()[0] and about["language_info"]["name"] == "python"
    assert (tmp_path / "n.ipynb").read_bytes() == before
    asyncio.run(manager.save({"type": "notebook", "content": model["content"]}, "n.ipynb"))
    assert (tmp_path / "n.ipynb").read_bytes() == before
