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
from vbg.runs.forkserver import LIBRARIES
from vbg.runs.version import (
    DATA,
    code_version,
    defines,
    notebook_uses,
    used_code,
    used_definitions,
    what_changed,
)
from vbg.train.code import PARTS, what_a_run_uses

PACKAGE = Path(vbg.__file__).parent
WEIGHTS = PACKAGE / "models" / "weights"
AUDIT = ROOT / "nbs" / "study" / "paper" / "audit.ipynb"
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
        found += defines(node) if first <= line <= node.end_lineno else []
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


def mend(folder, module, name):
    "A change of what a function or class says, in a copy of the package."
    file = (folder / "vbg").joinpath(*module.split(".")).with_suffix(".py")
    head, tail = file.read_text(encoding="utf-8").split(f"\n{name}", 1)
    opening, body = tail.split('\n    "', 1)
    file.write_text(f'{head}\n{name}{opening}\n    {1:d}\n    "{body}', encoding="utf-8")


MODELS = (
    "without_gan",
    "without_vit_gan",
    "without_bert_gan",
    "textcnn",
    "resnet",
    "majority",
    "vbg",
    "vbg_concatenation",
)


def test_something_new_leaves_the_other_runs_current(copy):
    "A fusion layer, a reader, a baseline and a network are added, each registered in its one place."
    before = code_in(copy)
    (copy / "vbg/models/toy.py").write_text("class Toy:\n    pass\n")
    add(copy, "models.fusion_zoo", "\nfrom .toy import Toy\nFUSIONS['toy'] = Toy\n")
    add(copy, "data.readers", "\ndef read_toy(folder):\n    pass\n\nREADERS['toy'] = read_toy\n")
    add(copy, "models.baselines", "\ndef fit_toy(train):\n    pass\n\nBASELINES['toy'] = fit_toy\n")
    add(copy, "models.networks", "\nfrom .toy import Toy\nNETWORKS['toy'] = Toy\n")
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
        ("models.networks", "class ImageNetwork(", ("resnet",)),
        ("models.networks", "def swin(", ()),
        ("gan.training", "class GanTrainer", ("vbg", "vbg_concatenation")),
    ],
)
def test_a_change_makes_those_stale_that_use_it_and_is_named(copy, module, name, stale):
    before = code_in(copy)
    mend(copy, module, name)
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


def all_of(module):
    "The names that a module defines."
    return {name for node in tree_of(f"{module.replace('.', '/')}.py").body for name in defines(node) if name}


@pytest.mark.parametrize(
    "root, module",
    [
        ("audit", "reports.measures"),
        ("audit", "reports.judges"),
        ("audit", "reports.contradictions"),
        ("data.mini.coco.write_mini_coco", "data.mini.coco"),
    ],
)
def test_every_entry_of_a_table_is_reached(root, module):
    roots = notebook_uses(AUDIT) if root == "audit" else [root]
    assert all_of(module) - {"__all__"} <= set(used_definitions(*roots)[module])


@pytest.mark.parametrize(
    "file, module, root",
    [
        ("claims.csv", "reports.judges", "audit"),
        ("page.css", "reports.page", "audit"),
        ("results.md", "reports.results_page", "reports.results_page.results_markdown"),
    ],
)
def test_a_data_file_counts_where_it_is_read(copy, file, module, root):
    roots = notebook_uses(AUDIT) if root == "audit" else [root]
    before = used_code(*roots, folder=copy / "vbg")
    with open(copy / "vbg" / "reports" / file, "a", encoding="utf-8") as handle:
        handle.write("\n")
    after = used_code(*roots, folder=copy / "vbg")
    assert [name for name in before if before[name] != after[name]] == [module]
    assert code_version(module, folder=copy / "vbg") != code_version(module)


def test_every_data_file_is_named_in_a_module():
    strings = {
        node.value
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(tree_of(path.relative_to(PACKAGE)))
        if isinstance(node, ast.Constant)
    }
    others = (p for p in PACKAGE.rglob("*") if p.is_file() and p.suffix != ".py" and "__pycache__" not in p.parts)
    others = (path for path in others if WEIGHTS not in path.parents)  # a run tells their checksum: test_pretrain
    assert {(path.name in strings, path.suffix in DATA) for path in others} == {(True, True)}


def fills(function):
    "True if a function writes into a name that is not its own: as a decorator it would register."
    own = {arg.arg for node in ast.walk(function) if isinstance(node, ast.arguments) for arg in node.args}
    own |= {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    written = [n.value for n in ast.walk(function) if isinstance(n, ast.Subscript) and isinstance(n.ctx, ast.Store)]
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            written += [node.func.value] * (node.func.attr in ("append", "add", "update", "setdefault", "register"))
    shared = any(isinstance(node, ast.Global) for node in ast.walk(function))
    return shared or any(isinstance(node, ast.Name) and node.id not in own for node in written)


def not_followed(tree, registering=()):
    "What a module does that `used_definitions` cannot follow. `registering`: decorators of the package that register."
    for node in tree.body:
        if isinstance(node, (ast.For, ast.While, ast.With, ast.Try, ast.Match)):
            yield f"line {node.lineno}: a {type(node).__name__} at the top of the module"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names):
            yield f"line {node.lineno}: import *"
        if isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.value, ast.Call):
            looked_up = isinstance(node, ast.Subscript) or node.attr == "get"
            if looked_up and getattr(node.value.func, "id", "") in ("globals", "locals", "vars"):
                yield f"line {node.lineno}: names looked up in {node.value.func.id}()"
        if isinstance(node, ast.Name) and node.id in ("eval", "exec", "__import__"):
            yield f"line {node.lineno}: {node.id}"
        if "import_module" in (getattr(node, "attr", ""), getattr(node, "name", "")):
            yield f"line {node.lineno}: import_module"
        if isinstance(node, ast.FunctionDef) and node.name == "__init_subclass__":
            yield f"line {node.lineno}: subclasses register themselves"
        for decorator in getattr(node, "decorator_list", []):
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            if getattr(called, "id", getattr(called, "attr", "")) in registering:
                yield f"line {node.lineno}: registered by {ast.unparse(called)}"


def decorators_that_register(trees):
    found = {node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return {function.name for function in found if fills(function)}


def test_nothing_is_used_that_is_not_followed():
    trees = {p.relative_to(PACKAGE).as_posix(): tree_of(p.relative_to(PACKAGE)) for p in PACKAGE.rglob("*.py")}
    registering = decorators_that_register(trees.values())
    found = {file: list(not_followed(tree, registering)) for file, tree in trees.items() if file != "_modidx.py"}
    allowed = found.pop("runs/forkserver.py")  # imports libraries before a notebook asks for them
    assert len(allowed) == 1 and "import_module" in allowed[0] and not any(n.startswith("vbg") for n in LIBRARIES)
    assert not any(found.values()), {file: lines for file, lines in found.items() if lines}


@pytest.mark.parametrize(
    "text",
    [
        "from .a import *",
        "def f(name):\n    return globals()[name]()",
        "def f(name):\n    return globals().get(name)",
        "TABLE = {}\nfor name in 'ab':\n    TABLE[name] = str",
        "T = {}\ndef keep(f):\n    T[f.__name__] = f\n    return f\n\n@keep\ndef g():\n    pass",
        "T = []\ndef keep(at):\n    def inner(f):\n        T.append(f)\n        return f\n    return inner\n\n"
        "@keep(1)\ndef g():\n    pass",
        "import importlib\ndef f(name):\n    return importlib.import_module(f'vbg.{name}')",
        "from importlib import import_module",
        "def f(text):\n    return eval(text)",
        "class A:\n    def __init_subclass__(cls):\n        pass",
    ],
)
def test_what_is_not_followed_is_found(text):
    tree = ast.parse(text)
    assert list(not_followed(tree, decorators_that_register([tree])))


@pytest.mark.parametrize(
    "text",
    [
        "T = {'f': str}\ndef f(name):\n    return T[name]()",
        "def check(x):\n    def keep(f):\n        made = {}\n        made[x] = f\n        return f\n    return keep\n\n"
        "@check(1)\ndef g():\n    pass",
        "if '__file__' in globals():\n    print(1)",
    ],
)
def test_what_is_followed_is_not_found(text):
    tree = ast.parse(text)
    assert not list(not_followed(tree, decorators_that_register([tree])))


SAY = """
import json, os, sys
from pathlib import Path
from types import SimpleNamespace
from vbg.core.profiles import profile
from vbg.gan.store import classifier_inputs, gan_inputs, measure_inputs


class Data(list):
    fingerprint, ids = "", ["a"]


settings, data = profile("smoke"), Data("a")
Path(sys.argv[1], "inputs.json").write_text('{"inputs": {}}')
for _ in sys.stdin:
    if not os.fork():  # a process that has read none of the code
        made = gan_inputs(settings, "met", data, SimpleNamespace(get_vocab=lambda: {"a": 0}), 0)
        measured = measure_inputs(Path(sys.argv[1]), classifier_inputs(settings, data), 1)
        print(json.dumps([made, measured]), flush=True)
        os._exit(0)
    if os.wait()[1]:
        sys.exit(1)
"""


def test_a_gan_depends_on_its_vocabulary_and_its_measures_on_the_classifier(copy):
    shutil.copy(ROOT / "settings.ini", copy)
    words, env = [sys.executable, "-c", SAY, str(copy)], os.environ | {"PYTHONPATH": str(copy)}
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen(words, cwd=copy, env=env, **pipes) as process:

        def told():
            process.stdin.write("\n")
            process.stdin.flush()
            said = process.stdout.readline()
            assert said, "see the error above"
            return json.loads(said)

        before = told()
        for module, name, stale in (
            ("models.text", "def train_tokenizer(", [["vbg/models/text.py"], []]),
            ("gan.quality", "def fit_independent(", [[], ["classifier.code.gan.quality"]]),
            ("gan.quality", "def image_distances(", [[], ["vbg/gan/quality.py"]]),
        ):
            mend(copy, module, name)
            now = told()
            changed = [what_changed(*pair) for pair in zip(before, now)]
            assert [[line.split(":")[0] for line in lines] for lines in changed] == stale, name
            before = now
