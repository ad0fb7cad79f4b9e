"""A notebook run by hand leaves the study as it is; a run in its store that the study did not make is told."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

from vbg.core.files import RunError
from vbg.core.places import figures_place
from vbg.core.plan import SPLITS
from vbg.core.profiles import BY_HAND, profile
from vbg.gan.store import gan_remedy, measure_inputs
from vbg.reports import command
from vbg.results.gan import gan_folders
from vbg.runs.made import write_note
from vbg.runs.notebook import given, notebook_parameters, study_notebook
from vbg.runs.status import made_by
from vbg.runs.store import gan_place, load_runs
from vbg.train.code import told_otherwise
from vbg.train.gan_jobs import train_gans
from vbg.train.jobs import train_runs
from vbg.train.language_model import adapt_runs
from vbg.train.rules import book, lost_books

SHORT = {"train": dict(epochs=1), "balance": dict(gan=0)}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "A home that holds one run of the study, which was told another learning rate than the study tells it."
    folder = tmp_path_factory.mktemp("by_hand")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBG_HOME", str(folder))
        train_runs("smoke", "met", models="without_vit_gan", seeds=[0], overrides=SHORT)
        yield folder


def files(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def papermill(home, *words):
    "The plain command line."
    command = [sys.executable, "-m", "papermill", str(study_notebook("train")), str(home / "out.ipynb"), *words]
    env = os.environ | {"VBG_HOME": str(home)}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def test_papermill_by_hand_leaves_the_study_alone(home):
    "The defaults of the notebook, at the size of the smoke profile. Texts arrive as what they stand for."
    before = files(home / "runs" / "smoke")
    words = ["-p", "model", "without_vit_gan", "-p", "overrides", '{"train": {"epochs": 2}}', "-r", "seeds", "0"]
    done = papermill(home, "-p", "profile", "smoke", *words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert files(home / "runs" / "smoke") == before
    (run,) = load_runs("by-hand")
    assert (run.model, run.seed, run.info["config"]["train"]["epochs"]) == ("without_vit_gan", 0, 2)


@pytest.mark.parametrize(
    "words, message",
    [
        (["-p", "modle", "vbg"], "has no parameter modle; it has profile, dataset, model"),
        (["-p", "seeds", "first"], "parameter seeds: ['first'] is not of the kind of [0]"),
        (["-p", "overrides", "{train: 1"], "lists and dicts are JSON"),
        (["-p", "profile", "3"], "parameter profile: 3 is not of the kind of 'mini'"),
    ],
)
def test_papermill_is_told_what_is_wrong_before_anything_is_trained(home, words, message):
    done = papermill(home, *words)
    assert done.returncode == 1 and message in done.stderr and "RunError" in done.stderr
    assert not (home / "runs" / "mini").exists()


@pytest.mark.parametrize(
    "name, asked, message",
    [
        ("train", dict(splits=["tset"]), "splits: no 'tset'; there are train, "),
        ("train", dict(model=[]), "model is empty"),
        ("gan", dict(conditioning="klass"), "conditioning: no 'klass'"),
        ("gan", dict(loss="x"), "loss: no 'x'"),
        ("gan_measured", dict(numbers=[]), "numbers is empty"),
        ("language_model", dict(seeds=[]), "seeds is empty"),
        ("train", dict(seeds=[0, 0]), "seeds must be different numbers from 0 on"),
        ("gan", dict(gans=[-1]), "gans must be different numbers from 0 on"),
        ("gan", dict(scarce_items=-3), "scarce_items must be 0"),
        ("loop", dict(profile="smoke", datasets=["mett"]), "no data set 'mett', only met, coco"),
        ("gan_choice", dict(dataset="mett"), "no data set 'mett', only met, coco"),
        ("fig7_heatmap", dict(split="tset"), "split: no 'tset'; there are train, "),
        ("fig5_loss_curves", dict(model="vgb"), "no model 'vgb'; there are vbg, "),
        ("train", dict(overrides={"train": {"learning_rate": -1.0}}), "train.learning_rate must be 0 or more"),
        ("train", dict(overrides={"train": {"token_masking": 2.0}}), "train.token_masking must be from 0 to 1"),
        ("train", dict(overrides={"train": {"epochs": 0}}), "train.epochs must be 1 or more"),
        ("train", dict(overrides={"train": {"items_per_epoch": "reel"}}), "must be a whole number, 'real' or none"),
        ("train", dict(overrides={"train": {"factors": {"met": {"vgb": 3.0}}}}), "no model 'vgb'"),
        ("gan", dict(overrides={"gan": {"text": {"epochs": 0}}}), "gan.text.epochs must be 1 or more"),
    ],
)
def test_a_notebook_is_told_what_is_no_choice(name, asked, message):
    with pytest.raises(ValueError, match=message):
        given(name, notebook_parameters(study_notebook(name)) | asked)


@pytest.mark.parametrize("name", ["train", "domains", "gan", "gan_measured", "language_model"])
def test_every_notebook_that_trains_has_a_store_of_its_own(name):
    assert notebook_parameters(study_notebook(name))["store"] == "by-hand"


@pytest.mark.parametrize("name", ["train", "domains", "gan", "gan_measured", "language_model"])
@pytest.mark.parametrize("store", ["smoke", "smoke/plain", "collection/frozen", ""])
def test_the_stores_of_the_study_are_refused_by_hand(name, store, monkeypatch):
    asked = notebook_parameters(study_notebook(name)) | dict(profile="smoke", store=store)
    with pytest.raises(ValueError, match="is filled by the study alone; give a `store` of your own"):
        given(name, dict(asked))
    monkeypatch.setenv("VBG_STUDY", "yes")  # as the Snakefile sets it
    given(name, dict(asked))


@pytest.mark.parametrize(
    "name, left",
    [
        ("table3_comparison", dict(runs=[1], rows=[], LATE_AVERAGE="late_average")),
        ("train", dict(runs=[1])),
        ("loop", dict(runs=[1], table={})),
    ],
)
def test_a_second_run_of_all_cells_is_no_other_parameter(name, left):
    "The first run has left variables and imported tables in the kernel."
    asked = notebook_parameters(study_notebook(name))
    given(name, dict(asked) | left)
    with pytest.raises(RunError, match="has no parameter modle"):
        given(name, dict(asked) | left | dict(modle="vbg"))


def test_a_notebook_is_read_once_to_check_what_it_was_given(monkeypatch):
    reads, plain = [], nbformat.reads
    monkeypatch.setattr(nbformat, "reads", lambda *a, **k: reads.append(a) or plain(*a, **k))
    asked = notebook_parameters(study_notebook("loop"))
    reads.clear()
    given("loop", dict(asked))
    assert len(reads) == 1


def test_what_other_parameters_make_lies_apart_from_the_study(monkeypatch):
    monkeypatch.setenv(BY_HAND, "")  # put back at the end
    asked = notebook_parameters(study_notebook("loop")) | dict(profile="smoke")
    own, apart = Path("runs/smoke/figures/gan/loop"), Path("runs/by-hand/smoke/figures/gan/loop")
    for more, place in ((dict(seeds=[7]), apart), ({}, own), (dict(datasets=["met"]), apart)):
        given("loop", asked | more)
        assert figures_place("smoke", "gan", "loop") == place
    train = dict(models="without_gan", seeds=[7], store="smoke/balance-closed-loop")
    for call in (lambda: train_runs("smoke", "met", **train), lambda: train_gans("smoke", "met", [7])):
        with pytest.raises(ValueError, match="loop was given other parameters than the study gives it"):
            call()
    monkeypatch.setenv("VBG_STUDY", "yes")
    given("loop", asked | dict(seeds=[7]))
    assert figures_place("smoke", "gan", "loop") == own


def test_the_command_of_a_missing_gan_makes_it():
    "Profile, store, overrides and data arrive in the notebook; the study makes its own GANs."
    changed, described = {"gan": dict(epochs=1, conditioning="class")}, dict(reader="collection", folder="my things")
    settings = profile("smoke", changed | {"data": {"mine": described}})
    first, *words = shlex.split(gan_remedy(settings, "mine", [2], 25, "by-hand").partition("\n")[2])
    asked = dict(command.parser().parse_args(words).parameter)
    assert (first, words[1]) == (".venv/bin/vbg", str(study_notebook("gan").relative_to(ROOT)))
    given("gan", asked)
    assert asked == dict(profile="smoke", store="by-hand", dataset="mine", gans=[2], conditioning="class") | dict(
        scarce_items=25, overrides={"gan": dict(epochs=1)}, data=described
    )
    assert gan_remedy(profile("smoke"), "met", [0]).endswith("\n  make gan PROFILE=smoke")
    assert gan_remedy(settings, "met", [0], 25).endswith("\n  make scarcity PROFILE=smoke")
    assert '{"gan": {"variant": "mine"}}' in gan_remedy(settings, "met", [0])
    named = gan_remedy(profile("smoke", {"gan": dict(variant="mine")}), "met", [0])  # no GAN of the study: not refused
    given("gan", dict(command.parser().parse_args(shlex.split(named.partition("\n")[2])[1:]).parameter))


def test_a_run_that_was_told_something_else_is_told_by_its_settings(home):
    study, at = profile("smoke", SHORT), ("met", "without_vit_gan", 0, list(SPLITS))
    assert told_otherwise("smoke", study, *at) == []
    for change in (dict(learning_rate_factor=3.0), dict(factors={"met": dict(without_vit_gan=3.0)})):
        other = profile("smoke", SHORT | {"train": SHORT["train"] | change})
        assert told_otherwise("smoke", other, *at) == ["settings.train.learning_rate_factor: 1.0 -> 3.0"]
    elsewhere = profile("smoke", SHORT | {"train": SHORT["train"] | dict(factors={"met": dict(resnet=3.0)})})
    assert told_otherwise("smoke", elsewhere, *at) == []  # of another model
    assert (
        told_otherwise("smoke", study, *at[:3], ["test"]) != [] == told_otherwise("smoke", study, "met", "vbg", *at[2:])
    )


def test_a_run_on_other_data_is_told_by_them(home):
    other = profile("smoke", SHORT | {"data": {"met": dict(profile("smoke").data["met"], folder="mine")}})
    (told,) = told_otherwise("smoke", other, "met", "without_vit_gan", 0, list(SPLITS))
    assert told == f"settings.data.folder: {profile('smoke').data['met']['folder']} -> mine"


def test_a_gan_that_was_told_something_else_is_lost(home):
    "Both paths are those of the study; what is made as the study makes it is kept."
    name, quality = (book("smoke", kind, "met", "attributes", 0, 0) for kind in ("gan", "gan_measured"))
    (folder,) = train_gans("smoke", "met", [0], overrides={"gan": dict(epochs=1)}, store="smoke")
    write_note(folder / "quality.json", measure_inputs(folder, dict(epochs=1), 6), [])
    lost = lost_books("smoke")
    assert (lost[name], lost[quality]) == ("gan.epochs: 1 -> 2", "per_class: 6 -> 8")
    train_gans("smoke", "met", [0], store="smoke")
    write_note(folder / "quality.json", measure_inputs(folder, dict(epochs=1), 8), [])
    assert not {name, quality} & lost_books("smoke").keys()


def test_an_adapted_text_encoder_that_was_told_something_else_is_lost(home):
    name, seeds = book("smoke", "language_model", "met"), profile("smoke").seeds
    adapt_runs("smoke", "met", seeds=seeds, overrides={"adaptation": dict(learning_rate=0.01)}, store="smoke")
    assert lost_books("smoke")[name].startswith("adaptation.learning_rate: 0.01 -> ")
    adapt_runs("smoke", "met", seeds=seeds, store="smoke")
    assert name not in lost_books("smoke")


def test_status_names_what_a_planted_run_was_told(home):
    executed = home / "runs/smoke/notebooks/train-met-0.ipynb"
    about = dict(papermill=dict(duration=1.0, parameters=dict(profile="smoke", dataset="met")))
    executed.parent.mkdir(parents=True, exist_ok=True)
    executed.write_text(json.dumps(dict(cells=[], metadata=about, nbformat=4, nbformat_minor=5)))
    words = ["-m", "vbg.reports.command", "status", "--profile", "smoke", "--cores", "1"]
    env = os.environ | {"VBG_HOME": str(home)}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("stale"))
    assert "settings.train.epochs: 1 -> 2" in line and executed.exists()


def test_a_gan_has_one_path(home):
    "Variant, conditioning, loss and scarce items are part of it, whoever asks."
    changed = dict(conditioning="class", loss="saturating", scarce_items=8)
    place = gan_place("smoke", "met", 1, **changed)
    assert place.parts[-2:] == ("class-saturating-scarce8", "gan1")
    assert made_by(dict(profile="smoke", dataset="met", gans=[1], **changed)) == [place]
    settings = profile("smoke")
    usual = gan_place("smoke", "met", 0, **settings.gan)
    write_note(usual / "quality.json", {}, [])
    assert gan_folders("smoke", ["met"]) == [usual]
