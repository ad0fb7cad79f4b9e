"""What an installation puts in place."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path


def test_an_installation_brings_the_command():
    assert [entry.value for entry in entry_points(group="console_scripts", name="vbg")] == ["vbg.reports.command:main"]
    command = Path(sys.executable).with_name("vbg")
    done = subprocess.run([command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "usage: vbg" in done.stdout, done.stderr
