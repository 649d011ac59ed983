"""Checking files of records: every CRC, and that every record makes sense, whatever its features are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from topgb.errors import DamagedRecordError
from topgb.records.framing import data_crc_matches
from topgb.records.protobuf_decoding import ID_KEYS
from topgb.records.protos import Example, SequenceExample
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
    for record, (offset, length) in enumerate(zip(opened.index.offsets, opened.index.lengths, strict=True)):
        if data_crc_matches(opened.buffer, int(offset), int(length)):
            reason = _flaw(opened.data(record))
        else:
            reason = "its data does not match its CRC"
        if reason:
            damaged.append(opened.place(record).damaged(reason))
    sound = len(opened) - len(damaged)
    if opened.damage:
        reason = f"{opened.damage.reason}, and what follows it in the file cannot be reached"
        damaged.append(opened.place(len(opened)).damaged(reason))
    return sound, damaged


def _flaw(payload: memoryview) -> str | None:
    """What is wrong with a record whose CRC holds, or None."""
    message = SequenceExample()
    try:
        # An Example is a SequenceExample without lists, except for fields that neither has.
        message.ParseFromString(payload)
        context = message.context
    except DecodeError:
        try:
            context = Example.FromString(payload).features
        except DecodeError:
            return "its CRC holds, but protobuf cannot decode it"
        message = SequenceExample()
    if not any(key in context.feature and context.feature[key].bytes_list.value for key in ID_KEYS):
        return "it has no id (neither 'id' nor 'video_id' holds a bytes value)"
    counts = {name: len(values.feature) for name, values in message.feature_lists.feature_list.items()}
    if counts and not all(counts.values()):
        return "it has no frames"
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        return f"its features have unequal numbers of frames ({told})"
    return None
