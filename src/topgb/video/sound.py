"""Sound as mono samples at 16 kHz, second by second, with never more than some seconds in memory."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from topgb.video.clock import Clock
from topgb.video.decoding import Decoding
from topgb.video.opening import pyav

RATE = 16_000
# A second with fewer samples than half of it counts as missing.
LEAST_SAMPLES = RATE // 2
# Time stamps are rounded, and codecs cut into blocks of up to a tenth of a second.
_MOST_DRIFT_SECONDS = 0.1


def seconds_of_sound(decoding: Decoding, clock: Clock, fps: float, most: int) -> Iterator[tuple[int, np.ndarray]]:
    """Numbers k, growing, and the second of sound from k/fps on, float32 [16000] in -1 to 1; k is below `most`.

    Seconds that are missing are left out, except that the first is there if any sound is.
    """
    windows = _Windows(fps, most)
    for start, samples in _mono(decoding, clock):
        yield from windows.put(start, samples)
        if windows.number >= most:
            return
    yield from windows.rest()


def _mono(decoding: Decoding, clock: Clock) -> Iterator[tuple[int, np.ndarray]]:
    """The place of samples, from the clock's zero on, and the samples, float32 [N]."""
    av = pyav()
    resampler: Any = None
    kind: Any = None
    # Where the next samples go, and the time of the next frame if nothing is missing.
    place, expected = 0, 0.0

    def resampled(frame: Any) -> Iterator[tuple[int, np.ndarray]]:
        nonlocal place
        try:
            pieces = resampler.resample(frame)
        except (av.error.FFmpegError, ValueError):
            decoding.damaged += 1
            return
        for piece in pieces:
            samples = piece.to_ndarray().reshape(-1)
            yield place, samples
            place += len(samples)

    for frame, stamp, _ in decoding:
        rate = frame.sample_rate
        if not rate or not frame.samples:
            continue
        duration = frame.samples / rate
        time = clock.seconds(stamp, duration)
        its = (frame.format.name, frame.layout.name, rate)
        if its != kind or abs(time - expected) > _MOST_DRIFT_SECONDS:
            # A resampler takes samples of one format, without gaps.
            if resampler is not None:
                yield from resampled(None)
            resampler, kind = av.AudioResampler(format="fltp", layout="mono", rate=RATE), its
            place, expected = round(time * RATE), time
        # Resamplers compute times from these time stamps too, and some files have none.
        frame.pts = None
        yield from resampled(frame)
        expected += duration
    if resampler is not None:
        yield from resampled(None)


class _Windows:
    """Cuts samples into seconds that begin at k/fps: they overlap above 1 fps, and leave sound out below."""

    def __init__(self, fps: float, most: int):
        self._fps, self._most = fps, most
        self.number = 0
        self._samples, self._there = np.zeros(RATE, np.float32), np.zeros(RATE, bool)

    def put(self, start: int, samples: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        while self.number < self._most:
            begin = self._begin(self.number)
            first = start - begin
            low, high = max(first, 0), min(first + len(samples), RATE)
            if low < high:
                self._samples[low:high] = samples[low - first : high - first]
                self._there[low:high] = True
            if first + len(samples) < RATE:
                return
            yield from self._window()
            self._advance()

    def rest(self) -> Iterator[tuple[int, np.ndarray]]:
        """The windows left at the end of the sound, filled up with zeros."""
        while self.number < self._most and self._there.any():
            yield from self._window()
            self._advance()

    def _window(self) -> Iterator[tuple[int, np.ndarray]]:
        count = np.count_nonzero(self._there)
        if count >= LEAST_SAMPLES or (count and self.number == 0):
            yield self.number, self._samples.copy()

    def _advance(self) -> None:
        shift = self._begin(self.number + 1) - self._begin(self.number)
        self.number += 1
        kept = max(RATE - shift, 0)
        for values in (self._samples, self._there):
            values[:kept] = values[RATE - kept :].copy()
            values[kept:] = 0

    def _begin(self, number: int) -> int:
        return round(number * RATE / self._fps)
