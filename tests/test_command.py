"""The `vbg` command: a misspelt name is told at once, by every command that takes it, before anything is imported."""

import os
import re
import resource
import subprocess
import sys

import pytest
from conftest import ROOT

from vbg.reports import command

HEAVY = "{'torch', 'transformers', 'pandas', 'numpy', 'papermill'} & set(sys.modules)"
CALL = f"import sys; from vbg.reports.command import main; print(main(sys.argv[1:]), sorted({HEAVY}))"


def call(home, *words):
    "What a command says, and the seconds that it computed: on a busy machine the clock tells nothing."
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    env = dict(os.environ, VBG_HOME=str(home), PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, "-c", CALL, *words], cwd=ROOT, env=env, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("name", [f.__name__ for f, options in command.COMMANDS.items() if "--profile" in options])
def test_a_misspelt_profile_is_told_before_anything_is_imported(tmp_path, name):
    done, seconds = call(tmp_path, name, "--profile", "nope", *["--item", "1"] * (name == "report"))
    assert done.stdout.split() == ["2", "[]"], done.stdout + done.stderr
    assert done.stderr == "no profile 'nope'; there are smoke, mini, paper, pretrained, real\n"
    assert seconds < 2


@pytest.mark.parametrize(
    "words, said",
    [
        (["train", "--dataset", "nope"], "profile 'mini' has no data set 'nope', only met, coco"),
        (["gan", "--dataset", "nope"], "profile 'mini' has no data set 'nope', only met, coco"),
        (["train", "--model", "vbg", "nope"], "no model 'nope'; there are vbg"),
        (["train", "--splits", "tset"], "splits: no 'tset'; there are train, "),
        (["train", "--store", "mini"], "runs/mini is filled by the study alone"),
        (["gan", "--store", "mini"], "runs/mini is filled by the study alone"),
        (["report", "--dataset", "foo", "--item", "1"], "'mini' has no data set 'foo'; there are met, coco"),
        (
            ["report", "--profile", "smoke", "--dataset", "foo", "--item", "1"],
            "'smoke' has no data set 'foo'; there are",
        ),
        (["report", "--profile", "smoke", "--model", "nope", "--item", "1"], "no model 'nope'; there are vbg"),
        (["train", "--overrides", '{"train": {"epoch": 2}}'], "no setting of 'train' is called 'epoch'"),
    ],
)
def test_other_names_are_told_as_early(tmp_path, words, said):
    done, _ = call(tmp_path, *words)
    assert done.stdout.split() == ["2", "[]"] and done.stderr.startswith(said) and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words, said",
    [
        (
            ["train/train.ipynb", "-p", "profile", "nope"],
            "no profile 'nope'; there are smoke, mini, paper, pretrained, real",
        ),
        (["train/train.ipynb", "-p", "dataset", "nope"], "profile 'mini' has no data set 'nope', only met, coco"),
        (["train/train.ipynb", "-p", "model", "nope"], "no model 'nope'; there are vbg"),
        (
            ["paper/summary.ipynb", "-p", "profile", "nope"],
            "no profile 'nope'; there are smoke, mini, paper, pretrained, real",
        ),
        (["explain/fig7_heatmap.ipynb", "-p", "dataset", "nope"], "profile 'mini' has no data set 'nope', only met"),
        (["paper/summary.ipynb", "-p", "profle", "mini"], "has no parameter profle; it has profile"),
        (["paper/absent.ipynb"], "nbs/study/paper/absent.ipynb"),
    ],
)
def test_names_in_the_parameters_of_a_notebook_are_told_before_a_kernel_starts(tmp_path, words, said):
    notebook, *given = words
    done, _ = call(tmp_path, "run", f"nbs/study/{notebook}", str(tmp_path / "out.ipynb"), *given)
    assert done.stdout.split()[0] == "2" and "papermill" not in done.stdout
    assert said in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_data_set_that_only_a_run_has_can_be_reported_on(tmp_path, monkeypatch):
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    (tmp_path / "runs/by-hand/classifiers/mine/vbg/seed0").mkdir(parents=True)
    words = ["report", "--profile", "by-hand", "--item", "1", "--dataset"]
    command.refuse_unknown(command.parser().parse_args([*words, "mine"]))
    with pytest.raises(ValueError, match="'by-hand' has no data set 'met'; there are mine$"):
        command.refuse_unknown(command.parser().parse_args([*words, "met"]))


@pytest.mark.parametrize("folder", ["runs/by-hand", "runs/collection-mine"])
def test_a_folder_of_runs_that_is_no_profile_can_be_shown(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    (tmp_path / folder).mkdir(parents=True)
    name = folder.removeprefix("runs/")
    command.refuse_unknown(command.parser().parse_args(["show", "--profile", name]))
    with pytest.raises(ValueError, match="no profile"):
        command.refuse_unknown(command.parser().parse_args(["train", "--profile", name]))


def test_help_tells_every_default_and_names_only_options_that_are_there():
    for function, options in command.COMMANDS.items():
        for name, how in options.items():
            told = how.get("default") in (None, "", [], {}) or "default:" in how["help"]
            assert told or how.get("action") == "store_true", (
                f"vbg {function.__name__} {name} has a default and tells none"
            )
            named = set(re.findall(r"--[a-z-]+", how["help"])) - {"--help"}
            assert named <= options.keys(), f"vbg {function.__name__} {name} speaks of {named - options.keys()}"


def test_make_help_names_every_target():
    text = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY:((?:.*\\\n)*.*)", text, re.M)[1].replace("\\\n", " ").split()
    said = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    missing = [name for name in targets if not re.search(rf"make {name}\b(?!-)", said)]
    assert missing == ["help", "install"] and max(map(len, said.splitlines())) <= 125


@pytest.mark.parametrize("out,page", [("", "decision_report_met_3.html"), ("new/", "decision_report_met_3.html")])
def test_a_report_goes_into_the_folder_that_out_names(tmp_path, monkeypatch, out, page):
    from types import SimpleNamespace

    from vbg.reports import command, object_page

    monkeypatch.setattr(object_page, "open_run", lambda *words: None)
    decision = SimpleNamespace(data=SimpleNamespace(ids=["images/3.jpg"]))
    monkeypatch.setattr(object_page, "decide", lambda *words, **named: decision)
    monkeypatch.setattr(object_page, "report_html", lambda *words: "<html>")
    words = ["report", "--profile", "mini", "--dataset", "met", "--item", "a", "--out", f"{tmp_path}/{out}"]
    assert command.main(words) == 0 and (tmp_path / out / page).read_text() == "<html>"
