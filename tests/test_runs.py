"""Facts of vbg.runs.store that its notebook does not prove.

Kills at random moments, two writers at once, damaged files, the runner from outside."""

import ast
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from safetensors.numpy import save_file

import vbg
from vbg.core import files as files_module
from vbg.core.files import RunError, root
from vbg.core.profiles import profile
from vbg.runs import notebook as notebook_module
from vbg.runs import store as R
from vbg.runs import version as version_module
from vbg.runs.notebook import check_parameters
from vbg.stats.metrics import evaluate, one_hot

SPEC = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
WRITER = """
import sys
from vbg.runs.store import HISTORY, np, pd, predictions_table, write_run
for k in range(10**9):
    write_run(profile="smoke", dataset="toy", model="m", seed=0, inputs={"k": k, "by": sys.argv[1]}, metrics={"k": k},
              history=pd.DataFrame([[float(k)] * 9], columns=HISTORY), weights={"w": np.full(20000, float(k))},
              predictions=predictions_table(["a"], "test", np.array([0]), np.ones((1, 1))))
    if k == 0: print("begun", flush=True)
"""


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    return tmp_path


def write(seed=0, model="m", **more):
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=30)
    table = R.predictions_table(
        [f"i{k}" for k in range(30)], "test", y, rng.dirichlet(np.ones(3), size=30) + one_hot(y, 3)
    )
    settings = dict(
        profile="smoke",
        dataset="toy",
        model=model,
        seed=seed,
        inputs={"code": "1", "seed": seed},
        history=pd.DataFrame([[1.0] * 9], columns=R.HISTORY),
        predictions=table,
        metrics={"test": evaluate(*R.select_predictions(table, "test")[1:])},
        weights={"w": np.arange(3.0)},
    )
    return R.write_run(**settings | more)


def notebook(path, *sources, tag="parameters"):
    cells = [new_markdown_cell("# Toy")] + [new_code_cell(s) for s in sources]
    if tag:
        cells[1].metadata["tags"] = [tag]
    nbformat.write(new_notebook(cells=cells, metadata=SPEC), path)
    return path


def command(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "vbg.reports.command", "run", *map(str, words)],
        cwd=root(),
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


def whole(run):
    return (
        all(run.read(name) for name in R.FILES)
        and run.metrics["k"] == run.history.epoch[0] == run.weights()["w"][0] == run.info["inputs"]["k"]
    )


# ---- the store


def test_killed_at_random_moments_leaves_whole_runs_and_nothing_else(store):
    delay = np.random.default_rng(0)
    for attempt in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(attempt)], cwd=root(), stdout=subprocess.PIPE, text=True
        )
        writer.stdout.readline()
        time.sleep(delay.random() * 0.1)
        writer.kill()
        writer.wait()
        runs = R.load_runs("smoke")
        assert len(runs) == 1 and all(whole(r) for r in runs)
        assert len(os.listdir(store / "runs/smoke/classifiers/toy/m")) == len(runs)  # leftovers are gone


def test_reader_and_two_writers_at_once(store):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, name], cwd=root(), stdout=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    try:
        [w.stdout.readline() for w in writers]
        seen, end = set(), time.time() + 3
        while time.time() < end:
            try:
                for run in R.load_runs("smoke"):
                    seen.add(run.info["inputs"]["by"])
                    assert run.info["inputs"]["k"] >= 0
            except (files_module.RunError, FileNotFoundError):
                pass  # replaced between listing and reading
        assert [w.poll() for w in writers] == [None, None], "a writer fell over the other"
    finally:
        [w.kill() for w in writers]
        [w.wait() for w in writers]
    (run,) = R.load_runs("smoke")
    assert whole(run)


def test_failure_inside_the_writer_leaves_the_old_run(store):
    place = write()
    before = (place / "run.json").read_bytes()
    with pytest.raises(TypeError):
        write(metrics={"test": object()})
    assert (place / "run.json").read_bytes() == before and os.listdir(place.parent) == ["seed0"]


def test_a_reader_puts_back_the_run_whose_replacement_never_came(store):
    place = write()
    os.rename(place, place.with_name(f".old-999999999@{socket.gethostname()}@seed0"))
    assert [r.seed for r in R.load_runs("smoke")] == [0] and os.listdir(place.parent) == ["seed0"]


@pytest.mark.parametrize("name", ["history.csv", "predictions.parquet", "metrics.json", "model.safetensors"])
def test_changed_file_is_refused_by_name(name):
    run = R.Run(write())
    (run.folder / name).write_bytes((run.folder / name).read_bytes()[:-1])
    with pytest.raises(files_module.RunError, match=f"{name}.* was changed"):
        run.history, run.predictions, run.metrics, run.weights()


def test_weights_of_the_same_length_and_other_values_are_refused_where_they_are_read():
    "Whether a run is whole is asked often; then only the length of its weights is looked at."
    run = R.Run(write(weights={"w": np.ones(3, np.float32)}))
    save_file({"w": np.zeros(3, np.float32)}, run.folder / "model.safetensors")
    assert R.is_current(run.folder, {"code": "1", "seed": 0})
    with pytest.raises(files_module.RunError, match="model.safetensors was changed after it was written"):
        run.weights()


def test_changed_or_damaged_run_is_not_current():
    place, inputs = write(), {"code": "1", "seed": 0}
    assert R.is_current(place, inputs)
    (place / "metrics.json").write_text("{}")
    assert not R.is_current(place, inputs)
    assert R.is_current(write(), inputs)
    (place / "run.json").write_text("{")
    with pytest.raises(files_module.RunError, match="run.json is damaged"):
        _ = R.Run(place).info


def test_same_input_same_bytes_and_no_time_in_metrics():
    first = {n: (write() / n).read_bytes() for n in R.FILES}
    time.sleep(1.1)
    assert {n: (write() / n).read_bytes() for n in R.FILES} == first
    assert all(
        value is None or isinstance(value, (int, float)) for value in json.loads(first["metrics.json"])["test"].values()
    )


def test_undefined_metric_is_null_not_nan():
    place = write(metrics={"test": {"auc": float("nan"), "f1": np.float32(0.5)}})
    assert json.loads((place / "metrics.json").read_text()) == {"test": {"auc": None, "f1": 0.5}}


def test_wrong_tables_are_refused():
    with pytest.raises(ValueError, match="history has columns"):
        write(history=pd.DataFrame({"epoch": [1]}))
    with pytest.raises(ValueError, match="predictions_table"):
        write(predictions=pd.DataFrame({"id": []}))
    for name in ("..", "a/b", "", ".hidden"):
        with pytest.raises(ValueError, match="no name for a folder"):
            write(model=name)


def test_multi_label_predictions_come_back(store):
    truth = np.array([[1, 0, 1], [0, 1, 0]])
    run = R.Run(write(predictions=R.predictions_table([1, 2], "test", truth, np.full((2, 3), 0.25))))
    ids, labels, probabilities = run.select("test")
    assert np.array_equal(labels, truth) and probabilities.dtype == np.float32 and ids.tolist() == ["1", "2"]


def test_missing_runs_are_named_with_a_command_that_works(store):
    write(0)
    with pytest.raises(files_module.RunError) as told:
        R.assert_complete(R.load_runs("smoke"), ["toy"], ["m"], [0, 1])
    text = str(told.value)
    assert "toy, m, seeds [1]" in text and "make reproduce PROFILE=smoke" in text
    assert R.train_command("smoke", "toy", "m", [1, 2]) == "make everything PROFILE=smoke"  # 2 is a further seed
    line = R.train_command("mine", "toy", "m", [1, 2])
    assert notebook_module.check_parameters(
        root() / "nbs/study/train/train.ipynb",
        dict(zip(*[iter(__import__("shlex").split(line.split("-p", 1)[1].replace("-p ", "")))] * 2)),
    ) == {"profile": "mini", "dataset": "toy", "model": ["m"], "seeds": [1, 2], "store": "mine"}


def test_the_command_of_a_run_repeats_profile_data_and_overrides_of_its_mates(store):
    described = dict(reader="collection", folder="things")
    asked = {"train": dict(epochs=3, learning_rate_factor=3.0), "data": {"toy": described}}
    write(profile="mine", config=asdict(profile("smoke", asked)))
    words = shlex.split(R.train_command("mine", "toy", "m", [1]))
    given = dict(zip(words[words.index("-p") + 1 :: 3], words[words.index("-p") + 2 :: 3]))
    assert json.loads(given["overrides"]) == {"train": asked["train"]}
    assert (given["profile"], given["store"], json.loads(given["data"])) == ("smoke", "mine", described)
    assert '{"train": {"epochs": 3}}' in R.train_command("mine", "toy", "other", [1])  # the rate is one model's


def test_experiments_have_a_folder_and_a_command_of_their_own(store):
    write(profile="smoke/fusion-sum")
    assert len(R.load_runs("smoke/fusion-sum")) == 1 and R.load_runs("smoke") == []
    assert R.train_command("smoke/fusion-sum", "toy", "m", [0]) == "make supplement PROFILE=smoke"
    for row in ("recipe-flip", "rate-three-times"):
        assert R.train_command(f"mini/{row}", "toy", "m", [0]) == "make recipe PROFILE=mini"
    assert R.train_command("mini", "toy", "m", [0]) == "make reproduce PROFILE=mini"
    assert "-p profile mini " in R.train_command("mine", "toy", "m", [0]) and "-p store mine" in R.train_command(
        "mine", "toy", "m", [0]
    )


# ---- code version


def modules():
    "Dotted names of the modules of the package, and the package folder."
    package = Path(vbg.__file__).parent
    return [
        p.relative_to(package).with_suffix("").as_posix().replace("/", ".")
        for p in sorted(package.rglob("*.py"))
        if not p.stem.startswith("_")
    ], package


def test_every_module_has_a_version_that_ignores_prose(tmp_path):
    names, package = modules()
    copy = tmp_path / "pkg"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = {name: version_module.code_version(name) for name in names}
    for name in names:
        with open(copy.joinpath(*name.split(".")).with_suffix(".py"), "a", encoding="utf-8") as handle:
            handle.write("\n# a remark\n'a string'\n")
    assert {name: version_module.code_version(name, folder=copy) for name in names} == before
    assert all(len(version) == 16 for version in before.values()) and len({*before.values()}) > len(names) / 2


def test_a_changed_module_changes_those_that_import_it_and_a_lost_one_is_an_error(tmp_path):
    names, package = modules()
    copy = tmp_path / "pkg"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    changed = names[names.index("stats.metrics")]
    file = copy.joinpath(*changed.split(".")).with_suffix(".py")
    with open(file, "a", encoding="utf-8") as handle:
        handle.write("\nADDED = 1\n")
    moved = {
        name for name in names if version_module.code_version(name, folder=copy) != version_module.code_version(name)
    }
    assert changed in moved and "train.jobs" in moved and "core.profiles" not in moved
    file.unlink()
    for name in moved:
        with pytest.raises(FileNotFoundError, match=file.stem):
            version_module.code_version(name, folder=copy)


def test_version_follows_imports_as_exported():
    package = Path(vbg.__file__).parent
    tree = ast.parse((package / "train" / "jobs.py").read_text())
    assert {"core.profiles", "stats.metrics", "runs.store"} <= {
        path for path, _ in version_module.imports_of(tree, "train")
    }


def test_notebook_version_ignores_prose_and_outputs(tmp_path):
    first = version_module.notebook_version(notebook(tmp_path / "a.ipynb", "x = 1", "%time x\nprint(x)"))
    nb = nbformat.read(tmp_path / "a.ipynb", as_version=4)
    nb.cells[0].source = "# Other"
    nb.cells[1].source = "x = 1  # a remark"
    nbformat.write(nb, tmp_path / "b.ipynb")
    assert version_module.notebook_version(tmp_path / "b.ipynb") == first
    nb.cells[1].metadata["tags"] = []
    nbformat.write(nb, tmp_path / "b.ipynb")
    assert version_module.notebook_version(tmp_path / "b.ipynb") != first


# ---- the runner, from outside


def test_unknown_parameter_stops_before_anything_starts(tmp_path):
    path = notebook(tmp_path / "n.ipynb", "profile = 'mini'\nseeds = [0]")
    done = command(path, tmp_path / "out.ipynb", "-p", "sedes", "[1]")
    assert done.returncode == 2 and "has no parameter sedes; it has profile, seeds" in done.stderr
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    "sources, message",
    [
        (("x = 1\ny = x + 1",), "only `name = literal`"),
        (("x = 1\nimport os",), "only `name = literal`"),
        (("x = 1", "x += 1"), "outside the parameters cell"),
        (("x = 1", "if True:\n    x, y = 2, 3"), "outside the parameters cell"),
        (("x = 1", "%matplotlib inline\nwith open('a') as x: pass"), "outside the parameters cell"),
    ],
)
def test_parameters_that_could_be_overruled_are_refused(tmp_path, sources, message):
    with pytest.raises(files_module.RunError, match=message):
        notebook_module.notebook_parameters(notebook(tmp_path / "n.ipynb", *sources))


def test_values_in_force_are_compared_with_those_asked_for(tmp_path):
    path = notebook(tmp_path / "n.ipynb", "x = 1", "globals()['x'] = 7")
    done = command(path, tmp_path / "out.ipynb", "-p", "x", "2")
    assert done.returncode == 1 and "{'x': 7}" in done.stderr
    assert (tmp_path / "out.failed.ipynb").exists() and not (tmp_path / "out.ipynb").exists()


def test_a_notebook_of_another_environment_runs_in_this_one(tmp_path):
    path = notebook(tmp_path / "n.ipynb", "x = 1", "import sys\nprint('at', sys.executable)")
    other = {"display_name": "Museum", "language": "python", "name": "conda-env-museum-py"}
    path.write_text(path.read_text().replace(json.dumps(SPEC["kernelspec"]["name"]), json.dumps(other["name"])))
    assert "conda-env-museum-py" in path.read_text()
    done = command(path, tmp_path / "out.ipynb")
    assert done.returncode == 0 and f"at {sys.executable}" in done.stdout
    assert json.loads((tmp_path / "out.ipynb").read_text())["metadata"]["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda t: t.replace('"x = 1"', '<<<<<<< HEAD\n"x = 1"\n=======\n"x = 2"\n>>>>>>> other'),
            "conflict.*nbdev_fix",
        ),
        (lambda t: t[: len(t) // 2], "does not appear to be JSON.*Remedy: restore it"),
        (lambda t: "", "Remedy: restore it"),
        (lambda t: "[]", "Remedy: restore it"),
        (lambda t: '{"cells": 1}', "Remedy: restore it"),
        (lambda t: "version https://git-lfs.github.com/spec/v1\n", "LFS pointer. Remedy: run `git lfs pull`"),
    ],
)
def test_what_is_no_notebook_is_named_in_one_line(tmp_path, change, message):
    path = notebook(tmp_path / "n.ipynb", "x = 1")
    path.write_text(change(path.read_text()))
    with pytest.raises(RunError, match=rf"n.ipynb is no notebook: .*{message}") as error:
        check_parameters(path, {})
    assert "\n" not in str(error.value)


def test_a_notebook_with_a_mark_of_byte_order_is_read(tmp_path):
    path = notebook(tmp_path / "n.ipynb", "x = 1")
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert check_parameters(path, {"x": "2"}) == {"x": 2}


def test_blanks_quotes_and_backslashes_reach_the_notebook(tmp_path):
    said = "C:\\Fotos\\neue \"x\" 'y' $HOME `a` ü"
    path = notebook(tmp_path / "my notebook ü.ipynb", "x = ''", f"assert x == {said!r}, x")
    assert command(path, tmp_path / "out dir" / "a b.ipynb", "-p", "x", said).returncode == 0


def test_timeout_stops_the_kernel_and_keeps_the_copy(tmp_path):
    path = notebook(tmp_path / "n.ipynb", "x = 1", "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(100)")
    done = command(path, tmp_path / "out.ipynb", "--timeout", "8")
    assert done.returncode == 1 and "timed out" in done.stderr and (tmp_path / "out.failed.ipynb").exists()
    pid = int(next(l for l in (tmp_path / "out.log").read_text().splitlines() if l.isdigit()))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_killed_runner_leaves_no_output_and_the_next_one_succeeds(tmp_path):
    path = notebook(
        tmp_path / "n.ipynb", "seconds = 60", "import time\nprint('begun', flush=True)\ntime.sleep(seconds)"
    )
    runner = subprocess.Popen(
        [sys.executable, "-m", "vbg.reports.command", "run", str(path), str(tmp_path / "out.ipynb")],
        cwd=root(),
        stdout=subprocess.PIPE,
        text=True,
    )
    while "begun" not in runner.stdout.readline():
        assert runner.poll() is None
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    assert not (tmp_path / "out.ipynb").exists()
    assert command(path, tmp_path / "out.ipynb", "-p", "seconds", "0").returncode == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["n.ipynb", "out.ipynb", "out.log"]


def test_executed_notebook_lands_in_each_run_even_when_a_later_cell_fails(tmp_path, store):
    body = WRITER.replace("range(10**9)", "range(1)").replace("sys.argv[1]", "'nb'")
    path = notebook(tmp_path / "n.ipynb", "fail = False", body, "assert not fail, 'as asked'")
    assert command(path, tmp_path / "out.ipynb", env=os.environ | {"VBG_HOME": str(store)}).returncode == 0
    (run,) = R.load_runs("smoke")
    assert (run.folder / "train.ipynb").read_bytes() == (tmp_path / "out.ipynb").read_bytes()
    text = (tmp_path / "out.ipynb").read_text()
    assert str(tmp_path) not in text and str(root()) not in text  # no machine paths
    done = command(path, tmp_path / "out.ipynb", "-p", "fail", "true", env=os.environ | {"VBG_HOME": str(store)})
    assert done.returncode == 1 and "AssertionError: as asked" in done.stderr
    assert (run.folder / "train.ipynb").read_bytes() == (tmp_path / "out.failed.ipynb").read_bytes()


def test_importing_runs_is_light():
    heavy = {"torch", "transformers", "papermill", "datasets", "nbformat", "matplotlib", "sklearn"}
    code = f"import sys, vbg.runs.store; print(sorted({heavy!r} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=root(), capture_output=True, text=True).stdout.strip() == "[]"
    )
