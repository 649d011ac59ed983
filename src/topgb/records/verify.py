"""Checking files of records: every CRC, and that every record makes sense, whatever its features are."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from topgb.errors import DamagedRecordError
from topgb.records.framing import Place
from topgb.records.protobuf_decoding import check_holds_features, feature_names, parse_record, read_id
from topgb.records.shards import Shard, find_shards, open_shard


@dataclass
class Verification:
    """What `verify_shards` found: files looked at, records that are sound, and those that are not, in order."""

    files: int = 0
    sound: int = 0
    damaged: list[DamagedRecordError] = field(default_factory=list)


def verify_shards(pattern: str | Sequence[str], on_progress: Callable[[int, int], None] | None = None) -> Verification:
    """Check every record of the shards of `pattern` (see `find_shards`).

    `on_progress` is called with (files done, files). Raises `InputError` where nothing matches or a file cannot be
    opened; what is wrong inside a file is returned, not raised.
    """
    shards = find_shards(pattern)
    total = Verification()
    for shard in shards:
        sound, damaged = verify_shard(shard)
        total.files += 1
        total.sound += sound
        total.damaged += damaged
        if on_progress:
            on_progress(total.files, len(shards))
    return total


def verify_shard(shard: Shard) -> tuple[int, list[DamagedRecordError]]:
    """The number of sound records of a file, and its damaged ones; those behind a broken length are out of reach."""
    try:
        opened = open_shard(shard)
    except DamagedRecordError as empty:
        return 0, [empty]
    damaged = []
    for record in range(len(opened)):
        try:
            opened.check_crc(record)
            _check_sense(opened.data(record), opened.place(record))
        except DamagedRecordError as error:
            damaged.append(error)
    sound = len(opened) - len(damaged)
    if opened.damage:
        reason = f"{opened.damage.reason}, and what follows it in the file cannot be reached"
        damaged.append(opened.place(len(opened)).damaged(reason))
    return sound, damaged


def _check_sense(payload: memoryview, place: Place) -> None:
    """Raise `DamagedRecordError` for a record that no model could read, whatever its features."""
    message = parse_record(payload, place)
    read_id(message.context, place)
    check_holds_features(message, place)
    lists = message.feature_lists.feature_list
    counts = {name: len(values.feature) for name, values in lists.items()}
    if not all(counts.values()):
        raise place.damaged("it has no frames")
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        raise place.damaged(f"its features have unequal numbers of frames ({told})")
    if lists:
        values = {name: rows.feature for name, rows in lists.items()}
    else:
        values = {name: [message.context.feature[name]] for name in feature_names(message.context)}
    for name, rows in values.items():
        # A sum is finite if all values are: they are 32 bits wide, and it 64.
        if not all(math.isfinite(sum(row.float_list.value)) for row in rows):
            raise place.damaged(f"feature {name!r} holds values that are not finite")
