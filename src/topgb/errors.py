"""Errors that reach the user as one sentence: what is wrong, where, and what to do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Wording = Callable[[str, Any], str]


class TopgbError(Exception):
    """The work failed although the input was sound (a full disk, a lost file). Exit code 1."""

    exit_code = 1

    def __init__(self, message: str):
        # Sentences quote ids, paths and what other libraries say.
        super().__init__(printable(message))


class InputError(TopgbError):
    """The input, a setting or the command line is wrong. Exit code 2."""

    exit_code = 2


class InterruptError(TopgbError):
    """Ctrl-C interrupted the work; the message says how to go on. Exit code 130."""

    exit_code = 130


class TopgbWarning(UserWarning):
    """A warning to the user about something that does not stop the work. The command line prints it as a line."""


def in_python(name: str, value: Any = None) -> str:
    """An option as Python code writes it: `force=True`, or `top_k` without a value."""
    return name if value is None else f"{name}={value!r}"


_wording: Wording = in_python
_worded: ContextVar[Wording | None] = ContextVar("wording", default=None)


def option(name: str, value: Any = None) -> str:
    """The option `name` of the Python API, as the reader of a message writes it; empty if the reader has none.

    On the command line it is written as a flag (`topgb.cli.flags`), elsewhere as in Python. Call this when the message
    is made, never while a module is imported: the wording is chosen later.
    """
    return wording()(name, value)


def wording() -> Wording:
    """The function by which `option` writes here; picklable, so that worker processes can use it too."""
    return _worded.get() or _wording


@contextmanager
def worded(chosen: Wording) -> Iterator[None]:
    """A block in which `option` uses `chosen`, in this thread or task and in those that copy its context."""
    token = _worded.set(chosen)
    try:
        yield
    finally:
        _worded.reset(token)


def set_wording(chosen: Wording) -> Wording:
    """Let `option` write by `chosen` in the whole process, as `gettext.install` does; returns the earlier wording."""
    global _wording
    earlier, _wording = _wording, chosen
    return earlier


def install_extra(extra: str) -> str:
    """The advice to install an extra of topgb, which is on no package index."""
    return f"in topgb's checkout, pip install '.[{extra}]'"


def printable(text: str) -> str:
    """`text` in one line, with every character escaped that a terminal might obey, because messages quote files."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class RecordError(InputError):
    """A record that is intact but unusable as it is; the `reason` says what to do. It is never skipped.

    Attributes: `path` of the shard, `record` number in it (from 0), byte `offset` of the record's header, and the
    `reason` in words.
    """

    def __init__(self, path: str, record: int, offset: int, reason: str):
        super().__init__(self._sentence(f"{path}: record {record} at byte {offset}", reason))
        self.path, self.record, self.offset, self.reason = path, record, offset, reason

    @staticmethod
    def _sentence(place: str, reason: str) -> str:
        return f"{place}: {reason}"

    def __reduce__(self):
        # Loader workers send exceptions between processes; by default Python rebuilds one from its message alone.
        return type(self), (self.path, self.record, self.offset, self.reason)


class NotRecordsError(RecordError):
    """A file that is not a TFRecord; the `reason` is the whole sentence."""

    @staticmethod
    def _sentence(place: str, reason: str) -> str:
        return reason


class DamagedRecordError(RecordError):
    """A record that cannot be read; `on_damaged="skip"` goes on without it."""

    @staticmethod
    def _sentence(place: str, reason: str) -> str:
        return f"{place} is damaged: {reason}; copy or download the file again{_or_skip()}"


class UnfitRecordError(DamagedRecordError):
    """A record that is intact but that no model can use; the `reason` says what to do. It is skipped like damage."""

    @staticmethod
    def _sentence(place: str, reason: str) -> str:
        return f"{place} cannot be used: {reason}{_or_skip()}"


def _or_skip() -> str:
    """The advice to leave a record out, for readers who have an option for it."""
    way = option("on_damaged", "skip")
    return f", or go on without the record with {way}" if way else ""
