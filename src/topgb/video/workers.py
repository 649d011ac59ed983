"""Processes that extract videos, one for each core: a file that crashes its process costs no other file."""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self

from topgb.errors import TopgbError, printable
from topgb.signals import waiting
from topgb.video.extractors import Extractor

# Libraries read these when they are loaded.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_PIPE_BYTES = 1 << 16


class Answer(NamedTuple):
    """A message about the order of this number: `progress`, `done`, `failed`, or `lost` if the worker ended."""

    number: int
    what: str
    value: Any


class Workers:
    """A block with `count` processes for one extractor.

    Raises `TopgbError` if one cannot start.
    """

    def __init__(self, extractor: Extractor, count: int):
        self._extractor, self._count = extractor, count
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._selector.close()
        for worker in self._workers:
            worker.end()

    def run(self, orders: Sequence[dict[str, Any]]) -> Iterator[Answer]:
        """Work through the orders, first ones first; yields answers as they come, several for each order."""
        left = deque(enumerate(orders))
        while len(self._workers) < min(self._count, len(left)):
            self._hire()
        for worker in self._workers:
            self._next(worker, left)
        while any(worker.number is not None for worker in self._workers):
            for key, _ in self._selector.select():
                worker = key.data
                for what, value in worker.hear():
                    if what == "ready":
                        self._check(value)
                        continue
                    number = worker.number
                    if what == "lost":
                        self._selector.unregister(worker.output)
                        self._workers.remove(worker)
                        worker.end()
                        if number is None or not worker.ready:
                            raise TopgbError(f"a process that extracts videos has ended: {value}")
                        yield Answer(number, what, value)
                        if left:
                            self._next(self._hire(), left)
                        break
                    if not worker.ready or number is None:
                        raise TopgbError(f"a process that extracts videos cannot begin: {value['message']}")
                    if what != "progress":
                        self._next(worker, left)
                    yield Answer(number, what, value)

    def _hire(self) -> "_Worker":
        worker = _Worker(self._extractor)
        self._workers.append(worker)
        self._selector.register(worker.output, selectors.EVENT_READ, worker)
        return worker

    def _next(self, worker: "_Worker", left: "deque[tuple[int, dict[str, Any]]]") -> None:
        worker.number = None
        if left:
            worker.number, order = left.popleft()
            worker.tell(order)

    def _check(self, digest: str) -> None:
        if digest != self._extractor.digest:
            raise TopgbError("a process that extracts videos has another extractor: a package was changed meanwhile")


class _Worker:
    """One process. `number` is that of the order it works on; `ready` tells whether it has its extractor."""

    def __init__(self, extractor: Extractor):
        self.number: int | None = None
        self.ready = False
        self._heard = b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - `end` closes it
        paths = os.pathsep.join(path for path in sys.path if path)
        environment = {**os.environ, **dict.fromkeys(_ONE_THREAD, "1"), "PYTHONPATH": paths}
        # Ctrl-C is meant for the process that this one works for.
        with waiting([signal.SIGINT]):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "topgb.video.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment,
            )
        assert self._process.stdout is not None
        self.output = self._process.stdout.fileno()
        self.tell({"extractor": extractor.name, "fps": extractor.fps})

    def tell(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        # If the worker has ended, `hear` says so.
        with suppress(OSError):
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    def hear(self) -> Iterator[tuple[str, Any]]:
        """The answers that have come; `lost` with the reason at the end of the process."""
        data = os.read(self.output, _PIPE_BYTES)
        if not data:
            yield "lost", self._ending()
            return
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            ((what, value),) = json.loads(line).items()
            self.ready |= what == "ready"
            yield what, value

    def _ending(self) -> str:
        code = self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            return f"{name} ended the process" + (", as when memory runs short" if code == -signal.SIGKILL else "")
        self._errors.seek(0)
        lines = self._errors.read()[-_PIPE_BYTES:].decode(errors="replace").strip().splitlines()
        return printable(lines[-1][:200]) if lines else f"exit code {code}"

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
