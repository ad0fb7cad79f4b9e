"""Pages opened in a real browser, where there is one, with the network shut off."""

import html
import http.client
import json
import re
import shutil
import subprocess
import time
from contextlib import suppress

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


CODES = dict(Enter=13, Escape=27, ArrowLeft=37, ArrowUp=38, ArrowRight=39, ArrowDown=40)


class Tab:
    "A page that is driven by the protocol of the browser's own tools: scripts and keys. It reaches loopback alone."

    def __init__(self, address, folder):
        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1400,1000"]
        words += ["--remote-debugging-port=0", f"--user-data-dir={folder}", "--disable-background-networking"]
        words += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-component-update"]
        quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.process, self.asked = subprocess.Popen([BROWSER, *words, address], **quiet), 0
        try:
            self.line = self._open(folder / "DevToolsActivePort")
        except BaseException:
            self.process.kill()
            raise

    def _open(self, file, seconds=60):
        import websocket

        for _ in range(10 * seconds):
            with suppress(OSError, ValueError, IndexError):
                port = int(file.read_text().split()[0])
                line = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                line.request("GET", "/json/list")
                [page] = [one for one in json.loads(line.getresponse().read()) if one["type"] == "page"]
                return websocket.create_connection(page["webSocketDebuggerUrl"], suppress_origin=True, timeout=60)
            time.sleep(0.1)
        raise TimeoutError("the browser did not start")

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        self.line.close()
        self.process.terminate()
        self.process.wait(30)

    def call(self, method, **words):
        "The answer to a method of the protocol."
        self.asked += 1
        self.line.send(json.dumps(dict(id=self.asked, method=method, params=words)))
        while True:
            said = json.loads(self.line.recv())
            if said.get("id") == self.asked:
                assert "error" not in said, said
                return said["result"]

    def _evaluated(self, script):
        how = dict(awaitPromise=True, returnByValue=True)
        return self.call("Runtime.evaluate", expression=script, **how)

    def js(self, script):
        "The value of a script, waited for."
        said = self._evaluated(script)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def wait(self, script, seconds=60):
        "Until a script is true; before the page has loaded, its names are not there."
        for _ in range(20 * seconds):
            if self._evaluated(f"Boolean({script})")["result"].get("value") is True:
                return
            time.sleep(0.05)
        raise AssertionError(f"never true: {script}; the page says {self.js('document.body.innerText')[-600:]!r}")

    def keys(self, *keys):
        "Press keys, such as 'a', 'Enter' or 'Control+Enter'."
        for key in keys:
            *held, name = key.split("+")
            text = {"Enter": "\r"}.get(name, name if len(name) == 1 else "")
            told = dict(key=name, modifiers=2 * ("Control" in held))
            told |= dict(windowsVirtualKeyCode=CODES.get(name, ord(name[0].upper())))
            self.call("Input.dispatchKeyEvent", type="keyDown", **told, **({"text": text} if text else {}))
            self.call("Input.dispatchKeyEvent", type="keyUp", **told)
