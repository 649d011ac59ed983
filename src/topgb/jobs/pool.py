"""Run pieces of work on a Ray cluster: one worker per CPU or GPU, one piece at a time per worker."""

import os
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic

from topgb.errors import TopgbError, option, wording
from topgb.jobs.cluster import connected, in_one_line
from topgb.jobs.engine import Engine, Piece, Result, Take, Work
from topgb.jobs.worker import Terms, Worker
from topgb.matmul_library import in_use
from topgb.progress import Progress
from topgb.version import __version__

# How many workers may fail at one piece; and how many, per CPU or GPU, may fail to start.
TRIES = 3
# Seconds between looks for new nodes; and seconds without any worker until the user hears of it.
_LOOK_SECONDS, _PATIENCE_SECONDS = 2.0, 20.0


def dispatch_on_cluster(
    work: Work[Result],
    pieces: Sequence[Piece],
    take: Take[Result],
    engine: Engine,
    progress: Progress,
    shared: Sequence[str],
) -> None:
    """`dispatch` on the Ray cluster of `engine`."""
    ray = connected(engine.address)
    matmul = None if engine.gpus else in_use()
    terms = Terms(__version__, os.getcwd(), tuple(shared), wording(), matmul)
    pool = _Pool[Result](ray, work, pieces, engine, progress, terms)
    try:
        while pool.left:
            pool.hire()
            pool.hand_out()
            for piece, result in pool.finished():
                take(piece.number, result)
                progress.advance(piece.size)
    finally:
        pool.close()


@dataclass(eq=False)
class _RemoteWorker:
    """A worker, started or requested: the node on which it started, and its piece, if it has one."""

    actor: Any
    node: str | None = None
    piece: Piece | None = None


class _Pool(Generic[Result]):
    """The workers, the pieces that they work on, and the pieces that wait."""

    def __init__(
        self, ray: Any, work: Work[Result], pieces: Sequence[Piece], engine: Engine, progress: Progress, terms: Terms
    ):
        self._ray, self._engine, self._progress, self._terms = ray, engine, progress, terms
        self.left = len(pieces)
        self._waiting = deque(pieces)
        # cloudpickle pickles by value what a notebook or a test defines.
        self._work = ray.put(ray.cloudpickle.dumps(work))
        self._actor = ray.remote(Worker)
        self._workers: set[_RemoteWorker] = set()
        self._calls: dict[Any, _RemoteWorker] = {}
        self._idle: list[_RemoteWorker] = []
        self._failures: Counter[int] = Counter()
        self._failed_starts, self._reason = 0, ""
        self._next_look = 0.0
        self._say_waiting_at: float | None = time.monotonic() + _PATIENCE_SECONDS

    def hire(self) -> None:
        """Request the workers that are missing: one per CPU or GPU, but no more than there are pieces left."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_SECONDS
        places = int(self._ray.cluster_resources().get("GPU" if self._engine.gpus else "CPU", 0))
        if self._failed_starts >= TRIES * max(1, places):
            if not self._workers:
                raise TopgbError(f"no worker could start on the Ray cluster; the last one: {self._reason}{_advice()}")
            return
        for _ in range(min(places, self.left) - len(self._workers)):
            needs = {"num_cpus": 1, "num_gpus": int(self._engine.gpus), "scheduling_strategy": "SPREAD"}
            worker = _RemoteWorker(self._actor.options(**needs).remote())
            self._workers.add(worker)
            self._calls[worker.actor.open.remote(self._work, self._terms, 1)] = worker

    def hand_out(self) -> None:
        """Give a piece to every idle worker."""
        while self._waiting and self._idle:
            worker, piece = self._idle.pop(), self._waiting.popleft()
            worker.piece = piece
            self._calls[worker.actor.run.remote(piece.number)] = worker

    def finished(self) -> list[tuple[Piece, Result]]:
        """Pieces that finished since the last call, with their results; waits for one, but not for long."""
        self._say_waiting()
        if not self._calls:
            time.sleep(_LOOK_SECONDS)
            return []
        ready, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=_LOOK_SECONDS)
        found = []
        for call in ready:
            worker = self._calls.pop(call)
            try:
                answer = self._ray.get(call)
            except self._ray.exceptions.RayError as error:
                self._drop(worker, error)
                continue
            if isinstance(answer, TopgbError):
                raise answer
            if worker.piece is None:
                worker.node = answer
            else:
                found.append((worker.piece, answer))
                worker.piece = None
                self.left -= 1
            self._idle.append(worker)
        return found

    def close(self) -> None:
        """End every worker."""
        for worker in self._workers:
            # The cluster itself may be gone.
            with suppress(Exception):
                self._ray.kill(worker.actor)

    def _drop(self, worker: _RemoteWorker, error: Exception) -> None:
        """Drop a worker that is gone, out of reach or failed in an unforeseen way; its piece waits again."""
        self._workers.remove(worker)
        # A worker that is out of reach may live on, and a GPU that failed once may fail again.
        with suppress(Exception):
            self._ray.kill(worker.actor)
        self._next_look = 0.0
        self._reason = _failure_reason(self._ray, error)
        piece = worker.piece
        if piece is None:
            self._failed_starts += 1
            return
        self._failures[piece.number] += 1
        if self._failures[piece.number] == TRIES:
            reason = f"{TRIES} workers failed at {piece.name}, so it is given up; the last one: {self._reason}"
            raise TopgbError(reason + _advice())
        self._progress.say(
            f"{piece.name}: a worker on node {worker.node} failed ({self._reason}); another one takes it"
        )
        self._waiting.appendleft(piece)

    def _say_waiting(self) -> None:
        """Say once that no worker could start yet, if that takes long."""
        if self._say_waiting_at is None:
            return
        if any(worker.node for worker in self._workers):
            self._say_waiting_at = None
        elif time.monotonic() > self._say_waiting_at:
            self._say_waiting_at = None
            self._progress.say(f"waiting for a free {'GPU' if self._engine.gpus else 'CPU'} on the Ray cluster")


def _advice() -> str:
    in_this_process = option("engine", "local")
    return f"; if memory ran out, start the nodes with a smaller --num-cpus, else see what {in_this_process} says"


def _failure_reason(ray: Any, error: Exception) -> str:
    """Why a worker failed, in one line."""
    if isinstance(error, ray.exceptions.RayTaskError):
        return f"{type(error.cause).__name__}: {in_one_line(error.cause)}"
    # Ray's own words are a page long.
    if isinstance(error, ray.exceptions.ActorUnavailableError):
        return "its node is out of reach"
    return "its process died" if isinstance(error, ray.exceptions.RayActorError) else in_one_line(error)
