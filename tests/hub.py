"""A hub on this machine that answers as it is told: well, slowly, partly, or with an error."""

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "a" * 40


class Hub:
    """Serves one repository, ``tiny/model``, from a folder. `manner`: ``well``, ``cut`` (half of a weight file, every
    time), ``flipped`` (the size is right, a byte is not), ``stuck`` (half, and then nothing), ``silent`` (nothing at
    all), or a status."""

    def __init__(self, folder):
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.manner, self.asked = "well", []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hub.answer(self, body=True)

            def do_HEAD(self):
                hub.answer(self, body=False)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request, body):
        path = request.path.partition("?")[0]
        self.asked.append((request.command, path, dict(request.headers)))
        if self.manner == "silent":
            time.sleep(5)
            request.close_connection = True
        elif isinstance(self.manner, int):
            self._send(request, b"{}", {}, body, status=self.manner)
        elif path.startswith("/api/models/tiny/model/tree/"):
            listed = [{"type": "file", "path": name, **self._kept(name)} for name in sorted(self.files)]
            self._send(request, json.dumps(listed).encode(), {"Content-Type": "application/json"}, body)
        elif path.startswith("/api/models/tiny/model"):
            siblings = [{"rfilename": name} for name in sorted(self.files)]
            said = {"id": "tiny/model", "modelId": "tiny/model", "sha": COMMIT, "siblings": siblings, "private": False}
            self._send(request, json.dumps(said).encode(), {"Content-Type": "application/json"}, body)
        else:
            self._file(request, path.rpartition("/")[2], body)

    def _kept(self, name):
        content = self.files[name]
        kept = {"oid": hashlib.sha1(content).hexdigest(), "size": len(content)}
        if name.endswith(".safetensors"):
            kept["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 100}
        return kept

    def _file(self, request, name, body):
        if name not in self.files:
            return self._send(request, b"", {"X-Error-Code": "EntryNotFound"}, body, status=404)
        content, weights = self.files[name], name.endswith(".safetensors")
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        if weights:
            headers |= {"X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
        at, status = 0, 200
        if (asked := request.headers.get("Range")) and body:
            at, status = int(asked.removeprefix("bytes=").partition("-")[0]), 206
            headers["Content-Range"] = f"bytes {at}-{len(content) - 1}/{len(content)}"
        send, manner = content[at:], self.manner if weights and body else "well"
        if manner == "flipped":
            send = send[:-1] + bytes([send[-1] ^ 1])
        if manner in ("cut", "stuck"):
            self._send(request, send, headers, body, status, upto=max(0, len(content) // 2 - at))
            time.sleep(5 if manner == "stuck" else 0)
            request.close_connection = True
            return None
        return self._send(request, send, headers, body, status)

    def _send(self, request, content, headers, body, status=200, upto=None):
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            request.send_header(name, value)
        request.end_headers()
        if body:
            request.wfile.write(content[:upto])
            request.wfile.flush()
