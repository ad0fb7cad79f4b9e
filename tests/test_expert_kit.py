"""The kit for experts: the page in a browser, driven by keys; the way from its file to the analysis; the command."""

import re

import numpy as np
import pandas as pd
import pytest
from in_browser import Tab, browser, probed
from PIL import Image

from vbg.reports import command
from vbg.results.expert_answers import analyse, read_answers, read_key, write_answers
from vbg.results.expert_kit import folder_sources, make_kit, make_sheet
from vbg.stats.raters import draw_skills, simulate

EVIL = "<img src=x onerror=document.title=7777>"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    "Photographs of 48 pixels and made images of 32, two classes, six of each."
    home, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for kind, side, ending in (("real", 48, "jpg"), ("made", 32, "png")):
        for group in ("bowl", "lamp"):
            (home / kind / group).mkdir(parents=True)
            for k in range(6):
                path = home / kind / group / f"{k}.{ending}"
                Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(path)
    return home


@pytest.fixture(scope="module")
def kit(folders):
    sheet = make_sheet(folder_sources(folders / "real", folders / "made"), EVIL, 3)
    return make_kit(sheet, folders / "kit")


def test_the_command_makes_a_kit_of_two_folders_and_analyses_what_came_back(folders, capsys):
    asked = ["experts", "--real", folders / "real", "--generated", folders / "made", "--per-class", 5]
    out = folders / "by-command"
    assert command.main([*map(str, asked), "--title", "Vases", "--out", str(out)]) == 0
    assert "20 images, half of them generated" in capsys.readouterr().out
    key = read_key(out / "key" / "key.csv")
    assert command.main(["experts", "--answers", str(out)]) == 2  # nothing came back
    assert "no file of answers is there. Remedy: put the csv files" in capsys.readouterr().err
    panel = simulate(draw_skills([0.8, 0.7], 3), (key.truth == "generated").to_numpy())
    write_answers(panel, key, out / "answers")
    assert command.main(["experts", "--answers", str(out)]) == 0
    said = capsys.readouterr().out
    assert "**These raters are simulated. No expert has used this kit.**" in said and "3 simulated, no expert" in said
    assert (out / "analysis" / "analysis.md").read_text(encoding="utf-8") in said
    assert command.main([*map(str, asked[:3]), "--out", str(out)]) == 2
    assert "--real and --generated go together" in capsys.readouterr().err


def test_without_a_gan_the_command_says_what_makes_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    assert command.main(["experts", "--profile", "smoke"]) == 1
    assert "`make gan" in capsys.readouterr().err and not list(tmp_path.rglob("sheet.html"))


# ---- in a browser


@pytest.fixture(scope="module")
def tab(kit, tmp_path_factory):
    down = tmp_path_factory.mktemp("down")
    with Tab((kit / "sheet" / "sheet.html").as_uri(), tmp_path_factory.mktemp("browser")) as opened:
        opened.wait("now.order")
        opened.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(down))
        opened.down = down
        yield opened


def keep_on(tab):
    "Load the page anew."
    tab.js("now.old = true")
    tab.call("Page.reload")
    tab.wait("!now.old && now.order && document.readyState === 'complete'")


@browser
def test_a_sheet_is_answered_by_keys_survives_a_reload_and_is_saved_for_the_analysis(kit, tab):
    key = read_key(kit / "key" / "key.csv")
    assert tab.js("document.title") == f"Real or generated? {EVIL}" and tab.js("document.scripts.length") == 2
    tab.keys(*"anna", "Enter")
    tab.wait("!at('judge').hidden && at('image').naturalWidth === 32")
    order = tab.js("now.order")
    assert sorted(order) == list(range(12)) != order and tab.js("orderOf('anna')") == order != tab.js("orderOf('ben')")
    truth, letters = key.truth.tolist(), dict(real="r", generated="g")
    said = [truth[item] for item in order]
    said[2] = "generated" if said[2] == "real" else "real"  # one is wrong
    tab.js("new Promise(done => setTimeout(done, 300))")
    for k in range(5):
        tab.keys(letters[said[k]], "4", *["c", *"=a, b", "Escape"] * (k == 1), "ArrowRight")
    assert (
        tab.js("at('done').textContent") == "5 of 12 answered" and tab.js("at('place').textContent") == "Image 6 of 12"
    )
    keep_on(tab)
    assert tab.js("at('place').textContent") == "Image 6 of 12" and tab.js("now.rater") == "anna"
    tab.keys("ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowLeft")
    assert (
        tab.js("at('comment').value") == "=a, b" and tab.js(f"at('{said[1]}').getAttribute('aria-pressed')") == "true"
    )
    tab.keys("5", *["ArrowRight"] * 4)
    for k in range(5, 12):
        tab.keys(letters[said[k]], *["ArrowRight"] * (k < 11))
    tab.wait("at('status').textContent.startsWith('All are answered')")
    tab.keys("s")
    tab.wait("at('status').textContent.startsWith('Saved as answers-')")
    file = tab.down / f"answers-{key.sheet.iloc[0]}-anna.csv"
    for _ in range(200):
        if file.is_file():
            break
        tab.js("new Promise(done => setTimeout(done, 50))")
    (kit / "answers" / file.name).write_bytes(file.read_bytes())
    answers = read_answers(kit / "answers", kit / "key" / "key.csv")
    assert answers.raters == ("anna",) and not answers.simulated and answers.right.sum() == 11
    assert answers.said[0, order[2]] != answers.generated[order[2]] and answers.seconds[0, order[0]] >= 0.3
    felt = answers.confidence[0, order]
    assert felt[:5].tolist() == [4, 5, 4, 4, 4] and np.isnan(felt[5:]).all()
    lines = pd.read_csv(file)
    assert lines.place.tolist() == list(range(1, 13)) and lines.comment[1] == "'=a, b"
    text, _ = analyse(kit)
    assert "simulated" not in text and "91.7" in text


@browser
def test_the_page_asks_no_server_runs_no_other_script_and_says_so_where_nothing_is_kept(tab):
    assert tab.js("fetch('http://example.org/').then(() => 'asked', () => 'refused')") == "refused"
    tab.js("{const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s)}")
    assert tab.js("new Promise(done => setTimeout(() => done(window.ran || 0), 300))") == 0
    tab.js("at('leave').click()")
    assert tab.js("at('kept').textContent") == "The answers of anna are kept in this browser."
    tab.js("Object.defineProperty(Storage.prototype, 'setItem', {value: () => { throw new Error('full'); }}); 0")
    tab.js("begin('ben')")
    assert tab.js("at('status').textContent").startswith("This browser keeps nothing") and tab.js("answered()") == 0


@browser
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_of_the_page_lies_beside_the_screen(kit, width):
    probe = """<script>addEventListener("load", () => {
    begin("anna");
    const over = [...document.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1);
    parent.postMessage(JSON.stringify({over: over.map(e => e.id || e.tagName), wide: innerWidth}), "*");
    });</script>"""
    page = kit / "sheet" / "sheet.html"
    open_page = page.with_name("open.html")  # without the policy, which refuses the probe
    open_page.write_text(
        re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text("utf-8")), "utf-8"
    )
    said, _ = probed(open_page, kit, width, probe)
    assert said == dict(over=[], wide=width)
