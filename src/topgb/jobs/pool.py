"""Pieces of work on a Ray cluster: a worker for each of its CPUs or GPUs, and one piece at a time for each worker."""

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
from topgb.progress import Progress
from topgb.version import __version__

# How many workers may fail at a piece, and, for each CPU or GPU, how many may fail to start.
TRIES = 3
# How often to look for nodes that came, and how long none may start before the user is told.
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
    terms = Terms(__version__, os.getcwd(), tuple(shared), wording())
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
class _Hand:
    """A worker, from when it is asked for: the node it started on, and the piece it has."""

    actor: Any
    node: str | None = None
    piece: Piece | None = None


class _Pool(Generic[Result]):
    """The workers, what each is doing, and what is still to do."""

    def __init__(
        self, ray: Any, work: Work[Result], pieces: Sequence[Piece], engine: Engine, progress: Progress, terms: Terms
    ):
        self._ray, self._engine, self._progress, self._terms = ray, engine, progress, terms
        self.left = len(pieces)
        self._waiting = deque(pieces)
        # Pickled by value where a notebook or a test defines it.
        self._work = ray.put(ray.cloudpickle.dumps(work))
        self._actor = ray.remote(Worker)
        self._hands: set[_Hand] = set()
        self._calls: dict[Any, _Hand] = {}
        self._idle: list[_Hand] = []
        self._failures: Counter[int] = Counter()
        self._failed_starts, self._reason = 0, ""
        self._look_at = 0.0
        self._tell_at: float | None = time.monotonic() + _PATIENCE_SECONDS

    def hire(self) -> None:
        """Ask for a worker for each CPU or GPU that could be of use and has none, as nodes join and workers die."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_SECONDS
        places = int(self._ray.cluster_resources().get("GPU" if self._engine.gpus else "CPU", 0))
        if self._failed_starts >= TRIES * max(1, places):
            if not self._hands:
                raise TopgbError(f"no worker could start on the Ray cluster; the last one: {self._reason}{_advice()}")
            return
        for _ in range(min(places, self.left) - len(self._hands)):
            needs = {"num_cpus": 1, "num_gpus": int(self._engine.gpus), "scheduling_strategy": "SPREAD"}
            hand = _Hand(self._actor.options(**needs).remote())
            self._hands.add(hand)
            self._calls[hand.actor.open.remote(self._work, self._terms, 1)] = hand

    def hand_out(self) -> None:
        """Give a piece to every worker that has none."""
        while self._waiting and self._idle:
            hand, piece = self._idle.pop(), self._waiting.popleft()
            hand.piece = piece
            self._calls[hand.actor.run.remote(piece.number)] = hand

    def finished(self) -> list[tuple[Piece, Result]]:
        """Pieces that were finished since the last call; waits for one, but not for long."""
        self._tell_of_waiting()
        if not self._calls:
            time.sleep(_LOOK_SECONDS)
            return []
        ready, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=_LOOK_SECONDS)
        found = []
        for call in ready:
            hand = self._calls.pop(call)
            try:
                answer = self._ray.get(call)
            except self._ray.exceptions.RayError as error:
                self._give_up(hand, error)
                continue
            if isinstance(answer, TopgbError):
                raise answer
            if hand.piece is None:
                hand.node = answer
            else:
                found.append((hand.piece, answer))
                hand.piece = None
                self.left -= 1
            self._idle.append(hand)
        return found

    def close(self) -> None:
        """End every worker."""
        for hand in self._hands:
            # The cluster itself may be gone.
            with suppress(Exception):
                self._ray.kill(hand.actor)

    def _give_up(self, hand: _Hand, error: Exception) -> None:
        """Do without a worker that is gone, out of reach or failed in an unforeseen way, and give its piece back."""
        self._hands.remove(hand)
        # One that is out of reach may live on, and one whose GPU failed once may fail again.
        with suppress(Exception):
            self._ray.kill(hand.actor)
        self._look_at = 0.0
        self._reason = _told(self._ray, error)
        piece = hand.piece
        if piece is None:
            self._failed_starts += 1
            return
        self._failures[piece.number] += 1
        if self._failures[piece.number] == TRIES:
            told = f"{TRIES} workers failed at {piece.name}, so it is given up; the last one: {self._reason}"
            raise TopgbError(told + _advice())
        self._progress.say(f"{piece.name}: a worker on node {hand.node} failed ({self._reason}); another one takes it")
        self._waiting.appendleft(piece)

    def _tell_of_waiting(self) -> None:
        if self._tell_at is None:
            return
        if any(hand.node for hand in self._hands):
            self._tell_at = None
        elif time.monotonic() > self._tell_at:
            self._tell_at = None
            self._progress.say(f"waiting for a free {'GPU' if self._engine.gpus else 'CPU'} on the Ray cluster")


def _advice() -> str:
    in_this_process = option("kind", "local")
    return f"; if memory ran out, start the nodes with a smaller --num-cpus, else see what {in_this_process} says"


def _told(ray: Any, error: Exception) -> str:
    """Why a worker failed, in a line."""
    if isinstance(error, ray.exceptions.RayTaskError):
        return f"{type(error.cause).__name__}: {in_one_line(error.cause)}"
    # Ray's own words are a page long.
    if isinstance(error, ray.exceptions.ActorUnavailableError):
        return "its node is out of reach"
    return "its process died" if isinstance(error, ray.exceptions.RayActorError) else in_one_line(error)
