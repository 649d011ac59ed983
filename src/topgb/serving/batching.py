"""Requests that wait are computed together: one call of a model at a time, for as many videos as are ready."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from topgb.errors import InputError, TopgbError, worded
from topgb.modelfile.given_arrays import padded
from topgb.serving.served import ServedModel
from topgb.serving.wording import in_requests

# Called after each call of a model: its name, videos, seconds.
Observe = Callable[[str, int, float], None]
_LONGEST_RETRY = 30


class FullError(TopgbError):
    """The queue of videos is full; `retry_after` is in how many whole seconds there should be room."""

    def __init__(self, retry_after: int):
        super().__init__("as many videos wait as the server holds; ask again in a little while")
        self.retry_after = retry_after


@dataclass(frozen=True)
class Answer:
    """Probabilities float32 [B, V], seconds of the call of the model that they come from, and seconds waited before."""

    probabilities: np.ndarray
    seconds: float
    waited: float


@dataclass(eq=False)
class _Request:
    model: ServedModel
    videos: Sequence[np.ndarray]
    answer: "Future[Answer]" = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """A thread that answers requests in the order in which they came, those for one model together.

    `window` is how many seconds the first of a batch waits for others, and may be changed; `most` is how many videos
    one call takes, `queue` how many may wait.
    """

    def __init__(self, window: float, most: int, queue: int, observe: Observe = lambda name, videos, seconds: None):
        self.window, self._most, self._queue, self._observe = window, most, queue, observe
        self._requests: deque[_Request] = deque()
        self._waiting = 0
        self._ending = False
        self._seconds_per_video = 0.0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="topgb batches", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many videos wait."""
        return self._waiting

    def submit(self, model: ServedModel, videos: Sequence[np.ndarray]) -> "Future[Answer]":
        """The answer to come for stored videos, each [T, D], of which there is at least one.

        More videos than one call takes are computed in several calls. Raises `FullError`. Once the future is cancelled,
        the request is computed no more.
        """
        with self._changed:
            if self._waiting + len(videos) > self._queue and self._waiting:
                raise FullError(min(_LONGEST_RETRY, 1 + math.ceil(self._waiting * self._seconds_per_video)))
            request = _Request(model, videos)
            self._requests.append(request)
            self._waiting += len(videos)
            # While a batch fills, the thread sleeps: each time it woke, it would take time from those who answer.
            if len(self._requests) == 1 or self._ready(model) >= self._most:
                self._changed.notify()
        return request.answer

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        with worded(in_requests):
            while batch := self._next():
                self._answer(batch)

    def _next(self) -> list[_Request]:
        """The requests to answer next, once the first has waited for its window; none if the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._requests or self._ending)
            if not self._requests:
                return []
            first = self._requests[0]
            until = first.since + self.window
            while not self._ending and self._ready(first.model) < self._most:
                left = until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            return self._taken(first.model)

    def _ready(self, model: ServedModel) -> int:
        return sum(len(request.videos) for request in self._requests if request.model is model)

    def _taken(self, model: ServedModel) -> list[_Request]:
        """The oldest requests for a model, with as many videos as one call takes, or with one request at least."""
        taken: list[_Request] = []
        videos = 0
        for request in [request for request in self._requests if request.model is model]:
            if taken and videos + len(request.videos) > self._most:
                break
            taken.append(request)
            videos += len(request.videos)
            self._requests.remove(request)
        self._waiting -= videos
        return taken

    def _answer(self, batch: list[_Request]) -> None:
        wanted = [request for request in batch if request.answer.set_running_or_notify_cancel()]
        if not wanted:
            return
        try:
            self._compute(wanted)
        except Exception as error:
            if len(wanted) == 1:
                wanted[0].answer.set_exception(error)
                return
            # Compute each request alone, so that only the faulty one fails.
            for request in wanted:
                try:
                    self._compute([request])
                except Exception as own:
                    request.answer.set_exception(own)

    def _compute(self, requests: list[_Request]) -> None:
        model = requests[0].model
        videos = [video for request in requests for video in request.videos]
        began = time.monotonic()
        parts = [
            model.predict(*padded(videos[first : first + self._most])) for first in range(0, len(videos), self._most)
        ]
        seconds = time.monotonic() - began
        probabilities = np.concatenate(parts)
        if not np.isfinite(probabilities).all():
            raise InputError("the model gives no finite probabilities for these features; check their values")
        self._seconds_per_video = seconds / len(videos)
        self._observe(model.name, len(videos), seconds)
        first = 0
        for request in requests:
            rows = probabilities[first : first + len(request.videos)]
            request.answer.set_result(Answer(rows, seconds, began - request.since))
            first += len(request.videos)
