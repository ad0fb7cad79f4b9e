"""Fixtures shared by the tests: the smoke study, run once in a folder of its own."""

import contextlib
import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vbg.runs.forkserver import fork_server, register
from vbg.runs.workflow import snakemake_command

ROOT = Path(__file__).resolve().parent.parent
AS_MAKE = dict(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", PYTHONHASHSEED="0")
AS_MAKE |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
for name, value in AS_MAKE.items():
    os.environ.setdefault(name, value)


def pytest_configure(config):
    "One fork server for all processes of pytest and for the studies that they run: libraries are imported once."
    if not hasattr(config, "workerinput"):
        stack = contextlib.ExitStack()
        stack.enter_context(fork_server())
        config.add_cleanup(stack.close)


def run_study(home, *targets, profile="smoke", cores=2):
    "The Snakefile as `make reproduce` calls it, with data, runs and figures under `home`; also its own options."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBG_HOME", str(home))
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        command = snakemake_command(profile, [], cores)
        return subprocess.run([*command, *targets], cwd=ROOT, capture_output=True, text=True, timeout=3000)


def reproduce(home, *targets):
    "What `make reproduce` runs, with two jobs at once."
    words = [sys.executable, "-m", "vbg.reports.command", "study", "--profile", "smoke", "--cores", "2", *targets]
    environment = {**os.environ, "VBG_HOME": str(home)}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3000)


def saved(home, file, profile="smoke"):
    "Where a run has saved a table or figure."
    from vbg.core.places import figures_place
    from vbg.results.publish import group_of

    return home / figures_place(profile, *group_of(file.split(".")[0])) / file


def saved_files(home, profile="smoke"):
    "The tables and figures that a run has saved, name to bytes."
    from vbg.core.places import figures_place

    paths = [p for p in sorted((home / figures_place(profile)).rglob("*.*")) if p.is_file()]
    return {p.name: p.read_bytes() for p in paths if p.name not in ("manifest.json", ".manifest.lock")}


def entry_of(home, name, profile="smoke"):
    "What the manifest of a run says of a table or figure."
    from vbg.core.places import figures_place
    from vbg.results.publish import group_of
    from vbg.runs.manifest import read_manifest

    return read_manifest(home / figures_place(profile))["/".join((*group_of(name), name))]


SMOKE_EXTRAS = "input_ablation domain_adaptation step_cost missing_modality gan_samples gan_cost loop".split()


def notebook(name):
    "The place of an executed notebook of the smoke study."
    return f"runs/smoke/notebooks/{name}.ipynb"


def smoke_targets(extras=SMOKE_EXTRAS):
    "What `make test` reads: the study, what `explain` shows of the MET, one notebook of each other kind."
    from vbg.train.rules import target_files

    explained = [name for name in target_files("smoke", "explain") if name.endswith(".ipynb") and "coco" not in name]
    return ["all", *explained, *map(notebook, extras)]


def run_smoke(home, targets):
    "Run part of the smoke study; what it says."
    done = reproduce(home, *targets)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout + done.stderr


def beside_the_centre(masks):
    "Energy of the centre prior in the masks less that of uniform heat, and its pointing game."
    from vbg.explain.heat_scores import energy, on_pixels, pointing
    from vbg.explain.heatmaps import SPREAD, patch_centres

    place = ((patch_centres(None, 64, 8) + 0.5) / 64 - 0.5) / SPREAD
    bell = np.exp(-0.5 * place**2)
    heat = np.repeat(on_pixels(np.outer(bell, bell)[None], 64), len(masks), 0)
    masks = masks.astype(bool)
    over = energy(heat, masks) - energy(np.ones_like(heat), masks)
    return np.nanmean(over), np.nanmean(pointing(heat, masks))


@pytest.fixture(scope="session")
def smoke_home(tmp_path_factory):
    "A folder in which the smoke study has been run."
    home = tmp_path_factory.mktemp("smoke")
    (home / "said.txt").write_text(run_smoke(home, smoke_targets()))
    return home


@pytest.fixture(scope="session")
def smoke_plan(smoke_home):
    "The jobs of a target in that folder, asked once."
    from vbg.runs.workflow import planned

    @functools.cache
    def plan(*targets):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VBG_HOME", str(smoke_home))
            return planned("smoke", list(targets))

    return plan


@pytest.fixture(scope="session")
def whole_home(smoke_home):
    "The same folder with the slow rest: `explain` of every data set, choice and judgement of the GANs."
    run_smoke(smoke_home, ["explain", notebook("gan_choice"), notebook("gan_judged-met")])
    return smoke_home


# ---- two pytest processes (`make test`): a file's tests stay together, for they share its fixtures, and the files that
# share the smoke study are one; notebooks and exports share nothing and fill what is left of the time

SMOKE = ("test_study", "test_plan", "test_baselines", "test_status", "test_book")  # they ask for `smoke_home`
ALONE = ("test_notebooks", "test_exports")


def pytest_collection_modifyitems(items):
    "The smoke study is begun first, for it takes longest; single notebooks come last."
    stray = {item.path.stem for item in items if "smoke_home" in getattr(item, "fixturenames", ())} - set(SMOKE)
    if stray:
        raise pytest.UsageError(
            f"{', '.join(sorted(stray))}: asks for `smoke_home`; add it to conftest.SMOKE, or the study is run twice"
        )
    items.sort(key=lambda item: (item.path.stem not in SMOKE, item.path.stem in ALONE))  # stable
    if any(hasattr(item.module, "run_notebook") for item in items):
        register()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "What one process gets as a whole."
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            stem = Path(nodeid.split("::")[0]).stem
            return "smoke" if stem in SMOKE else nodeid if stem in ALONE else stem

    return Files(config, log)
