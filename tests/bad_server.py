"""A local server as bad as the real ones: it serves a tree of files and spoils the answers that it is told to spoil."""

import hashlib
import http.server
import threading
import time

PAGE = b"<!DOCTYPE html><html><body>Request unsuccessful. Incapsula incident ID: 116030910212059510</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 317000000\n"
XML = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'


class BadServer(http.server.ThreadingHTTPServer):
    "Serves `tree`: path -> bytes. `faults`: path -> names of faults, one for each request; `always ...` for all."

    daemon_threads = True

    def __init__(self, tree):
        super().__init__(("127.0.0.1", 0), Handler)
        self.tree, self.faults, self.asked, self.most = tree, {}, [], None
        self.elsewhere, self.done, self.count, self.blocked = "", threading.Event(), 0, 0.0
        threading.Thread(target=self.serve_forever, kwargs=dict(poll_interval=0.02), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def guards(self):
        "True while the guard of the museum blocks: for 0.2 s after `most` requests."
        now, self.count = time.monotonic(), self.count + 1
        if self.most and self.count > self.most:
            self.blocked, self.count = now + 0.2, 0
        return now < self.blocked

    def paths(self):
        "What was asked for, without host and folders."
        return [path.rsplit("/", 1)[-1] for path, _ in self.asked]

    def close(self):
        self.done.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        "A client that hangs up is no error here."


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path, server = self.path.partition("?")[0].replace("%20", " "), self.server
        server.asked.append((path, self.headers.get("Range", "")))
        faults = server.faults.get(path, [])
        fault = (faults[0] if faults[0].startswith("always ") else faults.pop(0)) if faults else ""
        fault = fault.removeprefix("always ")
        if server.guards():
            return self.page(403)
        content = server.tree.get(path)
        if fault:
            return getattr(self, fault.replace(" ", "_"))(content or b"")
        if content is None:
            return self.send(404, b"not found", "text/plain")
        return self.ranged(content)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def ranged(self, content):
        "The file, or the rest of it if it is the version that the client knows."
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        begin = self.headers.get("Range", "") if self.headers.get("If-Range", tag) == tag else ""
        start = int(begin.removeprefix("bytes=").rstrip("-") or 0)
        if start >= len(content) > 0 and begin:
            return self.send(416, b"", "text/plain")
        told = {"ETag": tag} | ({"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if begin else {})
        self.send(206 if begin else 200, content[start:], "application/octet-stream", **told)

    def send(self, status, content, kind, length=None, **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length != -1:
            self.send_header("Content-Length", str(len(content) if length is None else length))
        if length is not None:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def log_message(self, *words):
        pass

    # ---- the faults

    def page(self, status=200, kind="text/html"):
        self.send(status, PAGE, kind)

    def blocked_403(self, content):
        self.page(403)

    def page_200(self, content):
        self.page()

    def page_unlike_one(self, content):
        self.send(200, b"<!-- 16 --><p>Request unsuccessful.", "text/html; charset=utf-8")

    def page_called_image(self, content):
        self.page(200, "image/jpeg")

    def too_many_429(self, content):
        self.send(429, b"slow down", "text/plain", Retry_After="0")

    def gone_410(self, content):
        self.send(410, b'{"message": "retired"}', "application/json")

    def denied_403(self, content):
        self.send(403, XML, "application/xml")

    def error_502(self, content):
        self.send(502, PAGE, "text/html")

    def silent(self, content):
        self.server.done.wait(20)

    def stall(self, content):
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        self.send(200, content[: len(content) // 2], "image/jpeg", len(content), ETag=tag)
        self.server.done.wait(20)

    def drip(self, content):
        self.send(200, b"", "image/jpeg", len(content))
        for k in range(len(content)):
            self.wfile.write(content[k : k + 1])
            if self.server.done.wait(0.08):
                return

    def cut(self, content):
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        self.send(200, content[: len(content) // 2], "image/jpeg", len(content), ETag=tag)

    def cut_and_renewed(self, content):
        self.cut(content)
        self.server.tree[self.path] = self.server.newer

    def cut_unsaid(self, content):
        self.send(200, content[: len(content) // 2], "image/jpeg", -1)

    def length_too_short(self, content):
        self.send(200, content, "image/jpeg", len(content) // 2)

    def length_too_long(self, content):
        self.send(200, content, "image/jpeg", 2 * len(content))

    def hangs_up(self, content):
        self.close_connection = True
        self.connection.close()

    def pointer(self, content):
        self.send(200, POINTER, "text/plain")

    def half_an_image(self, content):
        self.send(200, content[: len(content) // 2], "image/jpeg")

    def other(self, content):
        self.send(200, content[::-1], "application/octet-stream")

    def longer(self, content):
        self.send(200, content + b"1,2,3\n", "application/octet-stream")

    def to_another_host(self, content):
        self.send(302, b"", "text/plain", Location=f"{self.server.elsewhere}{self.path}")

    def to_itself(self, content):
        self.send(302, b"", "text/plain", Location=self.path)

    def moved(self, content):
        self.send(301, b"", "text/plain", Location=f"{self.path}.moved")

    def never_ends(self, content):
        self.send(200, b"", "image/jpeg", -1)
        while not self.server.done.is_set():
            self.wfile.write(b"\0" * (1 << 16))
