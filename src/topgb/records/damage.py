"""Damaged records: stop at the first one, or note each and go on without it."""

from typing import Literal

from topgb.errors import DamagedRecordError
from topgb.records.shards import OpenShard

OnDamaged = Literal["stop", "skip"]


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
            self.damaged.append(error)
            return True
        return False


def raise_damage(opened: OpenShard) -> None:
    """Raise `DamagedRecordError` if a part of the file cannot be reached."""
    if opened.damage:
        raise opened.place(len(opened)).damaged(f"{opened.damage.reason}, and what follows cannot be reached")
