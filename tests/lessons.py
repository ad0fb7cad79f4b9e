"""Run lessons or their solutions and keep what they show, light enough to be committed.

`python tests/lessons.py nbs/lessons/01_data.ipynb nbs/lessons/solutions/01_data.ipynb`"""

import argparse
import base64
import io
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
from PIL import Image

from vbg.runs.forkserver import fork_server, register
from vbg.runs.notebook import KERNEL, QUIET

COLOURS, LARGE = (256, 48), 15_000  # of a picture; bytes above which it gets the fewer


def light(picture):
    "A PNG in few colours, as base64."
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    for colours in COLOURS:
        few = image.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few.save(made := io.BytesIO(), format="PNG", optimize=True)
        if made.tell() <= LARGE:
            break
    return base64.b64encode(made.getvalue()).decode()


def keep(path):
    "Execute a notebook and write it with its outputs, without warnings."
    notebook = papermill.execute_notebook(
        str(path),
        None,
        kernel_name=KERNEL,
        cwd=str(path.parent),
        progress_bar=False,
        extra_arguments=["--IPKernelApp.log_level=50", f"--IPKernelApp.exec_lines={QUIET}"],
    )
    for cell in notebook.cells:
        cell.metadata.pop("tags", None)  # papermill writes an empty list
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for data in (output.data for output in cell.outputs if "data" in output):
            if "image/png" in data:
                data["image/png"] = light(data["image/png"])
    nbformat.write(notebook, path)
    subprocess.run([Path(sys.executable).with_name("nbdev_clean"), "--fname", path], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", type=Path, nargs="+")
    asked = parser.parse_args()
    with fork_server():  # the libraries are imported once
        register()
        for path in asked.notebook:
            keep(path.resolve())
