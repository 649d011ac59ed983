"""The ids of records, whatever features these hold."""

from collections.abc import Callable, Iterator, Sequence

from topgb.errors import DamagedRecordError
from topgb.features import YOUTUBE8M_FRAMES
from topgb.records.codec import read_identity
from topgb.records.damage import NoteDamage, OnDamaged, raise_damage
from topgb.records.framing import Place
from topgb.records.layout import Layout
from topgb.records.shards import OpenShard, find_shards, open_shard

# No feature of it is looked at. Frame level, because a video-level record is read in the same way, or by protobuf.
_ANY_RECORD = Layout(YOUTUBE8M_FRAMES, classes=None)


def read_record_id(payload: memoryview, place: Place) -> str:
    """The id of any record, from its data, without touching its frames. Raises `DamagedRecordError` without one."""
    return read_identity(payload, _ANY_RECORD, place).id


def video_ids(
    pattern: str | Sequence[str],
    on_damaged: OnDamaged = "stop",
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
        with NoteDamage(found, on_damaged):
            opened = open_shard(shard)
            for record in range(len(opened)):
                with NoteDamage(found, on_damaged):
                    yield _checked_id(opened, record)
            raise_damage(opened)
        if on_progress:
            on_progress(done, len(shards))


def _checked_id(opened: OpenShard, record: int) -> str:
    try:
        return read_record_id(opened.data(record), opened.place(record))
    except DamagedRecordError:
        opened.check_crc(record)
        raise
