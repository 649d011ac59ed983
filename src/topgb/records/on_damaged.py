"""Damaged records: stop at the first one, or note each and go on without it."""

from typing import Literal, TypeVar

from topgb.errors import DamagedRecordError, InputError, RecordError
from topgb.records.shards import OpenShard

OnDamaged = Literal["stop", "skip"]
# A small file can unpack to millions of damaged records, and each one's error takes half a kilobyte.
MOST_FAULTS = 100_000

Fault = TypeVar("Fault", bound=RecordError)


def note(fault: Fault, faults: list[Fault]) -> None:
    """Add `fault` to `faults`. Raises `InputError` if there are too many to keep, or to go on without."""
    if len(faults) >= MOST_FAULTS:
        raise InputError(
            f"{fault.path}: more than {MOST_FAULTS:,} records are damaged or cannot be used, the last of them because "
            f"of this: {fault.reason}; name other files, or fewer"
        )
    faults.append(fault)


class NoteDamage:
    """A context that, with `on_damaged` "skip", adds a `DamagedRecordError` to `damaged` instead of raising it."""

    __slots__ = ("damaged", "skip")

    # A class, because a generator of contextlib costs as much as decoding a small record.
    def __init__(self, damaged: list[DamagedRecordError], on_damaged: OnDamaged):
        self.damaged, self.skip = damaged, on_damaged == "skip"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if self.skip and isinstance(error, DamagedRecordError):
            note(error, self.damaged)
            return True
        return False


def raise_damage(opened: OpenShard) -> None:
    """Raise `DamagedRecordError` if a part of the file cannot be reached."""
    if opened.damage:
        raise opened.damage.error(opened.shard.path)
