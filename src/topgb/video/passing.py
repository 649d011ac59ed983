"""Pass over frames at which nobody looks and to which no other refers: about half of a usual H.264 video.

H.264 marks the pictures to which no other refers, and FFmpeg's decoder leaves these out where it is told to. All other
pictures come out as they would anyhow, bit by bit. That a frame is not needed shows from the time stamps of the packets
around it, before it is decoded. Anything unexpected raises `PassedOverError`: then the video has to be decoded whole.
"""

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

# Decoders that leave out exactly the frames to which no other refers.
_CODECS = ("h264",)
# Packets that are read ahead. H.264 shows no frame more than 16 frames later than it is decoded.
_AHEAD = 32

# Whether the frame that is shown from one time stamp to another is looked at, in seconds on the stream's clock.
Needed = Callable[[float, float], bool]


class PassedOverError(Exception):
    """A frame may have been passed over that is needed, or that is damaged."""


class Passing:
    """Which frames of a stream are passed over; those that are take their place among the others without a picture.

    stream  a stream of pictures
    needed  whether a frame is looked at
    """

    def __init__(self, stream: Any, needed: Needed):
        self._context, self._needed = stream.codec_context, needed
        self._on = stream.codec_context.name in _CODECS
        # Time stamps of the packets around the one that is decoded, sorted, and in the order of the packets.
        self._sorted: list[int] = []
        self._around: deque[int] = deque()
        # Packets that were left out if no other frame refers to theirs; by time stamp, the durations.
        self._open: dict[int, int] = {}
        self._base: Any = None
        self._last: int | None = None
        self._skips = False
        self.passed = 0

    def read_ahead(self, packets: Iterator[Any]) -> Iterator[Any]:
        """The same packets, later."""
        waiting: deque[Any] = deque()
        for packet in packets:
            if not self._on and not waiting:
                yield packet
                continue
            waiting.append(packet)
            if packet is not None and packet.pts is not None:
                insort(self._sorted, packet.pts)
                self._around.append(packet.pts)
                if len(self._around) > 2 * _AHEAD:
                    self._sorted.remove(self._around.popleft())
            while waiting and (not self._on or len(waiting) > _AHEAD):
                yield waiting.popleft()
        yield from waiting

    def decide(self, packet: Any) -> None:
        """Tell the decoder whether it may leave out the frame of this packet (None: the end), which comes next."""
        skip = self._on and packet is not None and self._may_pass(packet)
        if skip:
            self._open[packet.pts] = packet.duration or 0
        if skip != self._skips:
            self._context.skip_frame = "NONREF" if skip else "DEFAULT"
            self._skips = skip

    def _may_pass(self, packet: Any) -> bool:
        pts, base = packet.pts, packet.time_base
        # Before the first frame nothing is known of the grid, and some frames are never shown.
        if self._last is None or pts is None or not base or pts <= self._last or packet.is_keyframe:
            return False
        if packet.is_discard or pts in self._open or (self._base or base) != base:
            return False
        self._base = base
        place = bisect_right(self._sorted, pts)
        if place == len(self._sorted):
            return False
        return not self._needed(float(pts * base), float(self._sorted[place] * base))

    def before(self, frame: Any) -> Iterator[tuple[float, int]]:
        """The frames that were passed over and are shown before `frame`, as `rest` gives them."""
        if not self._on:
            return
        # A frame of two fields may come in two packets.
        if frame.pts is None or frame.interlaced_frame or (self._last is not None and frame.pts <= self._last):
            self.surprise()
            return
        self._last = frame.pts
        self._open.pop(frame.pts, None)
        earlier = sorted(pts for pts in self._open if pts < frame.pts)
        yield from self._gone(earlier)

    def rest(self) -> Iterator[tuple[float, int]]:
        """The frames that were passed over and are shown after all others: time stamps in seconds, and durations."""
        yield from self._gone(sorted(self._open))

    def _gone(self, stamps: list[int]) -> Iterator[tuple[float, int]]:
        for pts in stamps:
            self.passed += 1
            yield float(pts * self._base), self._open.pop(pts)

    def surprise(self) -> None:
        """Pass nothing over from here on. Raises `PassedOverError` if something may have been passed over before."""
        if self.passed or self._open:
            raise PassedOverError
        self._on = False
