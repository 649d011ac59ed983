"""The ids of records, whatever features these hold."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from topgb.errors import DamagedRecordError
from topgb.features import YOUTUBE8M_FRAMES
from topgb.records.example import read_identity
from topgb.records.framing import Place
from topgb.records.layout import Layout
from topgb.records.shards import OpenShard, find_shards, open_shard

if TYPE_CHECKING:
    from topgb.records.reading import OnDamaged

# No feature of it is looked at. Frame level, because a video-level record is read in the same way, or by protobuf.
_ANY_RECORD = Layout(YOUTUBE8M_FRAMES, classes=None)


def read_record_id(payload: memoryview, place: Place) -> str:
    """The id of any record, from its data, without touching its frames. Raises `DamagedRecordError` without one."""
    return read_identity(payload, _ANY_RECORD, place).id


def video_ids(
    pattern: str | Sequence[str],
    on_damaged: "OnDamaged" = "stop",
    damaged: list[DamagedRecordError] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[str]:
    """The id of every record of the shards of `pattern` (see `find_shards`), in file order.

    A record's CRC, which covers the frames, is only checked if something is wrong. With `on_damaged` "skip" damaged
    records are left out and added to `damaged`. `on_progress` is called with (files done, files). Raises `InputError`
    where nothing matches or a file cannot be opened, `DamagedRecordError` for damage.
    """
    found = [] if damaged is None else damaged
    shards = find_shards(pattern)
    for done, shard in enumerate(shards, start=1):
        with noting_damage(found, on_damaged):
            opened = open_shard(shard)
            for record in range(len(opened)):
                with noting_damage(found, on_damaged):
                    yield _checked_id(opened, record)
            raise_damage(opened)
        if on_progress:
            on_progress(done, len(shards))


@contextmanager
def noting_damage(damaged: list[DamagedRecordError], on_damaged: "OnDamaged") -> Iterator[None]:
    """A block whose `DamagedRecordError` is added to `damaged` rather than raised, if `on_damaged` is "skip"."""
    try:
        yield
    except DamagedRecordError as error:
        if on_damaged != "skip":
            raise
        damaged.append(error)


def raise_damage(opened: OpenShard) -> None:
    """Raise `DamagedRecordError` where a part of the file cannot be reached."""
    if opened.damage:
        raise opened.place(len(opened)).damaged(f"{opened.damage.reason}, and what follows cannot be reached")


def _checked_id(opened: OpenShard, record: int) -> str:
    try:
        return read_record_id(opened.data(record), opened.place(record))
    except DamagedRecordError:
        opened.check_crc(record)
        raise
