"""Facts of vbg.core.files that its notebook does not prove: what dead writers leave, and whose it is."""

import ast
import os
import signal
import socket
import subprocess
import sys

import pytest
from conftest import ROOT

from vbg.core import files
from vbg.core.files import staging, sweep, temporary, write_atomic

HOST = socket.gethostname()
KILLED = """
import os, signal, sys
from vbg.core.files import staging, write_atomic
from vbg.data.mini.met import write_mini_met
sys.addaudithook(lambda event, _: event == "os.rename" and os.kill(os.getpid(), signal.SIGKILL))
"""
WRITERS = {
    "file": "write_atomic('made', 'text')",
    "folder": "with staging('made') as part: (part / 'a').write_text('text')",
    "data set": "write_mini_met('made', n=60, balanced_per_class=1)",
}


def dead(folder, name, role="part"):
    "The hidden name that a writer has left which is no more."
    return folder / f".{role}-999999999@{HOST}@{name}"


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_what_a_killed_writer_left_is_removed_and_nothing_half_is_seen(tmp_path, write):
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    for _ in range(2):
        code = subprocess.run([sys.executable, "-c", KILLED + write], cwd=tmp_path, env=env).returncode
        assert code == -signal.SIGKILL and len(os.listdir(tmp_path)) in (1, 2) and not (tmp_path / "made").exists()
    sweep(tmp_path)
    assert os.listdir(tmp_path) == []


def test_what_others_make_is_left_alone(tmp_path):
    "Another machine's, a living writer's, one that is no temporary name."
    kept = [
        tmp_path / ".part-1@another@seed1",
        temporary(tmp_path / "seed1"),
        tmp_path / f".part-{os.getppid()}@{HOST}@seed1",
        tmp_path / f".draft-999999999@{HOST}@seed1",
        tmp_path / "seed1",
    ]
    for folder in kept:
        folder.mkdir()
    assert sweep(tmp_path, deep=True) == [] and sorted(tmp_path.iterdir()) == sorted(kept)


def test_a_later_process_with_the_same_number_is_not_the_writer(tmp_path, monkeypatch):
    import psutil

    left = temporary(tmp_path / "a")
    left.write_text("half")
    assert sweep(tmp_path) == []
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: left.stat().st_ctime + 60)
    assert sweep(tmp_path) == [left]


def test_only_a_deep_sweep_looks_below_the_folder(tmp_path):
    (tmp_path / "set").mkdir()
    left = dead(tmp_path / "set", "a")
    left.write_text("half")
    assert sweep(tmp_path) == [] and sweep(tmp_path, deep=True) == [left] and not left.exists()


def test_a_folder_that_gets_its_name_while_it_is_looked_at_is_nobodys_leftover(tmp_path, monkeypatch):
    "Its writer may take the same hidden name again before the sweeper comes to it."
    part, honest = temporary(tmp_path / "seed0"), files.lives
    part.mkdir()

    def meanwhile(number, left):
        os.rename(left, tmp_path / "seed0")  # the writer is done with it
        found = honest(number, left)
        left.mkdir()  # and begins the next one
        return found

    monkeypatch.setattr(files, "lives", meanwhile)
    assert sweep(tmp_path) == [] and part.exists()


def test_what_cannot_be_removed_stops_nobody(tmp_path, monkeypatch):
    dead(tmp_path, "a").write_text("half")
    monkeypatch.setattr("pathlib.Path.unlink", lambda self: (_ for _ in ()).throw(PermissionError))
    assert sweep(tmp_path) == [] and write_atomic(tmp_path / "a", "whole").read_text() == "whole"


def test_staging_replaces_a_whole_folder_and_removes_what_a_dead_writer_left(tmp_path):
    place = tmp_path / "deep" / "set"
    for content in ("first", "second"):
        with staging(place) as part:
            assert part.parent == place.parent and not dead(place.parent, "set").exists()
            (part / content).write_text("")
        dead(place.parent, "set").mkdir()
    sweep(place.parent)
    assert os.listdir(place.parent) == ["set"] and os.listdir(place) == ["second"]


def modules():
    return [p for p in sorted((ROOT / "vbg").rglob("*.py")) if p.name != "_modidx.py"]


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(ROOT / "vbg").as_posix())
def test_hidden_names_and_the_look_for_dead_writers_are_made_in_one_module(path):
    "Whoever names a writer by its number, or asks whether a process lives, has a sweeper of his own."
    allowed = {"core/files.py": {"getpid"}, "runs/forkserver.py": {"getpid"}, "runs/workflow.py": {"getpid"}}
    name = path.relative_to(ROOT / "vbg").as_posix()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)} & {"getpid", "pid_exists", "mkdtemp"}
    assert used <= allowed.get(name, set())
