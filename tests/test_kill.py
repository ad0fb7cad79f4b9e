"""`kill -9` at any moment: the next run needs no hand and ends with the files of a run that nobody disturbed.

And one study a folder at a time.

Both in `make test-slow`; `tests/test_files.py` kills single writers."""

import os
import signal
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import psutil
import pytest
from compare_studies import EXCUSED, differences, results
from conftest import ROOT, saved

from vbg.core.profiles import TABLE3_MODELS, TABLE4_MODELS
from vbg.runs.forkserver import SOCKET

QUICK = [
    "runs/smoke/figures/paper/contradictions/contradictions.md",
    "runs/smoke/notebooks/contradictions.ipynb",
    "runs/smoke/notebooks/data-met.ipynb",
]
KILLS = 5


def start(home, targets, **variables):
    "The study as make starts it, in a process group of its own. What it says goes into a file: a full pipe stops it."
    env = {name: value for name, value in os.environ.items() if name != SOCKET}  # a fork server of its own
    env |= dict(VBG_HOME=str(home), OMP_NUM_THREADS="1", PYTHONHASHSEED="0", PYTHONPATH=str(ROOT), **variables)
    words = [sys.executable, "-m", "vbg.reports.command", "study", "--profile", "smoke", "--cores", "2", *targets]
    with open(home / "said.txt", "w") as said:
        return subprocess.Popen(words, cwd=ROOT, env=env, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)


def finish(home, targets):
    "Exit code of a study that nobody disturbs, and what it said."
    code = start(home, targets).wait(timeout=3000)
    return code, (home / "said.txt").read_text()


def alive(home):
    "Processes that were started for this folder, kernels among them."
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.environ().get("VBG_HOME") == str(home)
                and process.pid != os.getpid()
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
        except psutil.Error:
            pass
    return found


def kill_group(study, home):
    "kill -9 to all, as a machine does that runs out of memory; kernels see for themselves that they are alone."
    os.killpg(study.pid, signal.SIGKILL)
    study.wait()
    end = time.time() + 300
    while alive(home):
        assert time.time() < end, f"these outlive the study: {[p.cmdline() for p in alive(home)]}"
        time.sleep(0.2)


@pytest.mark.slow
def test_a_job_that_is_killed_while_it_writes_leaves_the_same_bytes(tmp_path):
    "One quick kill: as soon as the first of a table's files is there, while a data set is in the making."
    calm, cut = tmp_path / "calm", tmp_path / "cut"
    calm.mkdir(), cut.mkdir()
    study, table = start(cut, QUICK), saved(cut, "contradictions.csv")
    while not table.exists():
        assert study.poll() is None, (cut / "said.txt").read_text()
        time.sleep(0.005)
    kill_group(study, cut)
    assert list((cut / ".snakemake" / "locks").glob("*"))  # it was at work
    for home in (cut, calm):
        code, said = finish(home, QUICK)
        assert code == 0, said[-3000:]
    ours, theirs = results(cut), results(calm)
    assert differences(ours, theirs) == ([], [])
    assert {
        *QUICK,
        "runs/smoke/figures/manifest.json",
        "data/smoke/met/ceilings.json",
        "data/smoke/met.rendered.json",
    } <= set(ours)


def test_a_byte_more_or_less_is_seen(tmp_path):
    "The comparison itself: a clock's words are left out, and nothing else is."
    paper = "runs/smoke/figures/paper"
    parts = {
        "runs/smoke/classifiers/met/vbg/seed0/history.csv": "epoch,seconds\n{x},{t}\n",
        "runs/smoke/classifiers/met/vbg/seed0/run.json": (
            '{{"seconds": {t}, "seed": "{x}", "files": {{"history.csv": "{t}"}}}}'
        ),
        f"{paper}/table3_comparison/table3_cost.md": (
            "| a | seconds an epoch | seconds to fit | seconds of the run |\n|:--|:--|:--|:--|\n"
            "| {x} | {t} | {t} | {t} |\n"
        ),
        f"{paper}/audit/audit.csv": "id,claim,ours\nfaster-swin-met,,{t}\na,,{x}\nb,,1\nc,,1\nd,,1\n",
        f"{paper}/table3_comparison/table3_comparison.csv": "{x}",
        "runs/smoke/figures/manifest.json": (
            '{{"artefacts": {{"paper/t/table3_cost": {{"files": {{"a": "{t}"}}}}, "paper/t/t": {{"files": "{x}"}}}}}}'
        ),
        "runs/smoke/classifiers/met.log": "{t}",
    }
    told = []
    for t, x in ((1, 5), (22, 5), (1, 6)):
        for name, text in parts.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text.format(t=t, x=x))
        told.append(results(tmp_path))
    assert differences(told[0], told[1]) == ([], [])
    assert differences(told[0], told[2]) == ([], sorted(name for name, text in parts.items() if "{x}" in text))
    (tmp_path / "runs/smoke/classifiers/met.log").unlink()
    assert differences(told[0], results(tmp_path))[0] == ["runs/smoke/classifiers/met.log"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    "A folder with the whole study, finished; how long it took; and what a second study said that began meanwhile."
    home = tmp_path_factory.mktemp("undisturbed")
    begun, study = time.time(), start(home, ["all"])
    note = home / ".snakemake" / "study.pid"
    while not (note.exists() and note.read_text().strip()):
        assert study.poll() is None, (home / "said.txt").read_text()
        time.sleep(0.05)
    env = dict(os.environ, VBG_HOME=str(home), PYTHONPATH=str(ROOT))
    second = subprocess.run(
        [sys.executable, "-m", "vbg.reports.command", "study", "--profile", "smoke", "all"],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert study.wait(timeout=3000) == 0, (home / "said.txt").read_text()[-3000:]
    return home, time.time() - begun, second, study.pid


@pytest.mark.slow
def test_a_second_study_says_which_process_has_the_folder(undisturbed):
    _, _, second, number = undisturbed
    assert (
        second.returncode == 1
        and f"already (process {number})" in second.stdout
        and len(second.stdout.splitlines()) == 1
    )


@pytest.mark.slow
def test_the_whole_study_killed_at_any_moment_ends_as_if_undisturbed(undisturbed, tmp_path):
    "Every target of `all`: data, GANs, every run, Tables 1 to 4, Fig. 5 and 6, the audit."
    reference, seconds, *_ = undisturbed
    draw, locked, cut = np.random.default_rng(), 0, []
    for _ in range(KILLS):
        study = start(tmp_path, ["all"])
        try:
            study.wait(timeout=seconds * draw.uniform(0.08, 0.3))
        except subprocess.TimeoutExpired:
            kill_group(study, tmp_path)
            cut.append(len(list((tmp_path / "runs").rglob("*.ipynb"))))
            locked += any((tmp_path / ".snakemake" / "locks").glob("*"))
    assert len(cut) >= 2 and locked >= 1, f"{len(cut)} kills met a study at work, {locked} left a lock"
    code, said = finish(tmp_path, ["all"])
    assert code == 0, said[-3000:]
    theirs, ours = results(reference), results(tmp_path)
    assert differences(ours, theirs) == ([], []), f"killed with {cut} notebooks there"
    for pattern in EXCUSED:
        assert any(fnmatch(name, pattern) for name in ours), f"nothing is excused by {pattern}: take it off the list"
    assert finish(tmp_path, ["all"])[0] == 0 and results(tmp_path) == ours


@pytest.mark.slow
def test_the_comparison_holds_every_table_and_figure_of_the_study(undisturbed):
    names = set(results(undisturbed[0]))
    for table in (
        "table1_datasets",
        "table2_hyperparameters",
        "table3_comparison",
        "table3_tests",
        "table4_ablation",
        "table4_tests",
        "summary",
        "model_cost",
        "label_leaks_met",
        "label_leaks_coco",
        "contradictions",
    ):
        assert {saved(Path(), f"{table}.{kind}").as_posix() for kind in ("csv", "md")} <= names
    for figure in (
        "fig5_loss_curves",
        "fig5_models",
        "fig6_confusion_matrix",
        "per_class_recall",
        "calibration_curves",
    ):
        assert saved(Path(), f"{figure}.png").as_posix() in names
    for file in ("run.json", "history.csv", "metrics.json", "predictions.parquet", "model.safetensors"):
        assert {
            f"runs/smoke/classifiers/{dataset}/{model}/seed{seed}/{file}"
            for dataset in ("met", "coco")
            for model in {*TABLE3_MODELS, *TABLE4_MODELS}
            for seed in (0, 1)
        } <= names
    excused = {name for name in names if any(fnmatch(name, pattern) for pattern in EXCUSED)}
    files = [f"{table}.{kind}" for table in ("table3_cost", "table4_cost") for kind in ("csv", "md")]
    files += [f"audit.{kind}" for kind in ("csv", "md", "html")]
    held = {name for name in excused if "/figures/" in name}
    assert held == {saved(Path(), file).as_posix() for file in files} | {"runs/smoke/figures/manifest.json"}


@pytest.mark.slow
def test_jobs_that_outlive_their_study_are_named_and_not_run_twice(tmp_path):
    study = start(tmp_path, ["all"], **{SOCKET: "off"})  # with a fork server its jobs end with it
    while not list(tmp_path.glob("runs/smoke/notebooks/*.log")):
        assert study.poll() is None
        time.sleep(0.1)
    os.kill(study.pid, signal.SIGKILL)  # and with it Snakemake, alone
    study.wait()
    code, said = finish(tmp_path, ["all"])
    assert code == 1 and "is in use by" in said and "kill " in said, said
    kill_group(study, tmp_path)
    assert list((tmp_path / ".snakemake" / "locks").glob("*"))  # nobody had removed them
