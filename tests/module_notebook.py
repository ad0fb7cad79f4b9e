"""Run one module notebook as `nbdev_test` does: exit code 1 and its traceback where a cell fails."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    from nbdev.test import test_nb

    notebook = Path(sys.argv[1]).absolute()
    root = notebook.parents[notebook.parts[::-1].index("nbs")]
    os.chdir(root)
    sys.exit(not test_nb(notebook, skip_flags=["slow"], basepath=root)[0])
