"""Fixtures shared by the tests: the smoke study, run once in a folder of its own."""

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vbg.runs.forkserver import fork_server, forked, register
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


def run_notebooks(said, *paths, timeout=900):
    "Run notebooks from the first cell to the last in a process of their own; `said` is the file of what they say."
    environment = {name: value for name, value in os.environ.items() if name != "VBG_HOME"}
    words = ["module_notebook", *map(str, paths)]
    with open(said, "w") as out:
        process = forked(words, environment, ROOT / "tests", streams=(out.fileno(), out.fileno()))
        if process is None:
            words = [sys.executable, "-m", *words]
            process = subprocess.Popen(words, env=environment, cwd=ROOT / "tests", stdout=out, stderr=out)
        code = process.wait(timeout=timeout)
    assert code == 0, said.read_text()[-6000:]


def draw_museum(place, items, size=64):
    "Rendered objects of two classes in the layout of the Met, under `place`; the table that its reader makes."
    from vbg.data.met import read_met
    from vbg.data.mini.met import write_met_set

    kinds = np.random.default_rng(0).permutation(np.repeat([0, 3], items // 2))
    write_met_set(place / "met", kinds, size, 1, 1, np.full(10, 0.1))
    return read_met(place / "met", label_set="fine").table


def write_encoders(place, words, image_size, patch_size, **sizes):
    "A ViT and a BERT of random weights in the format of the library, with a tokenizer: `vit` and `bert` in a folder."
    from transformers import BertConfig, BertModel, ViTConfig, ViTModel

    from vbg.core.chance import seeded

    with seeded(0):
        vision = ViTConfig(image_size=image_size, patch_size=patch_size, **sizes)
        ViTModel(vision, add_pooling_layer=False).save_pretrained(place / "vit")
        text = BertConfig(vocab_size=len(words), max_position_embeddings=32, **sizes)
        BertModel(text).save_pretrained(place / "bert")
    words.save_pretrained(place / "bert")


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


SMOKE_EXTRAS = """input_ablation domain_adaptation step_cost missing_modality gan_samples expert_kit gan_cost
texture_library loop""".split()


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
    "A folder in which the smoke study has been run, once for all processes of pytest. Tests read it."
    import fcntl  # not on Windows

    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    home, said = base / "smoke", base / "smoke" / "said.txt"
    with open(base / "smoke.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            home.mkdir()
            said.write_text(run_smoke(home, smoke_targets()))
    assert said.exists(), "the smoke study has failed in another process"
    return home


@pytest.fixture(scope="session")
def own_home(smoke_home, tmp_path_factory):
    "A copy of that folder, for the tests of this process that write; they leave it as it was."
    return shutil.copytree(smoke_home, tmp_path_factory.mktemp("own") / "home", symlinks=True)


PLAN = """
import contextlib, dataclasses, io, json, os, sys
from pathlib import Path
from types import SimpleNamespace
import snakemake.cli
from vbg.runs import version, workflow
from vbg.train import rules

def run(words, **_):
    said, told = io.StringIO(), io.StringIO()
    sys.argv = words[2:]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
        try:
            code = snakemake.cli.main()
        except SystemExit as end:
            code = end.code
    return SimpleNamespace(returncode=code, stdout=said.getvalue(), stderr=told.getvalue())

workflow.subprocess = SimpleNamespace(run=run)
for notebook in Path("nbs/study").rglob("*.ipynb"):  # what is kept of it is found by the text of the code
    version.used_definitions(*version.notebook_uses(notebook))
for line in sys.stdin:
    if not os.fork():
        jobs = [dataclasses.asdict(job) for job in workflow.planned("smoke", json.loads(line))]
        print(json.dumps(jobs), flush=True)
        os._exit(0)
    if os.wait()[1]:
        sys.exit(1)
"""


class Plans:
    "Snakemake's plans for a folder with the study. Each is made in a copy of one process, which has read the code."

    def __init__(self, home, project=ROOT):
        env = dict(os.environ, VBG_HOME=str(home), PYTHONPATH=str(project))
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process = subprocess.Popen([sys.executable, "-c", PLAN], cwd=project, env=env, **pipes)

    def __call__(self, *targets):
        "The jobs of some targets, of `vbg.runs.workflow.Job`."
        from vbg.runs.workflow import Job

        self.process.stdin.write(json.dumps(targets) + "\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline()
        assert said, "no plan: see the error of Snakemake above"
        return [Job(**job | dict(files=tuple(job["files"]))) for job in json.loads(said)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.communicate(timeout=60)


@pytest.fixture(scope="session")
def smoke_plan(smoke_home):
    "The jobs of a target in that folder, asked once."
    with Plans(smoke_home) as plans:
        yield functools.cache(plans)


@pytest.fixture(scope="session")
def whole_home(own_home):
    "The copy with the slow rest: `explain` of every data set, choice, judgement and texts of the GANs."
    run_smoke(own_home, ["explain", *map(notebook, ("gan_choice", "gan_judged-met", "text_adversary"))])
    return own_home


# ---- two pytest processes (`make test`): one runs the smoke study, and both take the tests that read it. The tests of
# another file stay together, for they share its fixtures; notebooks and exports share nothing and come last.

FIRST = ("test_study",)  # runs the study, while the other process does what needs none
READERS = ("test_again", "test_baselines", "test_status")  # each test by itself, when the study is done
PLANS = ("test_targets", "test_book", "test_plan")  # the first two ask for the plans of the same targets
ALONE = ("test_exports", "test_notebooks")


def pytest_collection_modifyitems(items):
    "What reads the smoke study comes after the files that do not; single notebooks come last."
    known = (*FIRST, *PLANS, *READERS)
    stray = {item.path.stem for item in items if "smoke_home" in getattr(item, "fixturenames", ())} - {*known}
    if stray:
        raise pytest.UsageError(f"{', '.join(sorted(stray))}: asks for `smoke_home`; add it to conftest.READERS")
    order = {stem: k for k, stems in enumerate((FIRST, (), READERS, PLANS, ALONE)) for stem in stems}
    items.sort(key=lambda item: order.get(item.path.stem, 1))  # stable
    if any(hasattr(item.module, "run_notebook") for item in items):
        register()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "What one process gets as a whole."
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            stem = Path(nodeid.split("::")[0]).stem
            return "targets" if stem in PLANS[:2] else nodeid if stem in READERS + ALONE else stem

    return Files(config, log)
