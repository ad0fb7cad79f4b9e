"""`make status` and `make figures` on folders made up for it: what they say, and that they change and train nothing."""
import json
import os
import subprocess
import sys
import time

import pytest

from conftest import ROOT

CARD = "runs/smoke/notebooks/{}.ipynb"


@pytest.fixture
def home(tmp_path):
    "A folder in which two notebooks count as executed; the runs of the one that trains are lost."
    for name, duration in (("data-met", 20.), ("train-met-0", 300.)):
        path = tmp_path / CARD.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {"papermill": {"duration": duration, "parameters": {"profile": "smoke", "dataset": "met"}}}
        path.write_text(json.dumps({"cells": [], "metadata": about, "nbformat": 4, "nbformat_minor": 5}))
    return tmp_path


def call(home, *words):
    env = dict(os.environ, VBG_HOME=str(home), PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


def files(home):
    return {p.relative_to(home).as_posix(): p.read_bytes() for p in home.rglob("*") if p.is_file() and ".snakemake" not in p.parts}


def row(text, rule):
    return next(line for line in text.splitlines() if line.split()[:1] == [rule]).split(maxsplit=4)[1:]


def test_status_tells_what_is_there_and_changes_nothing(home):
    before = files(home)
    done = call(home, "vbg.status", "--profile", "smoke", "--cores", "2")
    assert done.returncode == 0, done.stderr
    assert files(home) == before  # a notebook whose runs are lost is deleted by a run, not by a look
    text = done.stdout
    assert max(map(len, text.splitlines())) <= 80
    assert row(text, "data") == ["1", "0", "1", "20 s"]       # the other set costs what this one did
    assert row(text, "train") == ["0", "0", "4", "20 min"]     # 4 times 300 s: lost runs are made again
    assert row(text, "artefact_summary") == ["0", "0", "1", "unknown"]
    for said in ("train-met-1\n", "data-coco\n", "missing: its runs are lost (1)\n  train-met-0\n", "largest costs\n  train-met-0", "time left: about 10 min on 2 cores (20 min of work)", "not counted: 20 jobs"):
        assert said in text, (said, text)


def test_everything_holds_every_target(home):
    "The rule `everything` gathers what each target asks for."
    names = {target: [job.notebook for job in planned_in(home, [target])] for target in ("everything", "supplement", "gan")}
    assert set(names["supplement"]) < set(names["everything"]) and set(names["gan"]) < set(names["everything"])
    assert CARD.format("train-met-0") in names["everything"]
    assert not any("collection" in name for name in names["everything"])


def planned_in(home, targets):
    code = f"from vbg.study_run import planned; import json; print(json.dumps([j.__dict__ for j in planned('smoke', {targets!r})]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ, VBG_HOME=str(home)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    from vbg.study_run import Job
    return [Job(**fields) for fields in json.loads(done.stdout)]


def test_figures_without_runs_are_refused_by_name_and_nothing_starts(home):
    before, begun = files(home), time.time()
    done = call(home, "vbg.study_run", "--profile", "smoke", "--draw")
    assert done.returncode == 1 and "train-met-1" in done.stderr and "make reproduce" in done.stderr
    assert files(home) == before and time.time() - begun < 60


def test_wrong_target_is_told_with_snakemakes_words(home):
    done = call(home, "vbg.status", "--profile", "smoke", "no_such_target")
    assert done.returncode == 1 and "no_such_target" in done.stderr


def test_makefile_calls_what_these_tests_call():
    for target, said in (("status", "-m vbg.status --profile smoke"), ("figures", "--draw all"), ("book", "-m vbg.book --profile smoke"),
                         ("reproduce", "-m vbg.study_run --profile smoke --cores 3 --gpus")):
        words = ["make", "-n", target, "PROFILE=smoke", "CORES=3"]
        env = {key: value for key, value in os.environ.items() if key not in ("PROFILE", "CORES", "TARGETS", "MAKEFLAGS", "MAKELEVEL")}
        assert said in subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout, target
