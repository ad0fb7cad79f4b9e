"""Training on drawings: it repeats itself, goes on where it was stopped, and its weights fit the study's networks."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from safetensors import safe_open
from safetensors.torch import save_file

from vbg.core.files import DataError
from vbg.core.places import weights_file
from vbg.core.profiles import PROFILES, profile
from vbg.data.formula import drawn_batches, formulas
from vbg.models.checkpoints import start_from
from vbg.models.networks import build_network
from vbg.models.vbg import build_model
from vbg.models.vision import to_pixel_values
from vbg.runs import resume
from vbg.runs.made import read_note, whole
from vbg.train.code import told_inputs
from vbg.train.pretrain import NETWORKS, Pretraining, fresh_network, stored_weights, trunk

FOLDER = weights_file("formula", "vit").parent
COMMITTED = [name for name in NETWORKS if (FOLDER / f"{name}.safetensors").exists()]
SWITCHED_ON = {PROFILES["mini"][section]["weights"] for section in ("vision", "baselines")} != {None}
FIRST_STEPS = "import json, sys; from test_pretrain import first_steps; print(json.dumps(first_steps(sys.argv[1])))"


def vbg(*arguments, home):
    env = dict(os.environ, VBG_HOME=str(home), PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    command = [sys.executable, "-m", "vbg.reports.command", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)


def first_steps(name):
    "Losses of the first two steps of a pretraining."
    training = Pretraining(profile("mini"), name)
    asked, size = training.settings.pretraining, training.settings.vision["image_size"]
    classes = formulas(asked["classes"], asked["seed"])
    drawings = drawn_batches(classes, 96, asked["batch_size"], [asked["seed"], 1], size)
    batches = [(to_pixel_values(torch.from_numpy(pixels)), torch.from_numpy(labels)) for pixels, labels in drawings]
    return [training.step(*batch) for batch in batches]


@pytest.mark.parametrize("name", ["vit", "squeezenet"])
def test_the_first_steps_repeat_in_another_process(name):
    losses = first_steps(name)
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    env = dict(os.environ, PYTHONPATH=paths, OMP_NUM_THREADS="1")
    command = [sys.executable, "-c", FIRST_STEPS, name]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert json.loads(done.stdout) == losses, done.stderr[-2000:]
    assert len(losses) == 2 and losses[0] == pytest.approx(5.99, abs=0.6)  # log 400: it knows nothing yet


def stopped_in_the_second(epoch):
    "An epoch of a training that is stopped once it has learnt for one."

    def stop(training):
        if training.history:
            raise KeyboardInterrupt
        return epoch(training)

    return stop


def test_a_stochastic_network_that_is_stopped_learns_what_one_that_is_not_learns(tmp_path, monkeypatch):
    "Swin drops whole layers at random; VGG drops features."
    from vbg.train import pretrain as p

    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    monkeypatch.setattr(resume, "EVERY", 0.0)
    monkeypatch.setattr(resume, "SHARE", 1.0)
    small = profile("smoke", {"pretraining": dict(items=32, epochs=2, classes=4, batch_size=16)})
    for name in ("swin", "vgg"):
        whole_, part = (p.pretrain(small, name, tmp_path / kind) for kind in ("whole", "again"))
        assert whole_.read_bytes() == part.read_bytes()
        state = resume.state_folder(tmp_path / "runs/smoke/pretraining" / name)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(p.Pretraining, "epoch", stopped_in_the_second(p.Pretraining.epoch))
            p.pretrain(small, name, tmp_path / "stopped")
        assert state.exists() and not (tmp_path / "stopped" / f"{name}.json").exists()
        torch.manual_seed(5)  # what else a process has drawn does not matter
        said = []
        monkeypatch.setattr(p.Progress, "say", lambda self, line: said.append(line))
        assert p.pretrain(small, name, tmp_path / "stopped").read_bytes() == whole_.read_bytes()
        assert said[0] == f"{name} goes on after epoch 1" and len(said) == 2  # only the second epoch was trained
        assert not state.exists()


def test_the_command_trains_several_at_once_and_keeps_what_is_finished(tmp_path):
    asked = ["pretrain", "--profile", "smoke", "--networks", "vit", "squeezenet", "--cores", 2]
    less = ["--overrides", json.dumps({"pretraining": dict(items=32, epochs=1)})]
    done = vbg(*asked, *less, home=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "runs/smoke/weights"
    assert {file.name for file in folder.iterdir()} == {
        f"{name}.{kind}" for name in ("vit", "squeezenet") for kind in ("json", "safetensors")
    }
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    again = vbg(*asked, *less, home=tmp_path)
    assert again.stdout.count("kept, nothing it depends on changed") == 2
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    with safe_open(folder / "vit.safetensors", "pt") as file:
        about = json.loads(file.metadata()["pretraining"])
    assert about["network"] == "vit" and about["seed"] == 0 and about["items"] == 32
    wrong = vbg("pretrain", "--networks", "textcnn", home=tmp_path)
    assert wrong.returncode == 2 and wrong.stderr.startswith("no image network 'textcnn'; there are vit, resnet")


def test_weights_that_are_missing_or_of_another_architecture_are_named_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    there = profile("mini", {section: dict(weights="runs/x/weights") for section in ("vision", "baselines")})
    builds = {
        "vit": [lambda: build_model(there, "without_bert_gan", num_classes=3)]
        + [lambda: build_network(there, name="clip", num_classes=3, vocab_size=9)],
        "vgg": [lambda: build_network(there, name="vgg", num_classes=3, vocab_size=9)],
    }
    for name, several in builds.items():
        for build in several:
            with pytest.raises(DataError, match=rf"runs/x/weights/{name}.safetensors: there are no .* `make pretrain`"):
                build()
    build_network(there, name="textcnn", num_classes=3, vocab_size=9)  # no image network
    file = tmp_path / "runs/x/weights/vgg.safetensors"
    file.parent.mkdir(parents=True)
    save_file(stored_weights(trunk(fresh_network(there, "vit"))), file)
    with pytest.raises(DataError, match="vgg.safetensors: weights of another model: .*`weights` to None"):
        builds["vgg"][0]()


def test_a_run_is_told_the_checksum_of_the_weights_that_it_starts_from(tmp_path):
    there = profile("mini", {section: dict(weights=f"{tmp_path}/") for section in ("vision", "baselines")})
    told = lambda settings, model: told_inputs(settings, "met", model, 0, ["test"])["weights"]
    (tmp_path / "vit.safetensors").write_bytes(b"1")
    before = {model: told(there, model) for model in ("vbg", "clip", "resnet", "textcnn", "without_vit", "tfidf")}
    (tmp_path / "vit.safetensors").write_bytes(b"2")
    changed = {model for model, one in before.items() if told(there, model) != one}
    assert changed == {"vbg", "clip"} and before["resnet"] == "absent"
    assert [before[model] for model in ("textcnn", "without_vit", "tfidf")] == [None] * 3
    assert told(profile("mini", {section: dict(weights=None) for section in ("vision", "baselines")}), "vbg") is None


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_weights_are_whole_fit_the_study_and_have_learnt(name):
    note = read_note(FOLDER / f"{name}.json")
    assert whole(FOLDER / f"{name}.json") and note["inputs"]["network"] == name
    assert note["inputs"]["settings"] == json.loads(json.dumps(profile("mini").pretraining))
    network = trunk(fresh_network(profile("mini"), name))
    assert sum(p.numel() for p in network.parameters()) == note["parameters"]
    start_from(network, "formula", name)
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())
    assert note["history"][-1]["validation_accuracy"] > 0.2  # by chance: 1 in 400


def test_committed_weights_are_small():
    assert sum(file.stat().st_size for file in FOLDER.glob("*")) <= 4_000_000


def test_all_image_networks_start_from_drawings_or_none():
    "Table 3 compares networks that started alike."
    assert {PROFILES["mini"]["vision"]["weights"], PROFILES["mini"]["baselines"]["weights"]} in ({None}, {"formula"})
    assert not SWITCHED_ON or COMMITTED == list(NETWORKS), "run `make pretrain`"


def test_the_weights_are_installed_with_the_package():
    assert '"vbg.models": ["weights/*/*"]' in (ROOT / "setup.py").read_text(encoding="utf-8")
    assert FOLDER.parent == ROOT / "vbg" / "models" / "weights"
