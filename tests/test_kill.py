"""`kill -9` at any moment: the next run needs no hand and ends with the files of a run that nobody disturbed. And one study a folder at a time."""
import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest

from conftest import ROOT

pytestmark = pytest.mark.slow
TARGETS = ["runs/smoke/notebooks/train-met-0.ipynb", "figures/smoke/label_leaks_met.json", "figures/smoke/contradictions.json"]
OF_TIME = {"seconds", "items_per_second"}  # columns of a history
KILLS = 4


def start(home):
    "The study as make starts it, in a process group of its own."
    env = dict(os.environ, VBG_HOME=str(home), OMP_NUM_THREADS="1", PYTHONHASHSEED="0", PYTHONPATH=str(ROOT))
    words = [sys.executable, "-m", "vbg.study_run", "--profile", "smoke", "--cores", "2", *TARGETS]
    return subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def finish(home):
    study = start(home)
    said, _ = study.communicate(timeout=900)
    return study.returncode, said


def alive(home):
    "Processes that were started for this folder, kernels among them."
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("VBG_HOME") == str(home) and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            pass
    return found


def kill_group(study, home):
    "kill -9 to all, as a machine does that runs out of memory or power; kernels see for themselves that they are alone."
    os.killpg(study.pid, signal.SIGKILL)
    study.communicate()
    end = time.time() + 30
    while alive(home):
        assert time.time() < end, f"these outlive the study: {[p.cmdline() for p in alive(home)]}"
        time.sleep(.2)


def content(path):
    "Bytes of a file, without what a clock wrote."
    if path.name in ("history.csv", "text_generator.csv"):
        history = pd.read_csv(io.BytesIO(path.read_bytes()))
        return history.drop(columns=sorted(OF_TIME & set(history.columns))).to_csv(index=False)
    if path.name == "gan.json":
        told = json.loads(path.read_text())
        return told | {"history": [{key: value for key, value in row.items() if key not in OF_TIME} for row in told["history"]]}
    if path.name == "run.json":
        told = json.loads(path.read_text())
        return {key: told[key] for key in ("inputs", "model", "dataset", "seed", "class_names", "config") if key in told} | {
            "files": {name: digest for name, digest in told["files"].items() if name != "history.csv"}}
    return path.read_bytes()


def results(home):
    "What a study leaves, by name; executed notebooks and logs by name alone, since they tell the time."
    kept = [p for top in ("runs", "figures", "data") for p in sorted((home / top).rglob("*")) if p.is_file()]
    return {p.relative_to(home).as_posix(): None if p.suffix in (".ipynb", ".log") else content(p) for p in kept}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    "A folder with the finished study, how long it took, and what a second study said that began meanwhile."
    home = tmp_path_factory.mktemp("undisturbed")
    begun, study = time.time(), start(home)
    note = home / ".snakemake" / "study.pid"
    while not (note.exists() and note.read_text().strip()):
        assert study.poll() is None, study.stdout.read()
        time.sleep(.05)
    second = finish(home)
    said, _ = study.communicate(timeout=900)
    assert study.returncode == 0, said[-3000:]
    return home, time.time() - begun, second, study.pid


def test_a_second_study_says_which_process_has_the_folder(undisturbed):
    _, _, (code, said), number = undisturbed
    assert code == 1 and f"already (process {number})" in said and len(said.splitlines()) == 1


def test_killed_at_any_moment_ends_as_if_undisturbed(undisturbed, tmp_path):
    reference, seconds, *_ = undisturbed
    draw, locked, cut = np.random.default_rng(0), 0, 0
    for _ in range(KILLS):
        study = start(tmp_path)
        try:
            study.wait(timeout=seconds * draw.uniform(.15, .75))
        except subprocess.TimeoutExpired:
            cut += 1
            kill_group(study, tmp_path)
            locked += any((tmp_path / ".snakemake" / "locks").glob("*"))
    assert cut >= 2 and locked >= 1, f"{cut} kills met a study at work, {locked} left a lock"
    code, said = finish(tmp_path)
    assert code == 0, said[-3000:]
    theirs, ours = results(reference), results(tmp_path)
    assert sorted(ours) == sorted(theirs)
    assert [name for name in theirs if ours[name] != theirs[name]] == []
    assert {"runs/smoke/met/without_gan/seed0/model.safetensors", "runs/smoke/met/without_gan/seed0/predictions.parquet",
            "runs/smoke/met/without_gan/seed0/metrics.json", "figures/smoke/label_leaks_met.csv"} <= set(ours)
    assert finish(tmp_path)[0] == 0 and results(tmp_path) == ours


def test_jobs_that_outlive_their_study_are_named_and_not_run_twice(undisturbed, tmp_path):
    study = start(tmp_path)
    while not list(tmp_path.glob("runs/smoke/notebooks/*.log")):
        assert study.poll() is None
        time.sleep(.1)
    os.kill(study.pid, signal.SIGKILL)  # Snakemake alone
    study.wait()
    code, said = finish(tmp_path)
    assert code == 1 and "is in use by" in said and "kill " in said, said
    kill_group(study, tmp_path)
    assert list((tmp_path / ".snakemake" / "locks").glob("*"))  # nobody had removed them
