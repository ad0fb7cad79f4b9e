"""Notebooks in copies of one process: the bytes of a fresh kernel, whatever ran before; nothing outlives the study."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import ROOT

from vbg.runs.forkserver import SOCKET, available, bound, fork_server, forked

pytestmark = pytest.mark.skipif(not available() and SOCKET not in os.environ, reason="processes are not copied here")

SPOIL = """
import os, random, sys
import numpy as np, pandas as pd, torch, torch.nn.functional, transformers, matplotlib
torch.manual_seed(99); np.random.seed(99); random.seed(99)
torch.set_default_dtype(torch.float64); torch.set_num_threads(3); torch.set_grad_enabled(False)
torch.use_deterministic_algorithms(True); np.seterr(all="raise"); pd.set_option("display.precision", 1)
os.environ.update(OMP_NUM_THREADS="5", VBG_HOME="/nowhere", SPOILT="yes"); os.chdir("/")
torch.nn.functional.relu = torch.relu = torch.sigmoid
matplotlib.rcParams["figure.dpi"] = 7
import vbg.core.chance, vbg.core.profiles
vbg.core.chance.seed_everything = None
sys.path.insert(0, "/nowhere"); sys.setrecursionlimit(77777)
"""
PROBE = """
import sys; print(sorted(name for name in sys.modules if name.split(".")[0] == "vbg" and name.count(".") > 1))
---
import os
import matplotlib, numpy as np, pandas as pd, torch
import torch.nn.functional as F
print(torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), np.geterr(), os.getcwd())
print(torch.are_deterministic_algorithms_enabled(), pd.get_option("display.precision"), sys.path)
print(matplotlib.rcParams["figure.dpi"], matplotlib.get_backend(), sys.getrecursionlimit())
print(sorted(set(os.environ) - {"JPY_PARENT_PID", "JPY_SESSION_NAME", "VBG_FORKSERVER"}))
---
from vbg.core.chance import seed_everything
seed_everything(3)
x, y = torch.randn(64, 8), torch.randint(0, 3, (64,))
net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
steps = torch.optim.AdamW(net.parameters())
for _ in range(20):
    steps.zero_grad(); F.cross_entropy(net(x), F.relu(y)).backward(); steps.step()
print(torch.cat([p.flatten() for p in net.parameters()]).double().sum().item().hex(), np.random.rand().hex())
---
import matplotlib.pyplot as plt
_ = plt.plot(np.random.rand(9))
---
from transformers import ViTConfig, ViTModel
small = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32)
print(ViTModel(ViTConfig(**small))(torch.randn(2, 3, 32, 32)).last_hidden_state.abs().sum().item().hex())
""".strip().split("\n---\n")


def write(path, *sources):
    "A notebook of these cells, with an empty parameters cell."
    tagged = nbformat.v4.new_code_cell("size = 1", metadata={"tags": ["parameters"]})
    cells = [tagged, *map(nbformat.v4.new_code_cell, sources)]
    spec = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec}), path)
    return path


def execute(notebook, output, **variables):
    "Run a notebook as a job of the study does; its outputs."
    environment = {**os.environ, **variables}
    words = [sys.executable, "-m", "vbg.runs.forkserver", "vbg.reports.command", "run", str(notebook), str(output)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return [cell.get("outputs") for cell in nbformat.read(output, as_version=4).cells[1:-1]]


def said_by(code, folder):
    "What a line of Python prints in a copy."
    with open(folder / "said", "w") as said:
        assert forked(["timeit", "-n1", "-r1", code], streams=(said.fileno(), 2)).wait() == 0
    return (folder / "said").read_text().splitlines()[0]


@pytest.fixture(scope="module")
def server():
    with fork_server():
        yield


def joined(cells):
    "Outputs with the texts of one stream in one: a busy kernel sends a line in two."
    made = []
    for outputs in cells:
        made.append([])
        for out in map(dict, outputs):
            last = made[-1][-1] if made[-1] else {}
            if out["output_type"] == "stream" and last.get("name") == out["name"]:
                made[-1][-1] = last | {"text": last["text"] + out["text"]}
            else:
                made[-1].append(out)
    return made


def test_a_notebook_gives_the_bytes_of_a_fresh_kernel_after_one_that_spoils_everything(server, tmp_path):
    spoil, probe = write(tmp_path / "spoil.ipynb", SPOIL), write(tmp_path / "probe.ipynb", *PROBE)
    fresh = execute(probe, tmp_path / "fresh.ipynb", **{SOCKET: "off"})
    copied = write(tmp_path / "copied.ipynb", "import sys; print({'torch', 'umap'} <= sys.modules.keys())")
    assert "True" in str(execute(copied, tmp_path / "is_copied.ipynb"))  # before it imports anything
    for again in range(2):
        execute(spoil, tmp_path / f"spoilt{again}.ipynb")
        assert joined(execute(probe, tmp_path / f"copied{again}.ipynb")) == joined(fresh)
    assert any("image/png" in out.get("data", {}) for outputs in fresh for out in outputs)


SLOW = """
def slow(kernel, sleep, register, said):  # a function: at its end a kernel forgets the names of its cells
    asked = kernel.shutdown_request

    async def shutdown(stream, identity, parent):
        await asked(stream, identity, parent)
        sleep(0.5)

    kernel.control_handlers["shutdown_request"] = shutdown
    register(lambda: said.write_text("works" if kernel.control_thread.is_alive() else "ended"))

import atexit, time
from pathlib import Path
slow(get_ipython().kernel, time.sleep, atexit.register, Path({said!r}))
"""


def test_a_kernel_closes_its_streams_after_the_thread_that_answers_jupyter_has_ended(server, tmp_path):
    "They are closed at exit; the thread flushes them after it has answered that the kernel shuts down."
    said = tmp_path / "said"
    execute(write(tmp_path / "slow.ipynb", SLOW.format(said=str(said))), tmp_path / "executed.ipynb")
    assert said.read_text() == "ended"


@pytest.mark.parametrize("name, transport", [("r", "ipc"), ("r" * 90, "tcp")])
def test_kernels_speak_through_files_of_their_own_where_their_names_fit(server, tmp_path, name, transport):
    "Not through ports: two kernels that start at the same moment can be told the same free one."
    asks = "import ipykernel, json, time; told = json.loads(ipykernel.get_connection_info()); time.sleep(2)"
    notebook = write(tmp_path / "tells.ipynb", f"{asks}; print(told['transport'], told['ip'])")
    with tempfile.TemporaryDirectory() as short, ThreadPool(2) as both:
        (runtime := Path(short) / name).mkdir()
        run = lambda k: execute(notebook, tmp_path / f"told{k}.ipynb", JUPYTER_RUNTIME_DIR=str(runtime))
        said = [outputs[0][0]["text"].split() for outputs in both.map(run, range(2))]
        assert [words[0] for words in said] == [transport] * 2 and not list(runtime.iterdir())
        names = {words[1] for words in said}
        assert names == {"127.0.0.1"} if transport == "tcp" else len(names) == 2
        assert transport == "tcp" or all(Path(place).parent == runtime for place in names)
    assert not list(ROOT.glob("*-ipc-*"))


def test_the_server_holds_libraries_and_none_of_the_projects_code(server, tmp_path):
    tell = "import sys, torch; print(sorted(m for m in sys.modules if m[:4] == 'vbg.'), torch.cuda.is_initialized())"
    assert said_by(tell, tmp_path) == "['vbg.runs'] False"
    assert int(said_by("import gc; print(gc.get_freeze_count())", tmp_path)) > 100_000  # not searched for garbage


def test_draws_without_a_seed_differ_from_copy_to_copy(server, tmp_path):
    draw = "import random, numpy, torch; print(random.random(), numpy.random.rand(), torch.rand(1).item())"
    first, second = (set(said_by(draw, tmp_path).split()) for _ in range(2))
    assert len(first) == 3 and not first & second


def test_exit_codes_errors_and_signals_reach_the_one_who_asked(server, tmp_path):
    assert forked(["no_such_module_of_anyone"]).wait() == 1
    (tmp_path / "leave.py").write_text("import sys\nsys.exit(int(sys.argv[1]))")
    for code in (0, 3):
        assert forked(["leave", str(code)], folder=tmp_path).wait() == code
    sleeper = forked(["timeit", "-n1", "-r1", "import time; time.sleep(600)"])
    assert sleeper.poll() is None
    sleeper.kill()
    assert sleeper.wait() == -signal.SIGKILL


def test_the_text_of_an_exit_is_told(server, tmp_path):
    (tmp_path / "leave.py").write_text("import sys\nsys.exit('no such thing')")
    with open(tmp_path / "said", "w") as said:
        assert forked(["leave"], folder=tmp_path, streams=(1, said.fileno())).wait() == 1
    assert (tmp_path / "said").read_text() == "no such thing\n"


def test_a_copy_has_an_empty_standard_input(server, tmp_path):
    tell = "import os, sys; print(os.path.samestat(os.fstat(0), os.stat(os.devnull)), repr(sys.stdin.read()))"
    assert said_by(tell, tmp_path) == "True ''"


@pytest.mark.parametrize("text", [b"", b"cut", b"\0" * 7 + b"\4null", b"\0" * 7 + b"\2{}", b"\0" * 7 + b"\3no!"])
def test_one_who_sends_no_command_ends_nothing_and_leaves_no_open_file(server, tmp_path, text):
    copy = forked(["timeit", "-n1", "-r1", "import time; time.sleep(600)"])
    serving = psutil.Process(copy.pid).parent()
    held = serving.num_fds()
    for _ in range(10):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(os.environ[SOCKET])
            if text:
                socket.send_fds(client, [text], [1, 2])
    assert said_by("print(1)", tmp_path) == "1" and copy.poll() is None
    wait_for(lambda: serving.num_fds() < held + 5)
    copy.kill()
    assert copy.wait() == -signal.SIGKILL


def test_a_folder_that_is_gone_is_asked_for_before_the_server_is(server, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert forked(["timeit"]) is None
    monkeypatch.undo()
    assert said_by("print(1)", tmp_path) == "1"


def test_a_name_too_long_for_a_socket_leaves_ordinary_processes(tmp_path):
    (long := tmp_path / ("long" * 30)).mkdir()
    code = "from vbg.runs.forkserver import forked, fork_server\nwith fork_server():\n    print(forked(['timeit']))\n"
    environment = {name: value for name, value in os.environ.items() if name != SOCKET} | {"TMPDIR": str(long)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", "")


def test_what_a_killed_study_left_among_the_temporary_files_is_removed_by_the_next(monkeypatch):
    serve = "from vbg.runs.forkserver import fork_server\nwith fork_server(): print('serves', flush=True); input()"
    env = {name: value for name, value in os.environ.items() if name != SOCKET}
    with tempfile.TemporaryDirectory() as folder:  # a short name: that of a socket may not be long
        words = dict(cwd=ROOT, env=env | dict(TMPDIR=folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        killed, calm = (subprocess.Popen([sys.executable, "-c", serve], **words) for _ in range(2))
        assert [study.stdout.readline() for study in (killed, calm)] == ["serves\n"] * 2
        killed.kill()
        killed.wait()
        assert len(os.listdir(folder)) == 2
        done = subprocess.run([sys.executable, "-c", serve], **words | dict(stdin=None, input="\n"))
        assert done.returncode == 0 and len(os.listdir(folder)) == 1  # that of the one which still serves
        calm.communicate("\n")
        assert calm.returncode == 0 and os.listdir(folder) == []


def test_another_environment_is_not_served(server):
    assert forked(["timeit"], dict(os.environ, OMP_NUM_THREADS="7", VBG_HOME="/x")) is None
    assert bound(dict(os.environ, VBG_HOME="/x")) == bound(os.environ)


def test_a_job_of_snakemake_is_served(server, tmp_path):
    "It has variables of its own, and each thread count is one."
    tell = "import sys; print(sys.modules.keys() >= {'torch', 'transformers'})"
    shell = f'python -m vbg.runs.forkserver timeit -n1 -r1 "{tell}" > {{output}}'.replace("{'", "{{'").replace(
        "'}", "'}}"
    )
    (tmp_path / "Snakefile").write_text(f"rule all:\n    output: 'said.txt'\n    shell: {shell!r}\n")
    words = [sys.executable, "-m", "snakemake", "--directory", str(tmp_path), "-s", str(tmp_path / "Snakefile"), "-c2"]
    environment = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and (tmp_path / "said.txt").read_text().startswith("True"), done.stderr


def test_a_copy_ends_with_the_one_who_asked_and_with_the_server(server):
    words = ["timeit", "-n1", "-r1", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]
    asked = [sys.executable, "-m", "vbg.runs.forkserver", *words]
    client = subprocess.Popen(asked, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pid, copy, kernel = int(client.stdout.readline()), forked(words), forked(words, session=True)
    assert psutil.Process(pid).ppid() == psutil.Process(copy.pid).ppid() == psutil.Process(kernel.pid).ppid()
    client.kill()
    client.wait()
    wait_for(lambda: not psutil.pid_exists(pid))
    assert psutil.pid_exists(copy.pid) and psutil.pid_exists(kernel.pid)


def test_a_server_that_is_killed_takes_its_copies_along(tmp_path):
    code = (
        "import os, time\nfrom vbg.runs.forkserver import forked, fork_server\nwith fork_server():\n"
        "    words = ['timeit', '-n1', '-r1', 'import time; time.sleep(600)']\n"
        "    job, kernel = forked(words), forked(words, session=True)  # one that nobody holds is ended\n"
        "    print(job.pid, kernel.pid, flush=True)\n    time.sleep(600)"
    )
    environment = {name: value for name, value in os.environ.items() if name != SOCKET}
    study = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    pids = list(map(int, study.stdout.readline().split()))
    pids.append(psutil.Process(pids[0]).ppid())
    assert all(map(psutil.pid_exists, pids))
    study.kill()
    study.wait()
    wait_for(lambda: not any(map(psutil.pid_exists, pids)))


def wait_for(true, seconds=60):
    end = time.time() + seconds
    while not true():
        assert time.time() < end
        time.sleep(0.05)
