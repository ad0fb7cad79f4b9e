"""What a second call of the smoke study makes again and what it leaves alone, byte for byte."""

import resource
import shutil

from compare_studies import differences, results
from conftest import notebook, run_study
from test_study import ARTEFACTS

from vbg.runs.notebook import study_notebook
from vbg.runs.store import Run


def test_what_is_lost_changed_or_damaged_is_made_again_byte_for_byte_and_the_rest_is_kept(own_home, monkeypatch):
    """One call mends all of it: a run that was deleted; one of other settings, as a notebook with `store` set to the
    profile leaves it; a GAN of which a file is cut off, for which nothing but runs that are whole asks. Every table and
    figure of the study is drawn again."""
    from vbg.runs.workflow import is_whole
    from vbg.train.jobs import train_runs

    monkeypatch.setenv("VBG_HOME", str(own_home))
    models = own_home / "runs/smoke/classifiers"
    lost, other = models / "coco/without_vit_gan/seed1", models / "met/without_vit_gan/seed0"
    text = own_home / "runs/smoke/gans/coco/attributes/gan0/text/text_generator.safetensors"
    kept = models / "coco/without_gan/seed1/run.json"  # beside the one that is lost
    before, written = results(own_home), kept.stat().st_mtime_ns

    shutil.rmtree(lost)
    train_runs("smoke", "met", models="without_vit_gan", seeds=[0], overrides={"train": dict(epochs=1)})
    text.write_bytes(text.read_bytes()[:-3])
    assert not is_whole(text.parents[1])
    damaged = [str(path.relative_to(own_home)) for path in (other / "metrics.json", text)]
    gone, differ = differences(before, results(own_home))
    assert str((lost / "metrics.json").relative_to(own_home)) in gone and {*damaged} <= {*differ}

    rules = [f"artefact_{name}" for name in ARTEFACTS]
    done = run_study(own_home, "all", notebook("gan_samples"), "--forcerun", *rules)  # the GAN is measured again too
    assert done.returncode == 0, done.stderr[-3000:]
    assert differences(before, results(own_home)) == ([], [])
    assert kept.stat().st_mtime_ns == written and is_whole(text.parents[1])


def test_second_call_does_nothing_and_is_quick(own_home):
    before = {p: p.stat().st_mtime_ns for p in own_home.rglob("*") if p.is_file() and ".snakemake" not in p.parts}
    spent = lambda: sum(
        resource.getrusage(resource.RUSAGE_CHILDREN)[:2]
    )  # seconds of the processor: another test may run beside
    start = spent()
    done = run_study(own_home, "all")
    assert done.returncode == 0 and spent() - start < 30
    assert "Nothing to be done" in done.stdout + done.stderr
    assert before == {
        p: p.stat().st_mtime_ns for p in own_home.rglob("*") if p.is_file() and ".snakemake" not in p.parts
    }


def test_same_seed_again_gives_the_same_bytes_and_is_then_kept(own_home, tmp_path, monkeypatch):
    from vbg.results.publish import provenance
    from vbg.runs.notebook import run_notebook

    monkeypatch.setenv("VBG_HOME", str(own_home))
    models = ["without_gan", "vbg", "without_vit", "xgboost", "clip"]
    kept, again = (own_home / "runs" / store / "classifiers" / "met" for store in ("smoke", "again"))
    asked = dict(
        profile="smoke",
        dataset="met",
        model=models,
        seeds=[1],
        store="again",
        overrides={"balance": {"gan": 0}},
    )
    run_notebook(study_notebook("train"), tmp_path / "again.ipynb", asked, timeout=600)
    for model in models:
        for name in ("metrics.json", "predictions.parquet", "model.safetensors"):
            assert (kept / model / "seed1" / name).read_bytes() == (again / model / "seed1" / name).read_bytes(), (
                model,
                name,
            )
        first, second = (provenance(Run(store / model / "seed1"))["files"] for store in (kept, again))
        assert first == second  # what a figure's json says of a run that was made again
    again = again / "without_gan" / "seed1"
    written = (again / "run.json").stat().st_mtime_ns
    run_notebook(study_notebook("train"), tmp_path / "kept.ipynb", asked, timeout=600)
    assert (again / "run.json").stat().st_mtime_ns == written
    assert "kept" in (tmp_path / "kept.ipynb").read_text(encoding="utf-8")
