"""The one way by which text leaves the program: control characters are escaped, and a lost terminal ends no work."""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from topgb.errors import printable

# Why standard output could not take a result.
_lost: OSError | None = None


def say(*lines: str) -> None:
    """Print on standard output what was done, line by line. Losing it is no failure: the work is done."""
    global _lost
    before = _lost
    _print(sys.stdout, lines)
    _lost = before


def show(*lines: str) -> None:
    """Print a result on standard output, line by line; `lost` tells whether it got there."""
    _print(sys.stdout, lines)


def show_json(value: Any) -> None:
    """Print a result as JSON in one line."""
    # Imported here and not at the start, as for all that few commands need: everything that starts waits for this file.
    import json

    # The only control character that JSON in ASCII leaves as it is.
    show(json.dumps(value).replace("\x7f", "\\u007f"))


def tell(*lines: str) -> None:
    """Print on standard error, line by line."""
    _print(sys.stderr, lines)


def lost() -> OSError | None:
    """Why a result did not get to standard output; None if it did, or if its reader has gone (`topgb … | head`)."""
    global _lost
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    found, _lost = _lost, None
    return found


def hold_streams() -> None:
    """Make this process's standard streams such that writing to them never fails; called before anything is opened."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Closed (`2>&-`): the next file to be opened, a model perhaps, would get what is written to the stream.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout, sys.stderr = _unfailing(sys.stdout, 1), _unfailing(sys.stderr, 2)
    sys.excepthook = _tell_defect
    # Imported by Python itself.
    import warnings

    warnings.showwarning = _tell_warning


class _Descriptor(io.FileIO):
    """A standard stream's descriptor; what cannot be written to it is dropped."""

    def write(self, data: Any) -> int:
        try:
            written = super().write(data)
            while written is None:
                # Another program has made the terminal or pipe non-blocking, and it is full: wait.
                import select

                select.select([], [self], [])
                written = super().write(data)
        except OSError as error:
            _note_loss(self.fileno(), error)
            return memoryview(data).nbytes
        return written


def _unfailing(stream: TextIO | None, number: int) -> TextIO:
    raw = _Descriptor(number, "w", closefd=False)
    encoding = "utf-8"
    if stream is not None:
        stream.flush()
        encoding = stream.encoding
    by_line = number == 2 or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=by_line)


def _note_loss(number: int, error: OSError) -> None:
    global _lost
    if number == 1 and error.errno != errno.EPIPE:
        _lost = error


def _print(stream: TextIO | None, lines: tuple[str, ...]) -> None:
    # None in a library user's process without streams.
    if stream is None:
        return
    text = "".join(f"{printable(line)}\n" for line in lines)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError as error:
        _note_loss(1 if stream is sys.stdout else 2, error)
    except ValueError:
        # The stream was closed.
        pass


def _tell_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    import warnings

    tell(*warnings.formatwarning(message, category, filename, lineno, line).rstrip("\n").split("\n"))


def _tell_defect(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    import traceback

    tell(*"".join(traceback.format_exception(kind, error, trace)).rstrip("\n").split("\n"))
