"""Pages opened in a real browser, where there is one, with the network shut off."""

import html
import json
import re
import shutil
import subprocess

import pytest

NAMES = "chromium chromium-browser google-chrome google-chrome-stable chrome chrome-headless-shell microsoft-edge"
BROWSER = next(filter(None, map(shutil.which, NAMES.split())), None)
browser = pytest.mark.skipif(
    BROWSER is None,
    reason="no Chromium on PATH (Debian: apt install chromium; macOS: brew install --cask chromium; "
    "Google Chrome or Edge will do)",
)
# a frame, for a window of its own may not be narrower than 500 pixels
FRAME = """<!DOCTYPE html>
<script>addEventListener("message", e => document.documentElement.setAttribute("data-probe", e.data))</script>
<iframe src="{source}" style="border:0;width:{width}px;height:900px"></iframe>"""


def shown(page, folder, *words, width=1400):
    "Open a page; what the browser prints, and what the page's console says."
    command = [
        BROWSER,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'browser'}",
        f"--window-size={width},1000",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr",
        "--no-first-run",
        "--disable-quic",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        *words,
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def probed(page, folder, width, probe):
    "What a page says of itself in a frame of this width, and its console. The script `probe` sends the answer."
    copy, frame = page.with_name(f"probe-{page.name}"), page.with_name(f"frame-{page.name}")
    copy.write_text(page.read_text(encoding="utf-8").replace("<head>", f"<head>{probe}", 1), encoding="utf-8")
    frame.write_text(FRAME.format(source=copy.name, width=width), encoding="utf-8")
    try:
        dom, console = shown(frame, folder, "--virtual-time-budget=10000", "--dump-dom")
    finally:
        copy.unlink()
        frame.unlink()
    return json.loads(html.unescape(re.search(r'data-probe="(.*?)"', dom)[1])), console
