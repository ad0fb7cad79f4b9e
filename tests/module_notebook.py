"""Run module notebooks as `nbdev_test` does: exit code 1 and its traceback where a cell fails."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    from nbdev.test import test_nb

    notebooks = [Path(name).absolute() for name in sys.argv[1:]]
    root = notebooks[0].parents[notebooks[0].parts[::-1].index("nbs")]
    os.chdir(root)
    sys.exit(not all(test_nb(notebook, skip_flags=["slow"], basepath=root)[0] for notebook in notebooks))
