"""The comparison on a small collection, on made-up runs: what is read, refused and said; and its notebook."""

import json
import shlex

import numpy as np
import pandas as pd
import pytest
from conftest import entry_of, run_study, saved

import vbg.results.small_collection as sc
from vbg.core.files import RunError, home
from vbg.core.profiles import profile
from vbg.reports import command
from vbg.runs.notebook import run_notebook, study_notebook
from vbg.runs.store import HISTORY, predictions_table, run_folder, write_run
from vbg.stats.metrics import evaluate
from vbg.train.rules import listing

LABEL, NAMES = np.arange(40) % 4, ["bowl", "coin", "jar", "lamp"]


def write(job, model, skill, **changes):
    order = np.random.default_rng(job["deal"]).permutation(40)
    test = order[job["fold"] :: sc.FOLDS]
    noise = np.random.default_rng([job["deal"], len(job["store"]), len(model)]).normal(size=(40, 4))
    scores = np.exp(skill * np.eye(4)[LABEL] + noise)
    p = scores / scores.sum(1, keepdims=True)
    made = profile(sc.METHODS[job["store"]]["profile"], sc.METHODS[job["store"]]["overrides"])
    parts = {"validation": np.setdiff1d(order, test)[::8], "test": test}
    inputs = (
        dict(
            settings={s: getattr(made, s) for s in ("vision", "text", "fusion", "model", "train", "balance")},
            code="new",
            device="cpu",
            splits=sc.SPLITS,
            versions={"torch": "1"},
            checkpoints={},
            seed=job["deal"],
            data={"natural": f"{job['dataset']} {made.vision['image_size']}"},
        )
        | changes
    )
    return write_run(
        profile=job["store"],
        dataset=job["dataset"],
        model=model,
        seed=job["deal"],
        inputs=inputs,
        class_names=NAMES,
        seconds=10.0,
        history=pd.DataFrame({c: [1.0, 2.0] for c in HISTORY}),
        metrics={s: evaluate(LABEL[i], p[i]) for s, i in parts.items()},
        predictions=pd.concat(
            [predictions_table([f"i{n:02}" for n in i], s, LABEL[i], p[i]) for s, i in parts.items()]
        ),
        config=dict(
            name=made.name, data={job["dataset"]: sc.collection_data("anywhere", job["deal"], job["fold"], {})}
        ),
        parameters=1,
    )


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    "All runs of the comparison: VBG with experts far better than the regression, from scratch far worse."
    patch = pytest.MonkeyPatch()
    patch.setenv("VBG_HOME", str(tmp_path_factory.mktemp("collection")))
    skill = {("collection/frozen", "without_gan"): 5.0, ("collection/scratch", "without_gan"): 0.0}
    for job in sc.collection_jobs():
        for model in job["models"]:
            write(job, model, skill.get((job["store"], model), 2.0))
    yield home()
    patch.undo()


def test_folds_of_a_deal_are_all_items_once(collection):
    runs = sc.collection_runs()
    for row in sc.ROWS:
        for deal in sc.DEALS if row != sc.LIVE else ():
            whole = sc.pooled_predictions(runs[row], deal)
            assert whole.ids.tolist() == sorted(f"i{n:02}" for n in range(40)) and (whole.labels == LABEL).all()


def test_differences_are_to_the_regression_and_carry_a_verdict(collection):
    table = sc.small_collection_table(sc.collection_runs()).set_index("model")
    assert table["accuracy, verdict"].tolist() == ["better", "smaller than the noise", "worse", "–"]
    ours, theirs = (
        np.mean(
            [
                (sc.pooled_predictions(sc.collection_runs()[row], d).probabilities.argmax(1) == LABEL).mean()
                for d in sc.DEALS
            ]
        )
        for row in (sc.CACHED, sc.BASELINE)
    )
    assert table.loc[sc.CACHED, "accuracy over the regression, points"].startswith(f"{100 * (ours - theirs):.1f} [")


@pytest.mark.parametrize(
    "change, said",
    [(dict(code="old"), "code: old -> new"), (dict(seed=9), "seed"), (dict(splits=["validation"]), "splits")],
)
def test_a_run_made_otherwise_is_named(collection, change, said):
    job = sc.collection_jobs()[3]
    write(job, "logistic_regression", 2.0, **change)
    with pytest.raises(RunError, match=f"deal0-fold3.*{said}"):
        sc.collection_runs()
    write(job, "logistic_regression", 2.0)


def test_a_missing_run_is_named_with_the_command(collection):
    import shutil

    job = sc.collection_jobs()[20]
    shutil.rmtree(run_folder(job["store"], job["dataset"], "without_gan", job["deal"]))
    with pytest.raises(RunError, match="make collection-study FOLDER=.*\n.*no run of without_gan"):
        sc.collection_runs()
    write(job, "without_gan", 2.0)


def test_the_notebook_saves_both_tables_without_a_path_of_the_user(collection, tmp_path, monkeypatch):
    monkeypatch.setattr(sc, "time_encoding", lambda run, data: dict(items=40, seconds=7.0))
    monkeypatch.setenv("VBG_STUDY", "yes")  # as `make collection-study` does
    sc.encoding_run(sc.collection_runs())  # measured; the notebook keeps it
    run_notebook(
        study_notebook("small_collection"), tmp_path / "done.ipynb", dict(tables="collection-toy"), timeout=300
    )
    for name in ("small_collection", "frozen_features"):
        text = json.dumps(entry_of(collection, name, "collection-toy"))
        assert "anywhere" not in text and str(collection) not in text
        assert saved(collection, f"{name}.md", "collection-toy").stat().st_size > 0


@pytest.fixture
def museum(tmp_path):
    "A collection whose path has blanks, a quote and letters of another script."
    folder = tmp_path / "My mus'eum Ё"
    folder.mkdir()
    rows = "\n".join(f"{i},{i}.jpg,thing {i},{'bowl' if i % 2 else 'coin'}" for i in range(20))
    (folder / "objects.csv").write_text(f"id,image,title,category\n{rows}\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("profile", ["mini", "pretrained"])
def test_any_path_reaches_every_notebook_and_the_tables_have_the_collections_name(
    museum, tmp_path, monkeypatch, profile
):
    monkeypatch.setenv("VBG_FOLDER", str(museum))
    monkeypatch.setenv("VBG_COLUMNS", '{"label": "category", "text": "title"}')
    done = run_study(tmp_path, "--dry-run", "--printshellcmds", "collection", profile=profile)
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout + done.stderr
    assert f"runs/{sc.collection_name(museum)}/figures/supplement/small_collection/small_collection.csv" in said
    commands = [
        line.split("Shell command:", 1)[-1].strip() for line in said.splitlines() if " vbg.reports.command run " in line
    ]
    assert len(commands) == len(sc.collection_jobs()) + 1
    for line in commands:
        words = shlex.split(line)
        data = json.loads(words[max(i for i, w in enumerate(words) if w == "data") + 1])
        assert data["folder"] == str(museum) and data["options"] == {
            "label": "category",
            "text": "title",
            "lenient": True,
        }


def test_a_changed_collection_is_read_again(museum, tmp_path, monkeypatch):
    monkeypatch.setenv("VBG_FOLDER", str(museum))
    before = listing.__wrapped__(museum)
    (museum / "objects.csv").write_text((museum / "objects.csv").read_text() + "99,99.jpg,late,coin\n")
    assert listing.__wrapped__(museum) != before


@pytest.mark.parametrize(
    "folder, columns, said",
    [
        ("", "{}", "which folder?"),
        ("no/such folder", "{}", "absent"),
        (None, "{label: category}", "COLUMNS is no JSON"),
        (None, '{"label": "kind", "text": "title"}', "kind"),
        (None, '{"lable": "category"}', "lable"),
    ],
)
def test_a_wrong_collection_ends_in_one_line_before_any_training(museum, monkeypatch, capsys, folder, columns, said):
    monkeypatch.setenv("VBG_FOLDER", str(museum) if folder is None else folder)
    monkeypatch.setenv("VBG_COLUMNS", columns)
    assert command.main(["collection", "--look"]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_a_moved_collection_keeps_its_runs(collection, monkeypatch):
    note = sc.collection_runs()[sc.CACHED][3].folder / "run.json"
    written = note.read_text()
    note.write_text(written.replace('"folder": "anywhere"', '"folder": "elsewhere"'))
    (read,) = sc.collection_runs()[sc.CACHED][3].info["config"]["data"].values()
    assert read["folder"] == "elsewhere"
    note.write_text(written.replace('"fold": 3', '"fold": 4'))
    with pytest.raises(RunError, match="read with fold 4, not 3"):
        sc.collection_runs()
    note.write_text(written)


def test_photographs_that_cannot_be_decoded_are_said_before_training(museum, monkeypatch):
    from PIL import Image

    for i in range(20):
        Image.new("RGB", (9, 9), (i, 9, 9)).save(museum / f"{i}.{'JPG' if i < 8 else 'jpg'}")
    (museum / "3.JPG").write_bytes(b"\xff\xd8\xff cut")
    (museum / "4.JPG").write_bytes(b"\xff\x0a")
    monkeypatch.setenv("VBG_FOLDER", str(museum))
    monkeypatch.setenv("VBG_COLUMNS", '{"label": "category", "text": "title"}')
    said = sc.look_at_collection()
    assert " 18 items of 2 classes" in said
    assert "1 left out: image cannot be read" in said and "1 left out: file is JPEG XL" in said
