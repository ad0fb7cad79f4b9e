"A training that is killed goes on to the bits of one that is not, and leaves nothing behind."

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT

import vbg.train.jobs as vt
from vbg.gan.pairs import PairMaker
from vbg.runs import resume
from vbg.runs.store import run_folder
from vbg.train import fit as fit_module
from vbg.train.gan_jobs import train_gans

LIVELY = dict(epochs=7, patience=2, plateau_gain=0.9, decay=0.5, mixup=0.3, crop=0.1)
KINDS = {  # what is trained, with which settings, and the epoch after which it is stopped
    "a network": ("squeezenet", dict(train=dict(epochs=3, crop=0.1)), 2),
    "vbg": ("without_gan", dict(train=LIVELY), 4),
    "no validation": ("textcnn", dict(train=dict(epochs=3, select="last")), 1),
}
KILLED = """
import os, signal, sys
import vbg.train.jobs as jobs
from vbg.runs import resume

resume.EVERY, resume.SHARE = 0.0, 1.0
offer = resume.States.offer


def offer_and_die(self, epoch, make):
    offer(self, epoch, make)
    if epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)


resume.States.offer = offer_and_die
jobs.train_runs("smoke", "met", models="without_gan", seeds=[0], overrides={"train": dict(epochs=3)}, store="killed")
"""


class Stop(Exception):
    "The machine stops."


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBG_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    "A state after each epoch."
    monkeypatch.setattr(resume, "EVERY", 0.0)
    monkeypatch.setattr(resume, "SHARE", 1.0)


def train(store, kind):
    name, overrides, _ = KINDS[kind]
    return vt.train_runs("smoke", "met", models=name, seeds=[0], overrides=overrides, store=store)[0]


def stop_after(last, monkeypatch, job):
    "Run a job to the state of an epoch; then others draw."
    offer = resume.States.offer

    def stopping(self, epoch, make):
        offer(self, epoch, make)
        if epoch == last:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(resume.States, "offer", stopping)
        with pytest.raises(Stop):
            job()
    torch.rand(5), np.random.random(5)


def result(folder):
    "All that a run holds but the time it took."
    names = ["predictions.parquet", "metrics.json", "model.safetensors", "pairs.npz"]
    files = {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
    told = json.loads((folder / "run.json").read_text())
    about = {name: told.get(name) for name in ("epochs", "best_epoch", "plateau", "inputs", "loop", "loop_stopped")}
    history = pd.read_csv(folder / "history.csv").drop(columns=["seconds", "items_per_second"])
    return files, about, history.to_csv()


def left_behind(home):
    return sorted(path.name for path in home.rglob(".state-*"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_training_goes_on_to_the_same_bits(home, monkeypatch, capsys, kind):
    store = kind.replace(" ", "-")
    unbroken = result(train(f"{store}-whole", kind).folder)
    stop_after(KINDS[kind][2], monkeypatch, lambda: train(store, kind))
    assert left_behind(home) == [".state-seed0"]
    capsys.readouterr()
    again = train(store, kind)
    said = capsys.readouterr().out
    assert f"goes on after epoch {KINDS[kind][2]}\n" in said and f"epoch {KINDS[kind][2]} of" not in said
    assert result(again.folder) == unbroken
    assert left_behind(home) == []
    if kind == "vbg":  # it was stopped while its rate fell
        assert unbroken[1]["plateau"] and unbroken[1]["epochs"] > KINDS[kind][2]


@pytest.fixture()
def generous(home, monkeypatch):
    "A loop that keeps every pair and whose rounds go on: the GAN of this size makes none that would be kept."
    train_gans("smoke", "met", [0])
    judge, validate = PairMaker.judge, fit_module.validate
    monkeypatch.setattr(PairMaker, "judge", lambda *a, **k: judge(*a, **k).assign(kept=True, reason=""))
    rising = lambda found: found | dict(validation_f1=1 / found["validation_loss"])
    monkeypatch.setattr(fit_module, "validate", lambda *asked: rising(validate(*asked)))


def test_pairs_that_joined_before_the_stop_are_learnt_from_after_it(home, generous, monkeypatch):
    "After epoch 1 the first pairs join; after the stop the loop warms its GAN up again and makes another round."
    asked = dict(train=dict(epochs=3, items_per_epoch="real"), loop=dict(rounds=2, every=1, pairs=20, warm_epochs=1))
    for model, kind in (("vbg", "loop"), ("without_vit", "pairs_of_vbg")):
        monkeypatch.setitem(KINDS, "pairs", (model, asked | dict(balance=dict(kind=kind, gan=0)), 1))
        unbroken = result(train("pairs-whole", "pairs").folder)
        stop_after(1, monkeypatch, lambda: train("pairs", "pairs"))
        assert result(train("pairs", "pairs").folder) == unbroken
        assert left_behind(home) == []
        if model == "vbg":
            rounds = unbroken[1]["loop"]
            assert [sum(one["kept"]) for one in rounds] == [20, 20]
            assert rounds[0]["gan_epochs"] < rounds[1]["gan_epochs"]


def test_a_process_that_is_killed_leaves_a_state_to_go_on_from(home, capsys):
    env = dict(os.environ, VBG_HOME=str(home), PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    done = subprocess.run(
        [sys.executable, "-c", KILLED], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    asked = dict(models="without_gan", seeds=[0], overrides={"train": dict(epochs=3)})
    (again,) = vt.train_runs("smoke", "met", **asked, store="killed")
    assert "goes on after epoch 2" in capsys.readouterr().out
    (whole,) = vt.train_runs("smoke", "met", **asked, store="calm")
    assert result(again.folder) == result(whole.folder)
    assert left_behind(home) == []


def test_a_state_of_other_inputs_is_removed_and_a_damaged_one_costs_an_epoch(home, monkeypatch, capsys):
    kind = "no validation"
    stop_after(2, monkeypatch, lambda: train("damaged", kind))
    folder = resume.state_folder(run_folder("damaged", "met", "textcnn", 0))
    assert len(list(folder.glob("*.pt"))) == 2
    (folder / "epoch000002.pt").write_bytes((folder / "epoch000002.pt").read_bytes()[:-50])
    capsys.readouterr()
    damaged = train("damaged", kind)
    assert "goes on after epoch 1\n" in capsys.readouterr().out
    assert result(damaged.folder) == result(train("calm-damaged", kind).folder)

    stop_after(1, monkeypatch, lambda: train("other", kind))
    monkeypatch.setitem(KINDS, kind, ("textcnn", dict(train=dict(epochs=2, select="last")), 1))
    capsys.readouterr()
    other = train("other", kind)
    assert "goes on" not in capsys.readouterr().out and len(other.history) == 2
    assert left_behind(home) == []


def test_a_kept_run_leaves_no_state_and_a_short_training_writes_none(home, monkeypatch):
    kind = "no validation"
    run = train("kept", kind)
    folder = resume.state_folder(run.folder)
    folder.mkdir()  # killed between writing the run and removing its states
    train("kept", kind)
    assert not folder.exists()
    monkeypatch.setattr(resume, "EVERY", 30.0)
    written = []
    monkeypatch.setattr(torch, "save", lambda *asked: written.append(asked))
    train("short", kind)
    assert written == []


def test_states_take_a_small_share_of_a_training(tmp_path, monkeypatch):
    "A clock that a state moves by 4 seconds, and an epoch by 10: 5 % allow one state in 80 seconds."
    now = [100.0]
    monkeypatch.setattr(resume.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(resume, "SHARE", 0.05)
    monkeypatch.setattr(resume, "EVERY", 30.0)
    slow = lambda: now.__setitem__(0, now[0] + 4.0) or {}
    states, spent, begun = resume.States(tmp_path / "run", {}), 0.0, now[0]
    for epoch in range(1, 200):
        now[0] += 10.0
        before = now[0]
        states.offer(epoch, slow)
        spent += now[0] - before
        assert spent <= 0.05 * (now[0] - begun) + 4.0  # the one that was just written
    assert spent >= 0.04 * (now[0] - begun)


def test_every_generator_goes_back_to_where_it_was():
    "Also those that no training draws from today."
    import random

    own = dict(a=torch.Generator().manual_seed(1), b=np.random.default_rng(1))
    draws = {
        "python": lambda: random.gauss(0, 1),
        "numpy": lambda: np.random.normal(),
        "torch": lambda: torch.rand(1).item(),
        "a": lambda: torch.rand(1, generator=own["a"]).item(),
        "b": lambda: own["b"].normal(),
    }
    [draw() for draw in draws.values()]  # a second normal number is kept for the next call
    state = resume.random_state(own)
    first = {name: [draw() for _ in range(3)] for name, draw in draws.items()}
    resume.set_random_state(state, own)
    assert {name: [draw() for _ in range(3)] for name, draw in draws.items()} == first
