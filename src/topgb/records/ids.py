"""Read the ids of records, whatever their features are."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from topgb.errors import DamagedRecordError, TopgbError
from topgb.features import YOUTUBE8M_FRAMES
from topgb.records.codec import read_identity
from topgb.records.framing import Place
from topgb.records.layout import Layout
from topgb.records.on_damaged import NoteDamage, OnDamaged, raise_damage
from topgb.records.shards import OpenShard, find_shards, open_shard

# The features are never read. The ids of video-level records are read in the same way, or by protobuf.
_ANY_RECORD = Layout(YOUTUBE8M_FRAMES, classes=None)


def read_record_id(payload: memoryview, place: Place) -> str:
    """The id in any record's data, read without its frames. Raises `DamagedRecordError` if there is none."""
    return read_identity(payload, _ANY_RECORD, place).id


def video_ids(
    pattern: str | Sequence[str],
    on_damaged: OnDamaged = "stop",
    damaged: list[DamagedRecordError] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[str]:
    """Read the id of every record in the shards of `pattern` (see `find_shards`), in file order.

    A record's CRC covers its frames too, so it is checked only if something is wrong. With `on_damaged` "skip", damaged
    records are left out and added to `damaged`. `on_progress` is called with (files done, files). Raises `InputError`
    if nothing matches or a file cannot be opened, `DamagedRecordError` for damage.
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


def readable_ids(path: str) -> Iterator[str]:
    """The ids of the records of one shard that can be read; none if it cannot be opened any more."""
    with suppress(TopgbError):
        yield from video_ids([path], on_damaged="skip")


def _checked_id(opened: OpenShard, record: int) -> str:
    try:
        return read_record_id(opened.data(record), opened.place(record))
    except DamagedRecordError:
        opened.checked(record)
        raise
