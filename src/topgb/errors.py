"""Errors that reach the user as one sentence: what is wrong, where, and what to do."""


class TopgbError(Exception):
    """The work failed although the input was sound (a full disk, a lost file). Exit code 1."""

    exit_code = 1


class InputError(TopgbError):
    """The input, a setting or the command line is wrong. Exit code 2."""

    exit_code = 2


class InterruptError(TopgbError):
    """Ctrl-C where there is more to say than that: how to go on. Exit code 130."""

    exit_code = 130


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
            "replace the file, or go on without the record with --on-damaged skip"
        )
        self.path, self.record, self.offset, self.reason = path, record, offset, reason

    def __reduce__(self):
        # Loader workers send exceptions between processes; the default rebuilds from the message alone.
        return DamagedRecordError, (self.path, self.record, self.offset, self.reason)
