"""`make status` and `make figures` on folders made up for it: what they say, and that they change and train nothing."""

import json
import os
import re
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from vbg.core.artefacts import ARTEFACTS, ONLY_WITHOUT_GAN, TARGETS
from vbg.core.profiles import PROFILES, TABLE3_MODELS, TABLE4_MODELS
from vbg.runs.workflow import OF_COLLECTION, TRAINS, is_whole, known_targets, planned
from vbg.train.rules import target_files

CARD = "runs/smoke/notebooks/{}.ipynb"


@pytest.fixture
def home(tmp_path):
    "A folder in which two notebooks count as executed; the runs of the one that trains are lost."
    for name, duration in (("data-met", 20.0), ("train-met-0", 300.0)):
        path = tmp_path / CARD.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {"papermill": {"duration": duration, "parameters": {"profile": "smoke", "dataset": "met"}}}
        path.write_text(json.dumps({"cells": [], "metadata": about, "nbformat": 4, "nbformat_minor": 5}))
    return tmp_path


def call(home, *words):
    env = dict(os.environ, VBG_HOME=str(home), PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300
    )


def files(home):
    return {
        p.relative_to(home).as_posix(): p.read_bytes()
        for p in home.rglob("*")
        if p.is_file() and ".snakemake" not in p.parts
    }


def row(text, rule):
    return next(line for line in text.splitlines() if line.split()[:1] == [rule]).split(maxsplit=4)[1:]


def test_status_tells_what_is_there_and_changes_nothing(home):
    before = files(home)
    done = call(home, "vbg.reports.command", "status", "--profile", "smoke", "--cores", "2")
    assert done.returncode == 0, done.stderr
    assert files(home) == before  # a notebook whose runs are lost is deleted by a run, not by a look
    text = done.stdout
    assert max(map(len, text.splitlines())) <= 80
    assert row(text, "data") == ["1", "0", "1", "20 s"]  # the other set costs what this one did
    assert row(text, "train") == ["0", "0", "4", "20 min"]  # 4 times 300 s: lost runs are made again
    assert row(text, "artefact_summary") == ["0", "0", "1", "unknown"]
    for said in (
        "train-met-1\n",
        "data-coco\n",
        "missing: its runs are lost (1)\n  train-met-0\n",
        "largest costs\n  train-met-0",
        "time left: about 10 min on 2 cores (20 min of work)",
        "not counted: 19 jobs",
    ):
        assert said in text, (said, text)


def test_further_seeds_are_missing_where_a_target_trains_them_and_count_in_tables_once_they_are_there(home):
    """A notebook of a further seed on one data set is not enough. With both, tables wait for it: it has no runs here,
    so it is lost and does not count."""
    told = lambda target: (
        call(home, "vbg.reports.command", "status", "--profile", "smoke", "--cores", "2", target).stdout
    )
    assert "train-met-2" in told("seeds") and row(told("everything"), "train")[2] == "6"
    for dataset in ("met", "coco"):
        (home / CARD.format(f"train-{dataset}-2")).write_text((home / CARD.format("train-met-0")).read_text())
    assert row(told("all"), "train")[:3] == ["0", "0", "4"], "its runs are lost: the study is drawn without it"
    assert "missing: its runs are lost (3)" in told("seeds")


def test_after_a_first_answer_the_rest_is_estimated_by_the_models_that_it_trains_more(home):
    (home / CARD.format("train-met-0")).rename(home / CARD.format("train-met-first"))
    done = call(home, "vbg.reports.command", "status", "--profile", "smoke", "--cores", "2")
    assert row(done.stdout, "first")[:3] == ["0", "0", "2"] and row(done.stdout, "train")[:3] == ["0", "0", "4"]
    models = len({*TABLE3_MODELS, *TABLE4_MODELS})
    assert row(done.stdout, "train")[3] == f"{4 * 300 * models / 3 / 3600:.1f} h"  # 300 s for three of them


def test_figures_without_runs_are_refused_by_name_and_nothing_starts(home):
    before, begun = files(home), time.time()
    done = call(home, "vbg.reports.command", "figures", "--profile", "smoke")
    assert done.returncode == 1 and "train-met-1" in done.stderr and "make reproduce" in done.stderr
    assert files(home) == before and time.time() - begun < 60


def test_a_damaged_run_is_named_and_the_rest_is_told(home):
    card, run = home / CARD.format("train-met-0"), home / "runs/smoke/classifiers/met/vbg/seed0/run.json"
    executed = json.loads(card.read_text())
    executed["metadata"]["papermill"]["parameters"] |= {"model": ["vbg"], "seeds": [0]}
    card.write_text(json.dumps(executed))
    run.parent.mkdir(parents=True)
    run.write_text('{\n "best_epoch": 6,\n "class_na')
    (home / CARD.format("data-met")).write_text('{"cells": [')
    (manifest := home / "runs/smoke/figures/manifest.json").parent.mkdir(parents=True)
    manifest.write_text("[]")
    before, done = files(home), call(home, "vbg.reports.command", "status", "--profile", "smoke", "--cores", "2")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    for said in (
        "damaged: delete, then make reproduce PROFILE=smoke again (1)\n  runs/smoke/classifiers/met/vbg/seed0\n",
        f"damaged: delete, then the same target again (1)\n  {CARD.format('data-met')}\n",
        "damaged: delete, then make figures PROFILE=smoke again (1)\n  runs/smoke/figures/manifest.json\n",
        "largest costs\n  train-met-0",
        "missing: its runs are lost (1)\n  train-met-0\n",
    ):
        assert said in done.stdout, (said, done.stdout)
    assert row(done.stdout, "train") == [
        "0",
        "0",
        "4",
        "at most 20 min",
    ]  # the folder is there: what is whole in it is kept
    assert files(home) == before


def test_fewer_cores_than_one_are_refused(home):
    before = files(home)
    for name in ("status", "study"):
        for cores in ("0", "-2"):
            done = call(home, "vbg.reports.command", name, "--profile", "smoke", "--cores", cores)
            assert done.returncode == 2 and done.stderr.splitlines()[-1].endswith(
                f"argument --cores: must be a whole number of 1 or more, not '{cores}'"
            ), done.stderr
    assert files(home) == before


def test_a_training_that_may_keep_its_runs_costs_at_most_so_much(own_home):
    card = own_home / CARD.format("data-met")
    content, times = card.read_bytes(), card.stat()
    assert call(own_home, "vbg.reports.command", "status", "--profile", "smoke").stdout.endswith(
        "nothing is left to do\n"
    )
    card.write_bytes(content + b"\n")  # newer, and another file; the data are the same
    try:
        done = call(own_home, "vbg.reports.command", "status", "--profile", "smoke", "--cores", "2")
    finally:
        card.write_bytes(content)
        os.utime(card, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert done.returncode == 0, done.stderr
    *_, stale, missing, left = row(done.stdout, "train")
    assert int(stale) >= 1 and missing == "0" and left.startswith("at most "), done.stdout
    assert not row(done.stdout, "artefact_summary")[-1].startswith("at most")
    assert (
        "time left: at most" in done.stdout
        and "of it is work of jobs that keep what was made from the same inputs\n" in done.stdout
    )
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_runs_and_gans_of_a_finished_study_are_whole(smoke_home):
    runs, gans = list(smoke_home.glob("runs/smoke/*/**/seed[0-9]")), list(smoke_home.glob("runs/smoke/gans/*/*/gan*"))
    assert len(runs) > 50 and len(gans) >= 2
    assert (
        [folder for folder in runs if not is_whole(folder)] == [folder for folder in gans if not is_whole(folder)] == []
    )


@pytest.mark.parametrize("command", ["status", "figures", "study", "study --look"])
def test_a_wrong_target_is_told_with_the_names_that_work(home, monkeypatch, capsys, command):
    from vbg.reports.command import main

    monkeypatch.setenv("VBG_HOME", str(home))
    monkeypatch.delenv("VBG_FOLDER", raising=False)
    assert main([*command.split(), "--profile", "smoke", "nonsense"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("no target is called nonsense; ")
    assert {*re.findall(r"\w+", told)} >= {*known_targets(), "label_leaks", "fig7_heatmap", "table3_comparison"}
    assert "collection" not in told
    assert main([*command.split(), "--profile", "smoke", "small_collection"]) == 2
    assert capsys.readouterr().err.startswith("which folder? make collection FOLDER=")


def test_every_name_of_that_list_can_be_asked_for(home, monkeypatch):
    monkeypatch.setenv("VBG_HOME", str(home))
    monkeypatch.delenv("VBG_FOLDER", raising=False)
    jobs = {job.notebook for job in planned("smoke", known_targets())}
    for name in {*ARTEFACTS} - {*OF_COLLECTION, *ONLY_WITHOUT_GAN}:
        books = [file for file in target_files("smoke", name) if file.endswith(".ipynb")]
        assert books and {*books} <= jobs, name
    monkeypatch.setenv("VBG_FOLDER", str(home))
    assert any(job.rule == "small_collection" for job in planned("smoke", ["small_collection"]))


def test_a_notebook_named_alone_is_run_for_all_its_data_sets(home, monkeypatch):
    monkeypatch.setenv("VBG_HOME", str(home))
    drawn = [job.name for job in planned("smoke", ["fig7_heatmap"]) if job.rule not in TRAINS]
    assert sorted(drawn) == ["fig7_heatmap-coco", "fig7_heatmap-met"]


@pytest.mark.parametrize("command", ["status", "figures", "study"])
def test_a_wrong_profile_is_told_in_one_line_before_snakemake_is_called(home, monkeypatch, capsys, command):
    from vbg.reports.command import main
    from vbg.runs import workflow

    monkeypatch.setenv("VBG_HOME", str(home))
    monkeypatch.setattr(workflow.subprocess, "run", None)
    assert main([command, "--profile", "nope"]) == 2
    assert capsys.readouterr().err == "no profile 'nope'; there are smoke, mini, paper, pretrained, real\n"
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = capsys.readouterr().out
    assert all(f"{name} (" in " ".join(said.split()) for name in PROFILES)


def test_makefile_calls_what_these_tests_call():
    for target, said in (
        ("status", "-m vbg.reports.command status --profile smoke"),
        ("figures", "-m vbg.reports.command figures --profile smoke"),
        ("book", "-m vbg.reports.command book --profile smoke"),
        ("reproduce", "-m vbg.reports.command study --profile smoke --cores 3 --gpus"),
    ):
        words = ["make", "-n", target, "PROFILE=smoke", "CORES=3"]
        env = {
            key: value
            for key, value in os.environ.items()
            if key not in ("PROFILE", "CORES", "TARGETS", "MAKEFLAGS", "MAKELEVEL")
        }
        shown = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
        assert said in shown.replace("'", ""), target


@pytest.mark.parametrize("profile", ["smoke", "mini", "paper"])
def test_everything_asks_for_all_files_of_every_other_target(profile):
    "But for the collection, which needs a folder of the user."
    others = [{*target_files(profile, target)} for target in (*TARGETS, "seeds") if target != "collection"]
    assert {*target_files(profile, "everything")} == set().union(*others) and all(others) and len(others) > 6
