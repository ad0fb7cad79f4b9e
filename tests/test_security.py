"""What the package may call; what a hostile name may do on pages and in make; what files from outside may do."""

import ast
import builtins
import io
import json
import os
import random
import re
import shlex
import stat
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import mistune
import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, run_study
from in_browser import browser, probed
from markdown_it import MarkdownIt
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from vbg.core.collection_plan import collection_name
from vbg.core.files import DataError, RunError, scratch
from vbg.core.marks import md_cells, md_text
from vbg.data.acquire.coco import COCO_HOSTS
from vbg.data.acquire.met import MET_HOSTS
from vbg.data.card import show_card
from vbg.data.formats import workbooks
from vbg.models.text import load_tokenizer
from vbg.reports.book import body_html, page_html
from vbg.reports.page import POLICY, esc, page, section, table_html
from vbg.results.publish import show_table, table_tex
from vbg.results.tables import table_files

# ---- calls

# What is dangerous with text or files from outside, and the arguments that make it safe.
DANGEROUS = {
    **dict.fromkeys(("eval", "exec", "compile", "__import__", "input", "breakpoint"), None),
    **dict.fromkeys(("os.system", "os.popen", "os.startfile", "pty", "commands"), None),
    **dict.fromkeys((f"os.{kind}" for kind in "execl execle execlp execv execve execvp spawnl spawnv".split()), None),
    **dict.fromkeys(("subprocess", "asyncio.create_subprocess_shell", "runpy", "importlib.import_module"), None),
    **dict.fromkeys(("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"), None),
    **dict.fromkeys(("pandas.read_pickle", "torch.hub", "torch.jit.load", "numpy.fromfile"), None),
    "torch.load": ("weights_only", True),
    **dict.fromkeys(("numpy.load", "numpy.save"), ("allow_pickle", False)),
    **dict.fromkeys(("yaml", "tarfile", "shutil.unpack_archive", "tempfile.mktemp", "webbrowser"), None),
    **dict.fromkeys(("urllib.request", "http", "socketserver", "ftplib", "smtplib", "telnetlib", "httpx"), None),
    **dict.fromkeys(("aiohttp", "asyncio.start_server", "socket", "requests", "huggingface_hub"), None),
    **dict.fromkeys(("IPython.display.HTML", "IPython.display.Javascript", "jinja2"), None),
}
SAFE_NAMES = {  # that neither run nor read anything
    *(
        "subprocess.PIPE",
        "subprocess.STDOUT",
        "subprocess.TimeoutExpired",
        "pickle.UnpicklingError",
        "huggingface_hub.constants",
        "huggingface_hub.errors",
    ),
    *(
        "requests.Response",
        "requests.RequestException",
        "requests.exceptions",
        "socket.gethostname",
        "torch.hub.get_dir",
    ),
}
ALLOWED = {  # module, name -> why
    ("runs.forkserver", "importlib.import_module"): "the names of `LIBRARIES`, which stand in the module",
    ("runs.forkserver", "runpy.run_module"): "a module that our own process asks for, through a socket of its user",
    ("runs.forkserver", "os.execv"): "this Python with the same words, where no server is",
    ("runs.forkserver", "subprocess.Popen"): "the server: this Python, a list of words",
    ("runs.forkserver", "socket.socket"): "AF_UNIX, in a folder that only its owner reads",
    ("runs.forkserver", "socket.AF_UNIX"): "as above",
    ("runs.forkserver", "socket.send_fds"): "as above",
    ("runs.forkserver", "socket.recv_fds"): "as above",
    ("runs.reproduce", "os.execv"): "Snakemake, a list of words",
    ("runs.reproduce", "subprocess.Popen"): "Snakemake, a list of words",
    ("runs.workflow", "subprocess.run"): "Snakemake, a list of words",
    (
        "models.frozen",
        "huggingface_hub.snapshot_download",
    ): "weights by the name that the user gives; no code of them is run",
    ("models.vision", "huggingface_hub.hf_hub_download"): "as above",
    ("models.vision", "huggingface_hub.try_to_load_from_cache"): "as above; asks no server",
    ("reports.desk_server", "http.server.BaseHTTPRequestHandler"): "the reader's desk, behind a token",
    ("reports.desk_server", "socketserver.ThreadingTCPServer"): "as above; on 127.0.0.1",
    ("data.acquire.web", "requests.Session"): "the one door to servers; it asks the hosts of its list alone",
}
METHODS = {"extractall", "read_pickle", "to_pickle", "unsafe_load", "load_from_checkpoint"}  # of whatever object
KEYWORDS = {"shell": False, "trust_remote_code": False, "verify": True, "allow_pickle": False, "weights_only": True}


def names_of(tree):
    "Local name -> what it was imported as."
    found = {name: name for name in dir(builtins)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {
                a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names
            }
        if isinstance(node, ast.ImportFrom) and not node.level:
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


def dotted(node, names):
    "The full name of `a.b.c`; None where `a` was not imported and is no built-in."
    parts = []
    while isinstance(node, ast.Attribute):
        parts, node = [node.attr, *parts], node.value
    return ".".join([names[node.id], *parts]) if isinstance(node, ast.Name) and node.id in names else None


def within(name, those):
    return next((key for key in those if name == key or name.startswith(f"{key}.")), None)


def dangers(source):
    "The dangerous names that a module uses, and the dangerous arguments."
    tree = ast.parse(source)
    names, calls = names_of(tree), {id(n.func): n for n in ast.walk(tree) if isinstance(n, ast.Call)}
    inner = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in KEYWORDS:
            if not isinstance(node.value, ast.Constant) or node.value.value is not KEYWORDS[node.arg]:
                yield f"{node.arg}={ast.unparse(node.value)}"
        if isinstance(node, ast.Attribute) and node.attr in METHODS:
            yield f".{node.attr}"
        if not isinstance(node, (ast.Name, ast.Attribute)) or id(node) in inner:
            continue
        name = dotted(node, names)
        key = within(name, DANGEROUS) if name else None
        if key and not within(name, SAFE_NAMES):
            safe, call = DANGEROUS[key], calls.get(id(node))
            given = {k.arg: getattr(k.value, "value", None) for k in call.keywords} if call else {}
            if not (safe and given.get(safe[0]) is safe[1]):
                yield name


MODULES = sorted(p for p in (ROOT / "vbg").rglob("*.py") if p.name != "_modidx.py")


def module_name(path):
    return ".".join(path.relative_to(ROOT / "vbg").with_suffix("").parts)


def test_the_package_makes_no_dangerous_call_but_those_that_are_allowed():
    found = {(module_name(p), name) for p in MODULES for name in dangers(p.read_text(encoding="utf-8"))}
    assert len(MODULES) > 60
    assert found - ALLOWED.keys() == set(), "a safer way, or a line in ALLOWED that says why"
    assert ALLOWED.keys() - found == set(), "no longer needed"


@pytest.mark.parametrize("path", [ROOT / "setup.py", ROOT / "jupyter_server_config.py"], ids=lambda p: p.name)
def test_nor_do_the_files_that_a_tool_runs(path):
    assert not [*dangers(path.read_text(encoding="utf-8"))]


def test_study_notebooks_run_no_command_and_make_no_dangerous_call():
    for path in sorted((ROOT / "nbs" / "study").rglob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                assert not re.search(r"^\s*(!|%%(?!time))", cell.source, re.M), path.name
                assert not [*dangers(re.sub(r"^\s*%.*$", "", cell.source, flags=re.M))], path.name


@pytest.mark.parametrize(
    "source, said",
    [
        ("eval('1')", "eval"),
        ("import os\nos.system('ls')", "os.system"),
        ("from os import system as run\nrun('ls')", "os.system"),
        ("import subprocess as s\ns.run('ls')", "subprocess.run"),
        ("def f(go, words):\n    go(words, shell=True)", "shell=True"),
        ("def f():\n    import pickle\n    return pickle.load", "pickle.load"),
        ("import torch\ntorch.load('a')", "torch.load"),
        ("import torch\nfrom functools import partial\nf = partial(torch.load, weights_only=True)", "torch.load"),
        ("import torch\ntorch.load('a', weights_only=False)", "weights_only=False"),
        ("import numpy as np\nnp.load('a.npz')", "numpy.load"),
        ("import zipfile\nzipfile.ZipFile('a').extractall('b')", ".extractall"),
        ("from transformers import AutoModel as A\nA.from_pretrained('a', trust_remote_code=True)", "trust_remote"),
        ("import requests\nrequests.get('http://a')", "requests.get"),
        ("from urllib.request import urlopen\nurlopen('http://a')", "urllib.request.urlopen"),
        ("from IPython.display import HTML\nHTML(title)", "IPython.display.HTML"),
    ],
)
def test_the_search_finds_a_dangerous_call(source, said):
    assert any(name.startswith(said) for name in dangers(source))


def test_the_search_passes_what_is_safe():
    source = "import torch, numpy as np\nm.eval()\ntorch.load(f, weights_only=True)\nnp.load(f, allow_pickle=False)"
    assert not [*dangers(source)]


# ---- names that are meant to break a page, a table or a command

RUN = "document.title=7777"
HOSTILE = [
    f"<script>{RUN}</script>",
    f'"><img src=x onerror="{RUN}">',
    f'\'><svg onload="{RUN}">',
    f"</title></style></textarea></p></td></table><script>{RUN}</script>",
    f'```<img src=x onerror="{RUN}">`',
    f'`a`` `<img src=x onerror="{RUN}">`',
    f'\\`a` `<img src=x onerror="{RUN}">`',
    f"[vase](javascript:{RUN})",
    "![vase](http://example.org/a.png)",
    "<http://example.org>",
    "&lt;script&gt; &#60;b&#62;",
    "${IFS}",
    "$(touch ran)",
    "`touch ran`",
    "a | b || c",
    "two\nlines\n\n# three",
    "\u202egnp.exe\u2066 \u2069",
    "{{ 7 * 7 }} {wildcards} %s",
    r"\input{/etc/passwd} \write18{touch ran}",
]


class Tags(HTMLParser):
    "The tags of a page that do something, and its text."

    def __init__(self, text):
        super().__init__()
        self.bad, self.seen, self.said = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        has = dict(attributes)
        address = re.sub(r"\s", "", "".join(has.get(k) or "" for k in ("src", "srcset", "action", "data"))).lower()
        self.seen.append(tag)
        self.bad += [tag] if tag in ("script", "iframe", "object", "embed", "form", "svg", "base") else []
        self.bad += [f"{tag} {key}" for key in has if key.startswith("on")]
        self.bad += [f"{tag} {address[:40]}"] if address and not address.startswith("data:") else []
        self.bad += [has["href"]] if "script:" in (has.get("href") or "").lower() else []

    def handle_data(self, data):
        self.said += data


def rendered(markdown):
    "As Jupyter and the book show it, and as CommonMark says."
    yield AS_JUPYTER(markdown)
    yield AS_COMMONMARK.render(markdown)


AS_JUPYTER = mistune.create_markdown(escape=False, plugins=["table", "strikethrough", "url"])
AS_COMMONMARK = MarkdownIt("commonmark", {"html": True}).enable("table")


def test_the_payloads_would_run_where_nothing_is_escaped():
    assert Tags("".join(HOSTILE)).bad
    for name in HOSTILE[:7]:
        assert any(Tags(made).bad for made in rendered(f"| name |\n|:---|\n| {name} |\n")), name


def test_a_hostile_name_is_text_in_a_table_of_markdown():
    files = table_files(pd.DataFrame({"class": HOSTILE, HOSTILE[0]: 1.5}))
    shown = show_table(pd.DataFrame({"class": HOSTILE})).data
    for text in (files["md"].decode(), shown):
        assert len(text.strip().splitlines()) == 2 + len(HOSTILE)
        for made in rendered(text):
            assert Tags(made).bad == [] and "img" not in Tags(made).seen
            assert "gnp.exe" in made and "\u202e" not in made and "http://example.org/a.png" in made
    assert pd.read_csv(io.BytesIO(files["csv"]))["class"].tolist() == HOSTILE  # as they are


def test_no_mixture_of_ticks_backslashes_and_tags_becomes_a_tag():
    random.seed(0)
    parts = [
        "`",
        "``",
        "\\",
        "<img src=x onerror=run()>",
        "</code>",
        "|",
        " ",
        "a",
        "&lt;",
        "[",
        "](javascript:a)",
        "!",
    ]
    for _ in range(1000):
        name = "".join(random.choices(parts, k=random.randint(1, 9)))
        for made in rendered(f"| class |\n|:--|\n| {md_text(name)} |\n"):
            assert Tags(made).bad == [], (name, made)
        assert md_cells(f"| {md_text(name)} |") == [name.strip()] or "\\" in name or name != name.strip()


def test_a_data_card_shows_hostile_names_as_text():
    count = dict.fromkeys(("train", "validation", "test"), 1)
    card = dict(name=HOSTILE[4], items=3, image_size=8, label_in_text=0, fingerprint="0", text={}, missing={}, tiny=[])
    card |= dict(classes={name: count for name in HOSTILE}, skipped=dict(count=1, reasons={HOSTILE[1]: 1}))
    for made in rendered(show_card(card | dict(duplicates={})).data):
        assert Tags(made).bad == [] and RUN in Tags(made).said


def test_tex_gets_no_command_from_a_name():
    made = table_tex(table_files(pd.DataFrame({"class": HOSTILE}))["md"].decode())
    assert not re.search(r"(?<!\\textbackslash )\\(input|write18)\b", made) and "textbackslash" in made
    assert "touch ran" in made


def hostile_notebook():
    "Executed, with hostile names in every kind of output and in a parameter."
    tagged = new_code_cell("width = ''  # of <b>", metadata={"tags": ["parameters"]})
    table = pd.DataFrame({"class": HOSTILE})
    outputs = [
        new_output("stream", text="\n".join(HOSTILE)),
        new_output("display_data", data={"text/html": table.to_html()}),
        new_output("display_data", data={"text/markdown": show_table(table).data}),
        new_output("execute_result", data={"text/plain": repr(HOSTILE)}),
        new_output("error", ename="DataError", evalue=HOSTILE[0], traceback=HOSTILE),
    ]
    return new_notebook(cells=[new_markdown_cell("# Names"), tagged, new_code_cell("f()", outputs=outputs)])


def hostile_pages():
    "Name -> page: all that a title can reach."
    rows = [[esc(name), esc(name)] for name in HOSTILE]
    body = section("one", HOSTILE[3], table_html(HOSTILE, [r * 10 for r in rows], HOSTILE[0]))
    return {
        "page": page(HOSTILE[3], body, heading=HOSTILE[1], above="<span></span>"),
        "book": page_html(HOSTILE[3], body_html(hostile_notebook(), HOSTILE[0])),
    }


@pytest.mark.parametrize("name", ["page", "book"])
def test_hostile_titles_are_text_on_a_page(name):
    made = hostile_pages()[name]
    assert Tags(made).bad == [] and made.count(RUN) > 5
    assert made.index(POLICY) < made.index("<title>") and "script-src" not in POLICY and "'none'" in POLICY


def test_the_book_refuses_a_script_in_an_output():
    for said in (f"<script>{RUN}</script>", "<iframe srcdoc='a'></iframe>", '<base href="http://example.org/">'):
        cell = new_code_cell("f()", outputs=[new_output("display_data", data={"text/html": said})])
        with pytest.raises(RunError, match="has no place in the page"):
            body_html(new_notebook(cells=[cell]), "A")


PROBE = """<script>addEventListener("load", () => setTimeout(() => parent.postMessage(JSON.stringify({
 title: document.title, asked: performance.getEntriesByType("resource").map(e => e.name)}), "*"), 300))</script>"""


@browser
@pytest.mark.parametrize("name", ["page", "book"])
def test_browser_runs_no_script_of_a_title(name, tmp_path):
    (tmp_path / "book.css").write_text("")
    (tmp_path / "a.html").write_text(hostile_pages()[name], encoding="utf-8")
    said, _ = probed(tmp_path / "a.html", tmp_path, 800, PROBE)
    assert said["title"] != "7777" and "script" in said["title"]
    assert all(address.startswith(("data:", tmp_path.as_uri())) for address in said["asked"])


@browser
def test_browser_obeys_the_policy_where_an_escape_is_missed(tmp_path):
    "The same unescaped text, with the policy and without."
    missed = page("A", f"<p>{HOSTILE[0]}{HOSTILE[1]}</p>")
    for policy, title in ((POLICY, "A"), ("", "7777")):
        (tmp_path / "a.html").write_text(missed.replace(POLICY, policy), encoding="utf-8")
        assert probed(tmp_path / "a.html", tmp_path, 800, PROBE)[0]["title"] == title


# ---- make and the shell


def of_make(*words, **how):
    env = {
        k: v for k, v in os.environ.items() if k not in ("FOLDER", "COLUMNS", "MODEL", "WHO", "CLASSES", "MAKEFLAGS")
    }
    env.pop("MAKELEVEL", None)
    return subprocess.run(["make", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=True, **how).stdout


@pytest.mark.parametrize(
    "name", [*HOSTILE, "$(shell touch ran)", "a'; touch ran; '", "My mus'eum", "$$HOME", "a\\", "#"]
)
def test_what_is_typed_reaches_no_shell(name):
    told = " ".join(f'"$$VBG_{variable}"' for variable in "FOLDER MODEL WHO COLUMNS".split())
    show = f'shown: ; @printf "%s@@" {told} $(call quoted,$(CLASSES)) $(SIZES) "" $(PARTS)'
    typed = [f"{variable}={name}" for variable in "FOLDER MODEL WHO COLUMNS CLASSES PROFILE CORES TARGETS".split()]
    line = " ".join(name.split("\n"))
    *words, gpus, nothing = of_make("-s", "--eval", show, "shown", *typed).split("@@")[:12]
    assert (
        words == [name, name, name, name, line, "--profile", line, "--cores", line, "--gpus"]
        and gpus.isdecimal()
        and not nothing
    )
    call = of_make("-n", "data-met", f"CLASSES={name}").partition("-m vbg.reports.command ")[2]
    assert shlex.split(call) == ["acquire", "met", "--classes", line]
    assert not (ROOT / "ran").exists()


def test_a_hostile_folder_reaches_no_shell_of_snakemake(tmp_path, monkeypatch):
    folder = tmp_path / "$(touch ran) `touch ran`|${IFS}<script>{wildcards.method}'\" \u202etxt"
    folder.mkdir()
    rows = "\n".join(f"{i},{i}.jpg,thing,{'bowl' if i % 2 else '$(touch ran)'}" for i in range(20))
    (folder / "objects.csv").write_text(f"id,image,title,category\n{rows}\n", encoding="utf-8")
    monkeypatch.setenv("VBG_FOLDER", str(folder))
    monkeypatch.setenv("VBG_COLUMNS", json.dumps({"label": "category", "text": "$(touch ran)'`"}))
    done = run_study(tmp_path, "--dry-run", "--printshellcmds", "collection", profile="mini")
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in (done.stdout + done.stderr).splitlines() if " vbg.reports.command run " in line]
    for line in lines:
        words = shlex.split(line.split("Shell command:", 1)[-1])
        data = json.loads(words[max(i for i, w in enumerate(words) if w == "data") + 1])
        assert data["folder"] == str(folder) and data["options"]["text"] == "$(touch ran)'`"
    assert len(lines) > 30 and re.fullmatch("[a-z0-9-]+", collection_name(folder))
    assert not [*tmp_path.rglob("ran"), *ROOT.glob("ran")]


# ---- files from outside


def workbook(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as f:
        for name, content in members.items():
            f.writestr(name.replace("__", "/").replace("_xml", ".xml"), content)
    return path


def ods(rows, before=""):
    named = "xmlns:{0}='urn:oasis:names:tc:opendocument:xmlns:{0}:1.0'"
    names = " ".join(map(named.format, ("table", "office", "text")))
    return f"{before}<a {names}><table:table table:name='A'>{rows}</table:table></a>"


def row(text, cell="", whole=""):
    return (
        f"<table:table-row{whole}><table:table-cell{cell}><text:p>{text}</text:p></table:table-cell></table:table-row>"
    )


MANY = " table:number-{}-repeated='2000000000'"
LAUGHS = "<!DOCTYPE a [<!ENTITY x0 'ha'>" + "".join(
    f"<!ENTITY x{k + 1} '{f'&x{k};' * 10}'>" for k in range(9)
)  # a thousand million times


@pytest.mark.parametrize(
    "content",
    [
        ods(row("a", whole=MANY.format("rows"))),
        ods(row("a", cell=MANY.format("columns"))),
        ods(row("&x9;"), f"{LAUGHS}]>"),
        ods(row("&e;"), "<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>"),
        b"<a>" + b" " * 6_000_000 + b"</a>",
    ],
    ids=["rows", "columns", "entities", "file of the machine", "blanks"],
)
def test_a_workbook_that_would_fill_the_memory_or_read_a_file_is_refused(content, tmp_path, monkeypatch):
    monkeypatch.setattr(workbooks, "UNPACKED", workbooks.UNPACKED // 100)
    path = workbook(tmp_path / "a.ods", content_xml=content)
    assert path.stat().st_size < 20_000
    with pytest.raises(DataError, match=r"a.ods: this OpenDocument workbook cannot be opened .*Remedy"):
        workbooks.read_sheet(path, workbooks.workbook_kind(path))


def test_an_excel_sheet_with_two_cells_far_apart_is_refused(tmp_path):
    import openpyxl

    book = openpyxl.Workbook()
    book.active["A1"], book.active["XFD1048576"] = "id", "far"
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(DataError, match="a sheet of 1,048,576 rows and 16,384 columns; 20,000,000 cells are read"):
        workbooks.read_sheet(tmp_path / "a.xlsx", "xlsx")


class Runs:
    "A pickle of it would write a file."

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_reader_of_arrays_or_weights_runs_a_pickle(tmp_path):
    import torch

    from vbg.models.checkpoints import read_weights

    torch.save({"weight": Runs(tmp_path / "ran")}, tmp_path / "w.pth")
    with pytest.raises(DataError, match="no weights can be read"):
        read_weights(tmp_path / "w.pth")
    np.save(tmp_path / "a.npy", np.array([Runs(tmp_path / "ran")], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        np.load(tmp_path / "a.npy", allow_pickle=False)
    assert not (tmp_path / "ran").exists()
    np.load(tmp_path / "a.npy", allow_pickle=True)  # it would have run
    assert (tmp_path / "ran").exists()


def test_a_tokenizer_that_brings_its_own_code_is_not_run(tmp_path, monkeypatch):
    told = dict(tokenizer_class="Own", auto_map={"AutoTokenizer": ["own.Own", None]})
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    (tmp_path / "config.json").write_text(json.dumps(dict(model_type="own", auto_map={"AutoConfig": "own.Own"})))
    (tmp_path / "own.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\nclass Own: pass\n"
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(DataError):
        load_tokenizer(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_an_image_that_claims_to_be_huge_is_refused(tmp_path):
    from vbg.data.images import read_image

    Image.new("1", (8, 8)).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib

    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match="too large"):
        read_image(tmp_path / "a.png", 64)


# ---- servers


def test_hosts_that_are_asked_stand_in_the_policy():
    said = (ROOT / ".github" / "SECURITY.md").read_text(encoding="utf-8")
    hosts = {*MET_HOSTS, *COCO_HOSTS}
    assert hosts == set(re.findall(r"^- `([a-z0-9.-]+\.[a-z]+)`", said, re.M))
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        if path.parent.name == "acquire":
            assert {h for h in re.findall(r'"https://([a-z0-9.-]+)', text)} <= hosts, path.name


def test_the_socket_of_the_fork_server_lies_where_only_its_owner_reads():
    with scratch() as folder:
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700


def test_no_server_is_opened_to_the_network_or_without_a_token():
    "Jupyter listens on loopback and asks for a token unless it is told otherwise."
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    loose = re.compile(r"0\.0\.0\.0|--ip\b|(token|password)\s*=\s*(''|\"\")|allow_origin|disable_check_xsrf|--no-auth")
    for name in tracked:
        path = ROOT / name
        if (
            path.suffix in (".py", ".yml", ".ini", ".toml", ".smk", "")
            and path.is_file()
            and name != "tests/test_security.py"
        ):
            found = loose.search(path.read_text(encoding="utf-8", errors="ignore"))
            assert not found, f"{name}: {found and found[0]}"
