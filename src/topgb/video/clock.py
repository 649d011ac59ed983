"""Turn a file's time stamps into seconds from the first picture or sound, without going back or jumping far."""

# A longer gap is taken for broken time stamps, and time goes on as if there were none. A slide may stand for half an
# hour.
MOST_GAP_SECONDS = 3600.0
# Frames of one stream may overlap this much, or come out of order by this much.
_MOST_BACK_SECONDS = 1.0


class Clock:
    """Seconds from `zero` on, for the time stamps of one stream; None takes its first time stamp for zero.

    Attributes: `first`, the first time stamp; `shift`, the seconds to subtract from later time stamps, which a jump
    changes.
    """

    def __init__(self, zero: float | None = None):
        self.first = zero
        self.shift = zero or 0.0
        # The end of the last frame; None before the first.
        self._end: float | None = None

    def seconds(self, time: float | None, duration: float) -> float:
        """The time of a frame with this time stamp; None means that it follows the one before."""
        if self.first is None:
            self.first = self.shift = time or 0.0
        expected = 0.0 if self._end is None else self._end
        seconds = expected if time is None else time - self.shift
        # A second stream may begin long before or after the first.
        back = _MOST_BACK_SECONDS if self._end is not None else MOST_GAP_SECONDS
        if not expected - back <= seconds <= expected + MOST_GAP_SECONDS:
            self.shift += seconds - expected
            seconds = expected
        end = seconds + duration
        self._end = end if self._end is None else max(self._end, end)
        return seconds
