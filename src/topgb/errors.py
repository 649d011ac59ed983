"""Errors that reach the user as one sentence: what is wrong, where, and what to do."""

from collections.abc import Callable
from typing import Any

Wording = Callable[[str, Any], str]


class TopgbError(Exception):
    """The work failed although the input was sound (a full disk, a lost file). Exit code 1."""

    exit_code = 1


class InputError(TopgbError):
    """The input, a setting or the command line is wrong. Exit code 2."""

    exit_code = 2


class InterruptError(TopgbError):
    """Ctrl-C where there is more to say than that: how to go on. Exit code 130."""

    exit_code = 130


def in_python(name: str, value: Any = None) -> str:
    """An option as Python code writes it: `force=True`, or `top_k` without a value."""
    return name if value is None else f"{name}={value!r}"


_wording: Wording = in_python


def option(name: str, value: Any = None) -> str:
    """The option `name` of the Python API, in the words of whoever reads the message.

    The command line has it written as a flag (`topgb.cli.flags`), everybody else as in Python. Call it where the
    message is made, never while a module is imported: the wording is not chosen by then.
    """
    return _wording(name, value)


def wording() -> Wording:
    """How `option` writes in this process: a picklable function, for processes that work for this one."""
    return _wording


def set_wording(chosen: Wording) -> Wording:
    """Have `option` write by `chosen` in the whole process, as `gettext.install` does. Returns the earlier wording."""
    global _wording
    earlier, _wording = _wording, chosen
    return earlier


def printable(text: str) -> str:
    """`text` with all that a terminal might obey escaped: what a message quotes of a file."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class DamagedRecordError(InputError):
    """A record that cannot be read.

    Attributes: `path` of the shard, `record` number in it (from 0), byte `offset` of the record's
    header, and the `reason` in words.
    """

    def __init__(self, path: str, record: int, offset: int, reason: str):
        super().__init__(
            f"{path}: record {record} at byte {offset} is damaged: {reason}; "
            f"replace the file, or go on without the record with {option('on_damaged', 'skip')}"
        )
        self.path, self.record, self.offset, self.reason = path, record, offset, reason

    def __reduce__(self):
        # Loader workers send exceptions between processes; the default rebuilds from the message alone.
        return DamagedRecordError, (self.path, self.record, self.offset, self.reason)
