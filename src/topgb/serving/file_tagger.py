"""The work behind `/v1/tag`: turn a file into features, and features and stretches of them into tags."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path

import numpy as np
from starlette.requests import ClientDisconnect

from topgb.modelfile import Header
from topgb.modelfile.best import least_probabilities
from topgb.serving.batching import Answer
from topgb.serving.bodies import TagChoice
from topgb.serving.problems import ProblemError
from topgb.serving.served import ServedModel
from topgb.serving.service import Answered, Await, Service
from topgb.serving.sources import ExtractedFile, SentVideo, frames_per_second, is_video, read_source
from topgb.serving.tagged import check_count, stretches_of, tagged_json, window_frames

# Stretches that are computed in one call, before other requests have their turn.
_TOGETHER = 64
# Seconds that a file with finished features waits for room in the queue.
_PATIENCE = 60.0


class FileTagger:
    """Tags files with a service's models; videos one after another, in a process that can be ended."""

    def __init__(self, service: Service):
        self._service = service
        self._videos = ThreadPoolExecutor(1, "topgb videos")

    def close(self) -> None:
        """End the thread that waits for features."""
        self._service.extracting.stop()
        self._videos.shutdown()

    async def tag(self, path: Path, name: str, choice: TagChoice, wait: Await) -> Answered:
        """Tags of the videos in a file that its client calls `name`; `wait` waits for a future while there is a client.

        Raises `ProblemError`, `InputError` and `TopgbError`.
        """
        model = self._service.model(choice)
        header = model.header
        least = least_probabilities(header, choice.threshold)
        window_frames(header, choice.timeline, frames_per_second(header))
        began = time.monotonic()
        sources = await self._sources(path, name, model, choice.timeline, wait)
        timing = {"features": time.monotonic() - began, "model": 0.0}
        stretches = [
            stretches_of(header, source, window_frames(header, choice.timeline, source.fps)) for source in sources
        ]
        check_count(sum(map(len, stretches)))
        tagged = []
        for source, parts in zip(sources, stretches, strict=True):
            videos = [source.stored[part.first : part.end] for part in parts]
            rows = []
            for first in range(0, len(videos), _TOGETHER):
                answer = await self._scored(model, videos[first : first + _TOGETHER], wait)
                rows.append(answer.probabilities)
                timing["model"] += answer.seconds
            tagged.append(tagged_json(header, source, parts, np.concatenate(rows), (choice.top, least)))
        return Answered({"model": model.name, "videos": tagged}, timing)

    async def _sources(
        self, path: Path, name: str, model: ServedModel, timeline: float | None, wait: Await
    ) -> list[SentVideo]:
        seconds = self._service.settings.video_seconds
        if not is_video(name):
            return await self._service.in_thread(lambda: read_source(path, name, model.header, seconds))
        if timeline is None:
            # One frame more than the model looks at, to know that there is more.
            seconds = min(seconds, (model.header.max_frames + 1) / frames_per_second(model.header))
        job = self._videos.submit(
            copy_context().run, lambda: read_source(path, name, model.header, seconds, self._extract)
        )
        try:
            return await wait(job)
        except (ClientDisconnect, asyncio.CancelledError):
            if not job.cancel():
                # Nobody waits for this file any more, but others wait for their turn.
                self._service.extracting.stop()
            raise

    def _extract(self, path: Path, header: Header, seconds: float) -> ExtractedFile:
        from topgb.tagging.needed_extractor import needed_extractor

        out = path.with_name("features.npz")
        made = self._service.extracting.extract(path, out, needed_extractor(header).identity, seconds)
        return ExtractedFile(out, made["fps"], made["remarks"])

    async def _scored(self, model: ServedModel, videos: list[np.ndarray], wait: Await) -> Answer:
        """Probabilities of stretches of a video, which wait for room where a new request would be refused."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                future = self._service.submit(model, videos)
            except ProblemError:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.05)
            else:
                return await wait(future)
