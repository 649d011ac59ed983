"""Decode one stream packet by packet, so that a bad packet costs its own frames and not the rest."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from topgb.video.clock import MOST_GAP_SECONDS
from topgb.video.opening import pyav
from topgb.video.passing import Needed, Passing

if TYPE_CHECKING:
    from av.container import InputContainer

# Stop reading after this many failures of the demuxer in a row.
_MOST_FAILURES = 100


class Decoding:
    """The frames of a stream, in the order in which they are shown: frame, its time stamp or None, and its duration.

    Times are in seconds on the stream's own clock.

    container  the open file
    stream     one of its streams of pictures or sound
    keyframes  decode only frames that need no others

    Attributes: `frames`, the number that has come so far; `passed`, those of them that were not decoded; `damaged`, the
    number of packets that could not be read, or decoded whole; `end`, the end of the last packet.
    """

    def __init__(self, container: "InputContainer", stream: Any, keyframes: bool = False):
        self._container, self._stream = container, stream
        self._context = stream.codec_context
        self._keyframes = keyframes
        # An Ogg page says when it ends. FFmpeg counts back from there, by seconds too many if there are empty packets:
        # it takes each for a block of sound.
        self._is_ogg_sound = container.format.name == "ogg" and stream.type == "audio"
        rate = getattr(stream, "average_rate", None)
        # The duration of pictures that do not state theirs.
        self._frame_seconds = float(1 / rate) if rate else 0.04
        # Whether time stamps are worth nothing: frames then follow one another.
        self._untimed = False
        self.frames = self.damaged = 0
        self.end: float | None = None
        self._passing: Passing | None = None

    def pass_over(self, needed: Needed) -> None:
        """Pass over frames that are not `needed` and to which no other refers: they come as None with their times.

        Whether a frame is needed is asked when it is about to be decoded. All others are the same as without this. From
        now on, the frames' iterator may raise `PassedOverError`.
        """
        if not self._keyframes:
            self._passing = Passing(self._stream, needed)

    @property
    def passed(self) -> int:
        return 0 if self._passing is None else self._passing.passed

    def __iter__(self) -> Iterator[tuple[Any, float | None, float]]:
        av = pyav()
        # One thread: threads change neither bits nor, with one process per core, the speed.
        self._context.thread_type = "NONE"
        self._context.thread_count = 1
        if self._keyframes:
            self._context.skip_frame = "NONKEY"
        for other in self._container.streams:
            other.discard = av.stream.Discard.default if other is self._stream else av.stream.Discard.all
        packets = self._packets()
        for packet in packets if self._passing is None else self._passing.read_ahead(packets):
            # A decoder takes an empty packet for the end; some Ogg files have them in the middle.
            if packet is not None and not packet.size:
                self._untimed |= self._is_ogg_sound
                continue
            if packet is not None:
                self._note_end(packet)
                if self._keyframes and not packet.is_keyframe:
                    continue
            for frame in self._decoded(packet):
                yield from self._passed_before(frame)
                self.frames += 1
                yield frame, *self._times(frame)
        yield from self._passed_before(None)

    def _decoded(self, packet: Any) -> list[Any]:
        """The frames that come out of the decoder for a packet, None for the end."""
        av = pyav()
        if self._passing is not None:
            self._passing.decide(packet)
        try:
            frames = self._stream.decode(packet)
        except EOFError:
            return []
        except (av.error.FFmpegError, ValueError):
            self._damage(packet is not None)
            return []
        # Count cut or overwritten packets of a broadcast, and pictures that the decoder repaired.
        self._damage((packet is not None and packet.is_corrupt) or any(frame.is_corrupt for frame in frames))
        return frames

    def _passed_before(self, frame: Any) -> Iterator[tuple[Any, float | None, float]]:
        """The frames that were passed over and are shown before `frame`; None means all of them."""
        if self._passing is None:
            return
        for time, duration in self._passing.rest() if frame is None else self._passing.before(frame):
            self.frames += 1
            yield None, time, self._seconds(duration, self._stream.time_base)

    def _damage(self, packets: int) -> None:
        self.damaged += packets
        # Frames that were passed over may be damaged, too.
        if packets and self._passing is not None:
            self._passing.surprise()

    def _packets(self) -> Iterator[Any]:
        """The stream's packets, then None."""
        av = pyav()
        failures = 0
        packets = self._container.demux(self._stream)
        while failures < _MOST_FAILURES:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, ValueError):
                self._damage(not failures)
                failures += 1
                packets = self._container.demux(self._stream)
                continue
            if packet is None:
                break
            failures = 0 if packet.size else failures
            yield packet
        yield None

    def _times(self, frame: Any) -> tuple[float | None, float]:
        # Frames that come out at the end have no time base of their own.
        base = frame.time_base or self._stream.time_base
        time = None if frame.pts is None or self._untimed else float(frame.pts * base)
        return time, self._seconds(frame.duration, base)

    def _seconds(self, duration: int | None, base: Any) -> float:
        seconds = float(duration * base) if duration and duration > 0 else self._frame_seconds
        return min(seconds, MOST_GAP_SECONDS)

    def _note_end(self, packet: Any) -> None:
        if packet.pts is not None and packet.time_base is not None:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            self.end = end if self.end is None else max(self.end, end)
