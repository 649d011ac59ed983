"""A server in this process, and a client of it."""

import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import topgb
from topgb.api.serving import open_served
from topgb.serving import server
from topgb.serving.served import ServedModel
from topgb.serving.service import Service
from topgb.serving.settings import Settings

NPY = "application/octet-stream"
DEFAULT = Settings()
PATIENCE = 30


@dataclass(frozen=True)
class Reply:
    """An answer: status, headers in lower case, and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        """The sentence of a problem."""
        assert self.headers["content-type"] == "application/problem+json", self
        assert (self.json["status"], self.json["type"]) == (self.status, "about:blank")
        return self.json["detail"]


@dataclass
class Client:
    """Asks a server; each request has a connection of its own."""

    port: int
    service: Service
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {**self.headers, **named})
        answer = connection.getresponse()
        reply = Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        connection.close()
        return reply

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, **headers)

    def predict(self, value: Any, query: str = "", **headers: str) -> Reply:
        """Ask for predictions with a JSON value, an array as `.npy`, or bytes as they are."""
        if isinstance(value, np.ndarray):
            value = npy(value)
        kind = NPY if isinstance(value, bytes) else "application/json"
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.ask("POST", f"/v1/predict{query}", body, **{"content-type": kind, **headers})

    def tag(self, name: str, content: bytes, query: dict[str, str] | None = None, **headers: str) -> Reply:
        """Send a file in a form, with other fields behind it."""
        parts = [f'name="file"; filename="{name}"\r\nContent-Type: {NPY}'.encode() + b"\r\n\r\n" + content]
        parts += [f'name="{key}"\r\n\r\n{value}'.encode() for key, value in (query or {}).items()]
        body = (
            b"".join(b"--edge\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--edge--\r\n"
        )
        return self.ask("POST", "/v1/tag", body, **{"content-type": "multipart/form-data; boundary=edge", **headers})

    def connect(self) -> socket.socket:
        """A connection for bytes as they are."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


class HeldModel:
    """A model that computes once it is let go."""

    def __init__(self, model: Path):
        self._loaded = topgb.load(model).loaded
        self.videos: list[int] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def predict(self, features: np.ndarray, num_frames: np.ndarray) -> np.ndarray:
        # The server's own first call, of one black frame, is let through.
        if features.any():
            self.videos.append(len(features))
            self.begun.set()
            assert self.go.wait(PATIENCE)
        return self._loaded.predict(features, num_frames)

    def served(self) -> ServedModel:
        return ServedModel("m", self._loaded.header, 0, self.predict)


def npy(array: np.ndarray) -> bytes:
    """An array as `numpy.save` writes it."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread or process does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def serving(models: Sequence[Path] | Sequence[ServedModel], settings: Settings = DEFAULT) -> Iterator[Client]:
    """A server of these models on a thread, until the block ends."""
    served = [open_served([model], "cpu")[0] if isinstance(model, Path) else model for model in models]
    service = Service(served, settings)
    listening = server.listen("127.0.0.1", 0)
    port, started = listening.getsockname()[1], threading.Event()
    stops: list[server.Server] = []

    def on_start(running: server.Server) -> None:
        stops.append(running)
        started.set()

    thread = threading.Thread(target=server.run, args=(service, listening, on_start))
    thread.start()
    assert started.wait(30)
    try:
        yield Client(port, service)
    finally:
        stops[0].should_exit = True
        thread.join(60)
        assert not thread.is_alive()
