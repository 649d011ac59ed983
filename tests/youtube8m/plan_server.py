"""A local server of YouTube-8M's kind: a plan, files, and everything that goes wrong on the way to a user."""

import hashlib
import json
import re
import socket
import struct
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from topgb.youtube8m.download import Download, DownloadOptions, download
from topgb.youtube8m.http import Patience

QUICK = Patience(tries=3, wait=0.001, timeout=5.0)
PARTITION = "2/frame/train"
PLAN = "/plans/2/download_plans/frame_train.json"


class PlanServer:
    """Serves `files` at `mirror`/2/frame/train/NAME and their plan below `plans`.

    `faults` are what happens to the next requests for a name (or for the plan, `PLAN`), one a request: a status code,
    or `drop` (reset in mid-body), `short` (closed before Content-Length), `wrong` (other bytes), `stall` (silence in
    mid-body until `close`), `whole` (no length, no ranges), `chunked`, `cut chunk`, `shifted` (another range), `empty`.
    `always` is the fault of every request beyond. `ranges` says whether ranges are known. `requests` are the (name,
    Range header) that came.
    """

    def __init__(self, files: dict[str, bytes], ranges: bool = True):
        self.files, self.ranges = files, ranges
        self.plan: bytes | None = None
        self.faults: dict[str, list[str | int]] = defaultdict(list)
        self.always: dict[str, str | int] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        address = f"http://127.0.0.1:{self._server.server_port}"
        self.mirror, self.plans = f"{address}/mirror", f"{address}/plans"

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def plan_bytes(self) -> bytes:
        sums = {name: hashlib.md5(content).hexdigest() for name, content in self.files.items()}
        return json.dumps({"files": sums}).encode() if self.plan is None else self.plan

    def ranges_asked(self, name: str) -> list[str | None]:
        return [asked for requested, asked in self.requests if requested == name]


def download_from(server: PlanServer, folder: Path, **options: Any) -> Download:
    """`download` from the server, with little patience."""
    given = {"patience": QUICK, "mirror": server.mirror, "plans": server.plans}
    given |= {key: options.pop(key) for key in ("patience", "jobs") if key in options}
    return download(folder, PARTITION, options=DownloadOptions(**given), **options)


class _Server(ThreadingHTTPServer):
    # A full queue would let a connection wait for a second.
    request_queue_size = 64

    def handle_error(self, *_) -> None:
        # Clients that are killed break their connections; nobody wants to read of it.
        pass


class _Handler(BaseHTTPRequestHandler):
    owner: PlanServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        owner = self.owner
        name = self.path.removeprefix(f"/mirror/{PARTITION}/")
        asked = self.headers["Range"]
        owner.requests.append((name, asked))
        fault = owner.faults[name].pop(0) if owner.faults[name] else owner.always.get(name)
        content = owner.plan_bytes() if self.path == PLAN else owner.files.get(name)
        if content is None:
            fault = 404
        if isinstance(fault, int):
            self._head(fault, {"Content-Length": "0"})
            return
        assert content is not None
        if fault == "wrong":
            content = bytes(byte ^ 1 for byte in content)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and owner.ranges and fault != "whole" else 0
        if start and start >= len(content):
            self._head(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
            return
        body = content[start:]
        headers = {"Content-Length": str(len(body))}
        if start:
            said = start - 1 if fault == "shifted" else start
            headers["Content-Range"] = f"bytes {said}-{len(content) - 1}/{len(content)}"
        if fault in ("whole", "chunked", "cut chunk"):
            del headers["Content-Length"]
            headers |= {} if fault == "whole" else {"Transfer-Encoding": "chunked"}
        self._head(206 if start else 200, headers)
        self._send(body, fault)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def _send(self, body: bytes, fault: str | None) -> None:
        half = len(body) // 2
        self.close_connection = fault is not None
        if fault == "empty":
            return
        if fault in ("chunked", "cut chunk"):
            self.wfile.write(b"%x\r\n" % len(body) + body[: half if fault == "cut chunk" else None])
            self.wfile.write(b"" if fault == "cut chunk" else b"\r\n0\r\n\r\n")
        elif fault in ("drop", "short", "stall"):
            self.wfile.write(body[:half])
            if fault == "stall":
                self.owner.closing.wait()
            if fault == "drop":
                # Closing with lingering off sends a reset instead of an end.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.wfile.close = lambda: None
        else:
            self.wfile.write(body)
