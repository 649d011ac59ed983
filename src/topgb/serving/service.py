"""The work behind the API, without HTTP: models by name, and their answers."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from topgb.modelfile.given_arrays import Videos, to_stored
from topgb.serving.answers import best_of
from topgb.serving.batching import Answer, Batcher, FullError
from topgb.serving.bodies import Asked, Choice
from topgb.serving.extracting import Extracting
from topgb.serving.measures import Measures
from topgb.serving.problems import RETRY, ProblemError
from topgb.serving.served import ServedModel
from topgb.serving.settings import Settings

Value = TypeVar("Value")
# Waits for a future, but not longer than the client stays connected.
Await = Callable[["Future[Any]"], Any]
# Threads that turn bodies into arrays; more would take time from the thread that talks to clients.
_THREADS = 2


@dataclass(frozen=True)
class Answered:
    """An answer's JSON values, and the seconds of each of its steps by name."""

    value: dict[str, Any]
    timing: dict[str, float]


class Service:
    """Models, the threads that work with them, and the process that makes features."""

    def __init__(self, models: Sequence[ServedModel], settings: Settings):
        self.models = {model.name: model for model in models}
        self.settings, self.measures = settings, Measures()
        self.batcher = Batcher(settings.window, settings.batch, settings.queue, self.measures.observe_call)
        self._threads = ThreadPoolExecutor(_THREADS, "topgb bodies")
        self.extracting = Extracting(settings.work_seconds)
        self._working = 0
        self.measures.watch_queue(lambda: self.batcher.waiting)
        self._warm_up()

    def _warm_up(self) -> None:
        """Call each model once in the thread that will call it: the first call is slow, so no client should wait."""
        for model in self.models.values():
            spec = model.header.features
            blank = np.zeros((1, spec.width), np.uint8 if spec.all_bytes else np.float32)
            self.batcher.submit(model, [blank]).result()

    def close(self) -> None:
        """Answer what waits, and end the threads and the process."""
        self.extracting.stop()
        self.batcher.close()
        self._threads.shutdown()

    def model(self, choice: Choice) -> ServedModel:
        """The model that a request names, or the first. Raises `ProblemError` 404."""
        if choice.model is None:
            return next(iter(self.models.values()))
        try:
            return self.models[choice.model]
        except KeyError:
            names = ", ".join(self.models)
            raise ProblemError(404, f"there is no model {choice.model[:80]!r} here; ask for {names}") from None

    async def in_thread(self, work: Callable[[], Value]) -> Value:
        """The result of `work`, computed in another thread."""
        # With this context, messages are worded in that thread as here.
        context = copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: context.run(work))

    def submit(self, model: ServedModel, stored: list[np.ndarray]) -> "Future[Answer]":
        """The answer to come for stored videos. Raises `ProblemError` 429."""
        try:
            return self.batcher.submit(model, stored)
        except FullError as full:
            raise ProblemError(429, str(full), {"retry-after": str(full.retry_after)}) from None

    async def predict(self, asked: Asked, wait: Await) -> Answered:
        """The best classes of each video; `wait` waits for an answer. Raises `ProblemError` and `InputError`."""
        model = self.model(asked.choice)
        # Find a wrong threshold before anything is computed.
        best_of(model.header, np.zeros((0, model.header.classes), np.float32), None, asked.choice.threshold)
        given = await self._stored(model, asked.videos)
        answer: Answer = await wait(self.submit(model, list(given.stored)))
        tags = best_of(model.header, answer.probabilities, asked.choice.top, asked.choice.threshold)
        value = {"model": model.name, "predictions": tags}
        notes = given.notes(model.header.features, model.header.max_frames)
        if notes:
            value["warnings"] = notes
        return Answered(value, {"model": answer.seconds, "wait": answer.waited})

    @contextmanager
    def working(self) -> Iterator[None]:
        """A block that works on a file. Raises `ProblemError` 429 if too many files are being worked on."""
        if self._working >= self.settings.uploads:
            raise ProblemError(429, "the server works on as many files as it can; ask again in a while", RETRY)
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1

    async def _stored(self, model: ServedModel, videos: Any) -> Videos:
        spec, most = model.header.features, model.header.max_frames
        if isinstance(videos, np.ndarray) and videos.dtype == np.uint8:
            # Copying bytes takes less time than starting a thread.
            return to_stored(videos, spec, most)
        return await self.in_thread(lambda: to_stored(videos, spec, most))
