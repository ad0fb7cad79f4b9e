"""The reader's desk: a log that survives a kill, labels that are learnt from, a token, texts that stay text, keys."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, draw_museum
from in_browser import Tab, browser

import vbg.explain.collection as collections
from vbg.data.corrections import append, labels_of, log_place, read_log, state_of, undo
from vbg.reports import command

EVIL = '<img src=x onerror=document.title=7777> & "it\'s" <b>'
TITLE = "<svg onload=document.title=7777> {style} </script jug"


# ---- the log

WRITER = """
import os, sys
from pathlib import Path
import vbg.explain.collection as collections
from vbg.data.corrections import append
log, who, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for k in range(count):
    print(append(log, who, "category", f"{who}{k}", "correct", "a, \\"b\\" and\\nc").id, flush=True)
"""
HALF = """
real = os.write
def half(handle, text):
    real(handle, text[: len(text) // 2])
    os.kill(os.getpid(), 9)
os.write = half
append(log, who, "category", "half", "correct", "lost")
"""


def writing(log, who, count, code=WRITER):
    environment = os.environ | dict(PYTHONPATH=str(ROOT))
    words = [sys.executable, "-c", code, str(log), who, str(count)]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_line_that_a_kill_cut_off_is_passed_over_and_all_others_are_there(tmp_path):
    log = tmp_path / "corrections.csv"
    done = writing(log, "a", 3, WRITER + HALF)
    said = done.communicate()[0].split()
    assert done.returncode == -signal.SIGKILL and len(said) == 3 and not log.read_bytes().endswith(b"\n")
    found, damaged = read_log(log)
    assert ([one.id for one in found], damaged) == (said, 1)
    more = append(log, "a", "category", "next", "keep", "jar")
    found, damaged = read_log(log)
    assert ([one.id for one in found], damaged) == ([*said, more.id], 1)
    assert undo(log, "a") == more and "next" not in labels_of(read_log(log)[0], "category")


def test_what_was_said_to_be_saved_survives_a_kill_and_two_writers_share_a_log(tmp_path):
    log = tmp_path / "corrections.csv"
    one, other = writing(log, "a", 100_000), writing(log, "b", 12)
    said = [one.stdout.readline().strip() for _ in range(8)]
    one.kill()
    said += [*one.stdout.read().split("\n")[:-1], *other.communicate()[0].split()]
    found, damaged = read_log(log)
    assert {*said} <= {line.id for line in found} and damaged <= 1 and len(said) >= 20
    mine = [line.object for line in found if line.who == "b"]
    assert mine == [f"b{k}" for k in range(12)] and other.returncode == 0
    assert len(log.read_bytes().split(b"\n")) == 2 + len(found) + damaged  # one line a decision, and the header
    assert [line.time for line in found] == sorted(line.time for line in found)


def test_a_changed_line_is_not_read(tmp_path):
    log = tmp_path / "corrections.csv"
    append(log, "a", "category", "1", "correct", "jar")
    append(log, "a", "category", "2", "correct", "jar")
    log.write_bytes(log.read_bytes().replace(b",1,correct,jar", b",1,correct,lamp"))
    assert labels_of(read_log(log)[0], "category") == {"2": "jar"} and read_log(log)[1] == 1


# ---- a museum on the desk


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "Fifty rendered objects; one without a label, one whose title and number are hostile; a kept model."
    place = tmp_path_factory.mktemp("desk")
    table = draw_museum(place, 50)[["id", "image", "text", "label"]]
    table["image"] = ["met/images/" + path.rpartition("/")[2] for path in table.image]
    table.columns = ["Number", "Photo", "Title", "Category"]
    table.loc[0, "Category"] = ""
    table.loc[1, ["Number", "Title"]] = [EVIL, f"{TITLE} {table.Title[1]}"]
    table.to_csv(place / "list.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBG_HOME", str(place))
        chosen = lambda labels, tables: ("average", dict.fromkeys(tables, 0.5))  # of picture and text, if best or not
        patch.setattr(collections, "choose_rival", chosen)
        assert command.main(["collection", str(place / "list.csv"), "--encoders", "drawings"]) == 0
        yield place


@pytest.fixture(scope="module")
def server(home):
    from vbg.reports.desk import open_desk
    from vbg.reports.desk_server import DeskServer

    [model] = (home / "runs").glob("collection-*")
    made = DeskServer(open_desk(model.name, home / "list.csv", who="me", say=lambda line: None))
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def asked(server, path, body=None, token=True, **headers):
    "Status and JSON of an answer."
    line = http.client.HTTPConnection(server.hosts[0])
    headers |= {"X-Desk-Token": server.token} if token else {}
    line.request("POST" if body else "GET", path, body and json.dumps(body), headers)
    reply = line.getresponse()
    return reply.status, reply.read().decode()


def objects(server):
    return {one["id"]: one for one in json.loads(asked(server, "/api/collection?field=0")[1])["objects"]}


def test_without_the_token_nothing_is_told_or_written(server):
    before = read_log(server.desk.log)
    for path in ("/", "/?token=", "/?token=x", "/api/collection?field=0", "/api/object?n=0&field=0", "/desk.js"):
        status, said = asked(server, path, token=False)
        assert status == 403 and "Category" not in said and server.token not in said
    body = dict(n=0, field=0, action="correct", value="jar")
    assert asked(server, "/api/decide", body, token=False)[0] == 403
    assert asked(server, "/api/decide", body, **{"X-Desk-Token": "x" * 32}, token=False)[0] == 403
    assert asked(server, "/api/decide", body, Origin="http://museum.example")[0] == 403
    assert asked(server, "/api/decide", body, Host="museum.example")[0] == 403
    assert read_log(server.desk.log) == before


@pytest.mark.parametrize(
    "body",
    [
        dict(n=0, field=0, action="correct", value=""),
        dict(n=0, field=0, action="correct", value=["jar"]),
        dict(n=0, field=0, action="undo", value="x"),
        dict(n=0, field=0, action="words", value=[10_000]),
        dict(n=0, field=0, action="regions", value=[True]),
        dict(n=-1, field=0, action="accept"),
        dict(n=10_000, field=0, action="accept"),
        dict(n=0, field=1, action="accept"),
        dict(n=0, field=0, action="comment", value="\ud800"),
    ],
)
def test_a_wrong_request_is_told_and_writes_nothing(server, body):
    before = read_log(server.desk.log)
    status, said = asked(server, "/api/decide", body)
    assert status == 400 and json.loads(said)["problem"] and read_log(server.desk.log) == before


def test_what_was_learnt_from_is_judged_unseen_and_an_object_without_a_label_is_there(home, server):
    [file] = (home / "runs").glob("collection-*/out_of_fold.csv")
    unseen = pd.read_csv(file, dtype={"id": str}, encoding="utf-8-sig").set_index("id")
    shelf, there = server.desk.shelves[0], objects(server)
    assert len(there) == 50 and len(unseen) == 49
    for ident, one in there.items():
        said = shelf.said(one["n"])
        assert said["learnt"] == (ident in unseen.index) == bool(said["label"])
        if said["learnt"]:
            assert (said["suggestion"], said["probability"]) == (unseen.suggestion[ident], unseen.probability[ident])
            assert said["suggestion"] in said["held"] == unseen.cannot_be_ruled_out[ident].split("; ")
    doubted = [one["doubt"] for one in there.values()]
    assert doubted == sorted(doubted, reverse=True)


def test_links_are_the_same_both_ways_and_the_probabilities_those_of_the_model(server):
    [n] = [one["n"] for one in objects(server).values() if not one["label"]]
    told, object = (json.loads(asked(server, f"/api/{name}?n={n}&field=0")[1]) for name in ("links", "object"))
    words = [text for text, k in object["pieces"] if k >= 0]
    assert np.shape(told["link"]) == (len(words), object["grid"] ** 2) and len(told["no_word"]) == len(words)
    assert told["chosen"] == object["suggestion"] and told["whole"] == pytest.approx(
        server.desk.shelves[0].said(n)["probability"], abs=1e-4
    )
    assert np.max(told["link"]) > 0 and "the word need not name the region" in told["notes"][0]


def test_labels_of_a_person_are_learnt_from(home, capsys, monkeypatch, tmp_path):
    from vbg.explain.collection import find_collection

    table = pd.read_csv(home / "list.csv", dtype=str, keep_default_na=False)
    log = log_place(next((home / "runs").glob("collection-*")).name)
    names = sorted({*table.Category} - {""})
    append(log, "else", "Category", table.Number[0], "correct", names[0])
    append(log, "else", "Category", table.Number[2], "correct", next(n for n in names if n != table.Category[2]))
    append(log, "else", "Category", table.Number[3], "keep", table.Category[3])
    append(log, "else", "Category", "gone", "correct", names[0])
    capsys.readouterr()
    assert command.main(["collection", str(home / "list.csv"), "--encoders", "drawings"]) == 0
    said = "3 labels are read as a person gave them: 1 differ, 1 objects had none; 1 such objects are not here"
    assert said in capsys.readouterr().out.splitlines()
    labels = find_collection(home / "list.csv", {}).fields[0].objects.label
    assert labels[table.Number[0]] == names[0] and labels[table.Number[2]] != table.Category[2] and len(labels) == 50
    for _ in range(4):
        undo(log, "else")
    assert len(find_collection(home / "list.csv", {}).fields[0].objects) == 49


# ---- in a browser


@pytest.fixture(scope="module")
def tab(server, tmp_path_factory):
    with Tab(server.address, tmp_path_factory.mktemp("browser")) as opened:
        opened.wait("now.list && now.object && now.links")
        yield opened


@browser
def test_a_hostile_title_is_text_and_no_other_script_runs(server, tab):
    n = objects(server)[EVIL]["n"]
    tab.js(f"openObject({n})")
    tab.wait(f"now.links && now.n === {n} && at('object').textContent.startsWith('Object')")
    assert tab.js("at('object').textContent") == f"Object {EVIL}"
    assert tab.js("at('words').textContent").startswith(TITLE)
    assert EVIL in tab.js("at('objects').options[place()].textContent")
    assert tab.js("document.scripts.length") == 1 and "7777" not in tab.js("document.title")
    assert tab.js("document.querySelectorAll('#words b, #words img, #object *').length") == 0
    tab.js("{const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s)}")
    tab.js("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">')")
    assert tab.js("new Promise(done => setTimeout(() => done(window.ran || 0), 300))") == 0
    assert tab.js("fetch('http://example.org/').then(() => 'asked', () => 'refused')") == "refused"


@browser
def test_the_keyboard_alone_suffices(server, tab):
    n = next(one["n"] for one in objects(server).values() if not one["label"])
    hidden, desk = server.desk.hidden(n)[0], server.desk
    link = np.round(hidden.link, 5)
    word, region = np.unravel_index(link.argmax(), link.shape)
    state = lambda: state_of(read_log(desk.log)[0], "Category", desk.ids[n])
    tab.js(f"openObject({n})")
    tab.wait(f"now.links && now.object.n === {n}")

    tab.keys("w", *["ArrowRight"] * word)
    assert tab.js(f"document.activeElement === now.words[{word}]")
    lit = tab.js("now.cells.map(cell => cell.classList.contains('lit'))")
    assert lit == (link[word] > 0.05 * link.max()).tolist() and lit[region] and not all(lit)
    assert "without “" in tab.js("at('detail').textContent")
    tab.keys("Enter")
    tab.wait("at('status').textContent.startsWith('Saved: words')")
    start, stop = hidden.words[word]
    assert json.loads(state()["words"].value) == [[start, stop, desk.text(n)[start:stop]]]

    row, column = divmod(int(region), 6)
    tab.keys("r", *["ArrowDown"] * row, *["ArrowRight"] * column)
    assert tab.js(f"document.activeElement === now.cells[{region}]")
    lit = tab.js("now.words.map(one => one.classList.contains('lit'))")
    assert lit == (link[:, region] > 0.05 * link.max()).tolist() and lit[word]
    tab.keys("Enter")
    tab.wait("at('status').textContent.startsWith('Saved: regions')")
    assert json.loads(state()["regions"].value) == [[row, column, 6]]

    tab.keys("a")
    tab.wait("at('status').textContent.startsWith('Saved: accept')")
    assert state()["label"].value == desk.shelves[0].said(n)["suggestion"] and state()["label"].who == "me"
    tab.keys("c", *"jug", "Enter")
    tab.wait("at('status').textContent.startsWith('Saved: correct')")
    assert state()["label"].value == "jug"
    tab.keys("m", *"au", "Control+Enter")
    tab.wait("at('status').textContent.startsWith('Saved: comment')")
    assert state()["comment"].value == "au"
    for left in ("comment", "correct"):
        tab.keys("u")
        tab.wait(f"at('status').textContent.startsWith('Undone: {left}')")
    assert state()["label"].action == "accept" and "comment" not in state()
    assert tab.js("at('comment').value") == "" and "✓" in tab.js("at('objects').options[place()].textContent")
    before = tab.js("place()")
    tab.keys("p" if before else "n")
    tab.wait(f"place() === {before + (-1 if before else 1)} && now.object.n === now.n")
    for left in ("accept", "regions", "words"):
        tab.keys("u")
        tab.wait(f"at('status').textContent.startsWith('Undone: {left}') && now.object.n === {n}")
    assert state() == {}
