"""`kill -9` at any moment: the next run needs no hand and ends with the files of a run that nobody disturbed. And one study a folder at a time.

The whole study is killed several times in `make test-slow`, one cheap job once in `make test`."""
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from conftest import ROOT
from vbg.config import TABLE3_MODELS, TABLE4_MODELS

QUICK = ["figures/smoke/contradictions.json", "runs/smoke/notebooks/contradictions.ipynb", "runs/smoke/notebooks/data-met.ipynb"]
KILLS = 5

OF_TIME = {"seconds", "items_per_second"}  # columns of a history
TIMED = re.compile(r"-hours$|^(?:same-hours|similar-time|long-time)$|^(?:faster|cheaper)-")  # rows of the audit


def start(home, targets):
    "The study as make starts it, in a process group of its own. What it says goes into a file: a full pipe would stop it."
    env = dict(os.environ, VBG_HOME=str(home), OMP_NUM_THREADS="1", PYTHONHASHSEED="0", PYTHONPATH=str(ROOT))
    words = [sys.executable, "-m", "vbg.study_run", "--profile", "smoke", "--cores", "2", *targets]
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
            if process.environ().get("VBG_HOME") == str(home) and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            pass
    return found


def kill_group(study, home):
    "kill -9 to all, as a machine does that runs out of memory or power; kernels see for themselves that they are alone."
    os.killpg(study.pid, signal.SIGKILL)
    study.wait()
    end = time.time() + 300
    while alive(home):
        assert time.time() < end, f"these outlive the study: {[p.cmdline() for p in alive(home)]}"
        time.sleep(.2)


def without_columns(text, mark):
    "A printed table without its columns of seconds and without the padding of its cells."
    rows = [[cell.strip() for cell in re.split(mark, line)] for line in text.splitlines() if re.search(mark, line)]
    drop = {k for k, cell in enumerate(rows[0]) if "seconds" in cell}
    assert len(drop) == 3, rows[0]
    return [[cell for k, cell in enumerate(row) if k not in drop and cell.strip(":-")] for row in rows]


def cost(path):
    "table3_cost or table4_cost in any of its formats."
    if path.suffix == ".csv":
        table = pd.read_csv(path)
        return table[[column for column in table if "seconds" not in column]].to_csv(index=False)
    return without_sums(path) if path.suffix == ".json" else without_columns(path.read_text(), r"\|" if path.suffix == ".md" else r"(?<!\\)&")


def without_sums(path):
    "The json of an artefact without the checksums of its files."
    told = json.loads(path.read_text())
    return told | {"files": sorted(told["files"])}


def history(path):
    table = pd.read_csv(path)
    return table.drop(columns=sorted(OF_TIME & set(table.columns))).to_csv(index=False)


def gan(path):
    told = json.loads(path.read_text())
    return told | {"history": [{key: value for key, value in row.items() if key not in OF_TIME} for row in told["history"]]}


def run(path):
    told = json.loads(path.read_text())
    kept = {key: value for key, value in told.items() if key not in ("seconds", "written")}
    return kept | {"files": {name: digest for name, digest in told["files"].items() if name != "history.csv"}}


def ledger(path):
    table = pd.read_csv(path, dtype=str)
    timed = table.id.str.contains(TIMED)
    assert 0 < timed.sum() < len(table) / 4
    return table[~timed].to_csv(index=False) + "\n".join(table.id)


def name_alone(path): return None


def digest(path): return hashlib.sha256(path.read_bytes()).hexdigest()


# What a clock writes, and so may differ between two runs: file -> (how it is compared, what is left out and why). All else is compared byte by byte.
EXCUSED = {
    "runs/*.ipynb": (name_alone, "an executed notebook tells when each cell began and ended"),
    "runs/*.log": (name_alone, "a log tells how long each step took"),
    "runs/*/history.csv": (history, "two columns: seconds and items per second of an epoch"),
    "runs/*/text_generator.csv": (history, "one column: seconds of an epoch"),
    "runs/*/gan.json": (gan, "seconds of each epoch"),
    "runs/*/run.json": (run, "when the run was written, how many seconds it took, and the checksum of history.csv"),
    "figures/smoke/table[34]_cost.*": (cost, "three columns of seconds, and in the json the checksums of the files that print them"),
    "figures/smoke/audit.csv": (ledger, "rows that judge the paper's claims on training time by our seconds"),
    "figures/smoke/audit.md": (name_alone, "prints those rows and counts their verdicts; all other rows are compared in audit.csv"),
    "figures/smoke/audit.html": (name_alone, "as audit.md"),
    "figures/smoke/audit.json": (without_sums, "checksums of the three files above"),
}


def results(home):
    "What a study leaves, by name: a checksum, or what a clock did not write."
    kept = [p for top in ("runs", "figures", "data") for p in sorted((home / top).rglob("*")) if p.is_file()]
    names = {p.relative_to(home).as_posix(): p for p in kept}
    return {name: next((how for pattern, (how, _) in EXCUSED.items() if fnmatch(name, pattern)), digest)(p) for name, p in names.items()}


def differences(ours, theirs):
    "Names that only one of two studies has, and those of files that differ."
    return sorted(ours.keys() ^ theirs.keys()), [name for name in sorted(ours.keys() & theirs.keys()) if ours[name] != theirs[name]]


def test_a_job_that_is_killed_while_it_writes_leaves_the_same_bytes(tmp_path):
    "One quick kill: as soon as the first of a table's files is there, while a data set is in the making."
    calm, cut = tmp_path / "calm", tmp_path / "cut"
    calm.mkdir(), cut.mkdir()
    study, table = start(cut, QUICK), cut / "figures" / "smoke" / "contradictions.csv"
    while not table.exists():
        assert study.poll() is None, (cut / "said.txt").read_text()
        time.sleep(.005)
    kill_group(study, cut)
    assert list((cut / ".snakemake" / "locks").glob("*"))  # it was at work
    for home in (cut, calm):
        code, said = finish(home, QUICK)
        assert code == 0, said[-3000:]
    ours, theirs = results(cut), results(calm)
    assert differences(ours, theirs) == ([], [])
    assert {*QUICK, "figures/smoke/contradictions.csv", "data/smoke/met/ceilings.json", "data/smoke/met.rendered.json"} <= set(ours)


def test_a_byte_more_or_less_is_seen(tmp_path):
    "The comparison itself: a clock's words are left out, and nothing else is."
    parts = {
        "runs/smoke/met/vbg/seed0/history.csv": "epoch,seconds\n{x},{t}\n",
        "runs/smoke/met/vbg/seed0/run.json": '{{"seconds": {t}, "seed": "{x}", "files": {{"history.csv": "{t}"}}}}',
        "figures/smoke/table3_cost.md": "| a | seconds an epoch | seconds to fit | seconds of the run |\n|:--|:--|:--|:--|\n| {x} | {t} | {t} | {t} |\n",
        "figures/smoke/table3_cost.tex": "a & seconds an epoch & seconds to fit & seconds of the run \\\\\nb \\& {x} & {t} & {t} & {t} \\\\\n",
        "figures/smoke/audit.csv": "id,ours\nfaster-swin-met,{t}\na,{x}\nb,1\nc,1\nd,1\n",
        "figures/smoke/table3_comparison.csv": "{x}",
        "runs/smoke/met.log": "{t}",
    }
    told = []
    for t, x in ((1, 5), (22, 5), (1, 6)):
        for name, text in parts.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text.format(t=t, x=x))
        told.append(results(tmp_path))
    assert differences(told[0], told[1]) == ([], [])
    assert differences(told[0], told[2]) == ([], sorted(name for name, text in parts.items() if "{x}" in text))
    (tmp_path / "runs/smoke/met.log").unlink()
    assert differences(told[0], results(tmp_path))[0] == ["runs/smoke/met.log"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    "A folder with the whole study, finished; how long it took; and what a second study said that began meanwhile."
    home = tmp_path_factory.mktemp("undisturbed")
    begun, study = time.time(), start(home, ["all"])
    note = home / ".snakemake" / "study.pid"
    while not (note.exists() and note.read_text().strip()):
        assert study.poll() is None, (home / "said.txt").read_text()
        time.sleep(.05)
    env = dict(os.environ, VBG_HOME=str(home), PYTHONPATH=str(ROOT))
    second = subprocess.run([sys.executable, "-m", "vbg.study_run", "--profile", "smoke", "all"], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900)
    assert study.wait(timeout=3000) == 0, (home / "said.txt").read_text()[-3000:]
    return home, time.time() - begun, second, study.pid


@pytest.mark.slow
def test_a_second_study_says_which_process_has_the_folder(undisturbed):
    _, _, second, number = undisturbed
    assert second.returncode == 1 and f"already (process {number})" in second.stdout and len(second.stdout.splitlines()) == 1


@pytest.mark.slow
def test_the_whole_study_killed_at_any_moment_ends_as_if_undisturbed(undisturbed, tmp_path):
    "Every target of `all`: data, GANs, the search, every run, Tables 1 to 4, Fig. 5 and 6, the audit."
    reference, seconds, *_ = undisturbed
    draw, locked, cut = np.random.default_rng(), 0, []
    for _ in range(KILLS):
        study = start(tmp_path, ["all"])
        try:
            study.wait(timeout=seconds * draw.uniform(.08, .3))
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
    for table in ("table1_datasets", "table2_hyperparameters", "table3_comparison", "table3_tests", "table4_ablation", "table4_tests", "summary", "model_cost", "label_leaks_met", "label_leaks_coco", "contradictions"):
        assert {f"figures/smoke/{table}.{kind}" for kind in ("csv", "md", "tex", "json")} <= names
    for figure in ("fig5_loss_curves", "fig5_models", "fig6_confusion_matrix", "per_class_recall", "calibration_curves"):
        assert {f"figures/smoke/{figure}.{kind}" for kind in ("png", "pdf", "json")} <= names
    for file in ("run.json", "history.csv", "metrics.json", "predictions.parquet", "model.safetensors"):
        assert {f"runs/smoke/{dataset}/{model}/seed{seed}/{file}" for dataset in ("met", "coco") for model in {*TABLE3_MODELS, *TABLE4_MODELS} for seed in (0, 1)} <= names
    held = sorted(name for name in names if any(fnmatch(name, pattern) for pattern in EXCUSED) and not name.startswith("runs/"))
    assert held == sorted([f"figures/smoke/{table}.{kind}" for table in ("table3_cost", "table4_cost") for kind in ("csv", "md", "tex", "json")] + [f"figures/smoke/audit.{kind}" for kind in ("csv", "md", "html", "json")])


@pytest.mark.slow
def test_jobs_that_outlive_their_study_are_named_and_not_run_twice(tmp_path):
    study = start(tmp_path, ["all"])
    while not list(tmp_path.glob("runs/smoke/notebooks/*.log")):
        assert study.poll() is None
        time.sleep(.1)
    os.kill(study.pid, signal.SIGKILL)  # Snakemake alone
    study.wait()
    code, said = finish(tmp_path, ["all"])
    assert code == 1 and "is in use by" in said and "kill " in said, said
    kill_group(study, tmp_path)
    assert list((tmp_path / ".snakemake" / "locks").glob("*"))  # nobody had removed them
