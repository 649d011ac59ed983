"""Decode one stream packet by packet, so that a bad packet costs its own frames and not the rest."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from topgb.video.opening import pyav

if TYPE_CHECKING:
    from av.container import InputContainer

# A demuxer that fails this often in a row has no more to give.
_MOST_FAILURES = 100


class Decoding:
    """The frames of a stream, in the order in which they are shown.

    container  the open file
    stream     one of its streams of pictures or sound
    keyframes  decode only frames that need no others

    Attributes: `frame_seconds`, how long a picture is shown whose packet does not say it; `frames`, the number decoded
    so far; `damaged`, the number of packets that could not be read or decoded; `end`, the end of the last packet in
    seconds, on the stream's own clock.
    """

    def __init__(self, container: "InputContainer", stream: Any, keyframes: bool = False):
        self._container, self._stream = container, stream
        self._context = stream.codec_context
        self._keyframes = keyframes
        rate = getattr(stream, "average_rate", None)
        self.frame_seconds = float(1 / rate) if rate else 0.04
        self.frames = self.damaged = 0
        self.end: float | None = None

    def __iter__(self) -> Iterator[Any]:
        av = pyav()
        # One thread: threads change neither bits nor, with one process per core, the speed.
        self._context.thread_type = "NONE"
        self._context.thread_count = 1
        if self._keyframes:
            self._context.skip_frame = "NONKEY"
        for other in self._container.streams:
            other.discard = av.stream.Discard.default if other is self._stream else av.stream.Discard.all
        for packet in self._packets():
            # A decoder takes an empty packet for the end; some Ogg files have them in the middle.
            if packet is not None and not packet.size:
                continue
            if packet is not None:
                self._note_end(packet)
                if self._keyframes and not packet.is_keyframe:
                    continue
            try:
                frames = self._stream.decode(packet)
            except EOFError:
                continue
            except (av.error.FFmpegError, ValueError):
                self.damaged += packet is not None
                continue
            for frame in frames:
                self.frames += 1
                yield frame

    def _packets(self) -> Iterator[Any]:
        """The stream's packets, then None."""
        av = pyav()
        failures = 0
        packets = self._container.demux(self._stream)
        while failures < _MOST_FAILURES:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, ValueError):
                self.damaged += not failures
                failures += 1
                packets = self._container.demux(self._stream)
                continue
            if packet is None:
                break
            failures = 0 if packet.size else failures
            yield packet
        yield None

    def _note_end(self, packet: Any) -> None:
        if packet.pts is not None and packet.time_base is not None:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            self.end = end if self.end is None else max(self.end, end)
