"""A run depends on the code that it uses: what is counted holds every function that runs, and no more than it must."""

import ast
import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

import vbg
from vbg.core.profiles import profile
from vbg.runs.version import _defines, used_code, used_definitions, what_changed
from vbg.train.code import PARTS, what_a_run_uses

PACKAGE = Path(vbg.__file__).parent
TRAINED = (
    "without_vit_gan",
    "without_bert_gan",
    "without_gan",
    "textcnn",
    "clip",
    "squeezenet",
    "majority",
    "tfidf",
    "vbg",
)
RECORD = """
import json, sys
from pathlib import Path
import vbg
from vbg.train.jobs import study_data, study_settings, train_runs
from vbg.train.gan_jobs import train_gans

package, ran = Path(vbg.__file__).parent, set()
tiny = {"train": dict(epochs=1), "gan": dict(epochs=1)}

def note(frame, event, _):
    code = frame.f_code
    if event == "call" and code.co_flags & 1 and code.co_filename.startswith(str(package)):  # not the body of a class
        ran.add((code.co_filename, code.co_firstlineno))

study_data("smoke", "met")
train_gans("smoke", "met", [0], overrides=tiny)
for model in sys.argv[1:]:
    ran.clear()
    sys.setprofile(note)
    train_runs("smoke", "met", models=[model], seeds=[0], overrides=tiny, store="used")
    sys.setprofile(None)
    print("RAN", json.dumps([model, sorted((str(Path(f).relative_to(package)), n) for f, n in ran)]), flush=True)
"""


@cache
def tree_of(file):
    return ast.parse((PACKAGE / file).read_text(encoding="utf-8"))


def definition(file, line):
    "The definitions of the statement at the top of a module that holds a line."
    found = []
    for node in tree_of(file).body:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        found += _defines(node) if first <= line <= node.end_lineno else []
    return found


def test_what_runs_is_counted(tmp_path):
    "A model of each kind is trained; every function of the package that is called is in what its run depends on."
    done = subprocess.run(
        [sys.executable, "-c", RECORD, *TRAINED],
        env=os.environ | {"VBG_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line[4:]) for line in done.stdout.splitlines() if line.startswith("RAN ")]
    assert [model for model, _ in lines] == list(TRAINED)
    for model, ran in lines:
        counted = used_definitions("train.jobs.train_runs", **what_a_run_uses(profile("smoke"), "met", model))
        called = {(f[:-3].replace("/", "."), name) for f, line in ran for name in definition(f, line)}
        left = {(m, n) for m, n in called if n not in counted.get(m, {}) and m not in PARTS["kept"]}
        assert len(called) > 50 and not left, (model, sorted(left))


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "vbg", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def code_in(folder):
    "The code of a run of each model, as the package in a folder has it."
    settings, root, package = profile("smoke"), "train.jobs.train_runs", folder / "vbg"
    return {m: used_code(root, folder=package, **what_a_run_uses(settings, "met", m)) for m in MODELS}


def add(folder, module, text):
    with open((folder / "vbg").joinpath(*module.split(".")).with_suffix(".py"), "a", encoding="utf-8") as handle:
        handle.write(text)


MODELS = ("without_gan", "without_vit_gan", "without_bert_gan", "textcnn", "majority", "vbg", "vbg_concatenation")


def test_something_new_leaves_the_other_runs_current(copy):
    "A fusion layer, a reader and a baseline are added, each registered in its one place."
    before = code_in(copy)
    (copy / "vbg/models/toy.py").write_text("class Toy:\n    pass\n")
    add(copy, "models.fusion_zoo", "\nfrom .toy import Toy\nFUSIONS['toy'] = Toy\n")
    add(copy, "data.readers", "\ndef read_toy(folder):\n    pass\n\nREADERS['toy'] = read_toy\n")
    add(copy, "models.baselines", "\ndef fit_toy(train):\n    pass\n\nBASELINES['toy'] = fit_toy\n")
    assert code_in(copy) == before


@pytest.mark.parametrize(
    "module, name, stale",
    [
        ("train.fit", "def fit(", MODELS),
        ("data.met", "def read_met(", MODELS),
        ("data.coco", "def read_coco(", ()),
        ("stats.metrics", "def evaluate(", MODELS),
        ("models.text", "class TextEncoder(", ("without_gan", "without_vit_gan", "vbg", "vbg_concatenation")),
        ("models.vision", "class VisionEncoder(", ("without_gan", "without_bert_gan", "vbg", "vbg_concatenation")),
        ("models.fusion_zoo", "class ConcatenationFusion(", ("vbg_concatenation",)),
        ("models.fusion_zoo", "class SumFusion(", ()),
        ("models.baselines", "def fit_majority(", ("majority",)),
        ("models.networks", "class TextCNN(", ("textcnn",)),
        ("gan.training", "class GanTrainer", ("vbg", "vbg_concatenation")),
    ],
)
def test_a_change_makes_those_stale_that_use_it_and_is_named(copy, module, name, stale):
    before = code_in(copy)
    file = (copy / "vbg").joinpath(*module.split(".")).with_suffix(".py")
    text = file.read_text(encoding="utf-8")
    head, tail = text.split(f"\n{name}", 1)
    opening, body = tail.split('\n    "', 1)
    file.write_text(f'{head}\n{name}{opening}\n    {1:d}\n    "{body}', encoding="utf-8")
    after = code_in(copy)
    changed = {m: what_changed(dict(code=before[m]), dict(code=after[m])) for m in MODELS}
    assert {m for m in MODELS if changed[m]} == set(stale)
    assert all(changed[m] == [f"vbg/{module.replace('.', '/')}.py"] for m in stale)


TOY = """
from torch import nn

from .fusion import FusionOutput, masked_mean


class ToyFusion(nn.Module):
    def __init__(self, *, hidden_size, num_heads=1, dropout=0.0, seed=None):
        super().__init__()
        self.output_size = hidden_size

    def forward(self, image_tokens, text_tokens, text_keep=None, return_maps=True):
        return FusionOutput(image_tokens.mean(1) * masked_mean(text_tokens, text_keep))
"""


def test_a_new_fusion_layer_is_registered_in_one_place_and_trains(copy):
    "As CONTRIBUTING.md says: a class, and one line of the registry."
    shutil.copy(ROOT / "settings.ini", copy)
    (copy / "vbg/models/toy.py").write_text(TOY, encoding="utf-8")
    add(copy, "models.fusion_zoo", "\nfrom .toy import ToyFusion\nFUSIONS['toy'] = ToyFusion\n")
    overrides = json.dumps({"fusion": {"kind": "toy"}, "train": {"epochs": 1}})
    words = ["-m", "vbg.reports.command", "train", "--profile", "smoke", "--overrides", overrides]
    env = os.environ | {"PYTHONPATH": str(copy), "VBG_HOME": str(copy)}
    done = subprocess.run([sys.executable, *words], cwd=copy, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    run = json.loads((next((copy / "runs").rglob("run.json"))).read_text(encoding="utf-8"))
    assert run["inputs"]["settings"]["fusion"]["kind"] == "toy" and "models.toy" in run["inputs"]["code"]
