"""Check files of records: every CRC, and whether every record makes sense, whatever its features are."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from topgb.errors import DamagedRecordError
from topgb.jobs.dispatch import dispatch, in_order
from topgb.jobs.engine import LOCAL, Engine, Piece
from topgb.progress import Progress
from topgb.records.framing import Place
from topgb.records.protobuf_decoding import check_holds_features, feature_names, parse_record, read_id
from topgb.records.shards import Shard, find_shards, open_shard


@dataclass
class Verification:
    """The result of `verify_shards`: number of files, number of sound records, and errors of the others, in order."""

    files: int = 0
    sound: int = 0
    damaged: list[DamagedRecordError] = field(default_factory=list)


def verify_shards(
    pattern: str | Sequence[str],
    on_progress: Callable[[int, int], None] | None = None,
    engine: Engine = LOCAL,
) -> Verification:
    """Check every record of the shards of `pattern` (see `find_shards`) with the workers of `engine`.

    `on_progress` is called with (files done, files). Raises `InputError` if nothing matches or a file cannot be opened,
    and as `dispatch`; faults inside a file are returned, not raised.
    """
    shards = find_shards(pattern)
    total = Verification()
    done = count(1)

    def add(_: int, found: tuple[int, list[DamagedRecordError]]) -> None:
        total.files += 1
        total.sound += found[0]
        total.damaged += found[1]

    def take(number: int, found: tuple[int, list[DamagedRecordError]]) -> None:
        add_in_order(number, found)
        if on_progress:
            on_progress(next(done), len(shards))

    pieces = [Piece(number, shard.path, 1) for number, shard in enumerate(shards)]
    add_in_order = in_order(pieces, add)
    local = [shard.path for shard in shards if not shard.remote]
    dispatch(_VerifyShard(shards), pieces, take, engine, shared=local[:1])
    return total


@dataclass(frozen=True)
class _VerifyShard:
    """The work of a worker: piece n is shard n."""

    shards: list[Shard]

    def __call__(self, number: int, progress: Progress) -> tuple[int, list[DamagedRecordError]]:
        return verify_shard(self.shards[number])


def verify_shard(shard: Shard) -> tuple[int, list[DamagedRecordError]]:
    """The number of sound records in a file, and errors of the others; those behind a broken length are lost."""
    try:
        opened = open_shard(shard)
    except DamagedRecordError as empty:
        return 0, [empty]
    damaged = []
    for record in range(len(opened)):
        try:
            opened.check_crc(record)
            _check_readable(opened.data(record), opened.place(record))
        except DamagedRecordError as error:
            damaged.append(error)
    sound = len(opened) - len(damaged)
    if opened.damage:
        reason = f"{opened.damage.reason}, and what follows it in the file cannot be reached"
        damaged.append(opened.place(len(opened)).damaged(reason))
    return sound, damaged


def _check_readable(payload: memoryview, place: Place) -> None:
    """Raise `DamagedRecordError` for a record that no model could read, whatever its features are."""
    message = parse_record(payload, place)
    read_id(message.context, place)
    check_holds_features(message, place)
    lists = message.feature_lists.feature_list
    counts = {name: len(values.feature) for name, values in lists.items()}
    if not all(counts.values()):
        raise place.damaged("it has no frames")
    if len(set(counts.values())) > 1:
        frame_counts = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        raise place.damaged(f"its features have unequal numbers of frames ({frame_counts})")
    if lists:
        values = {name: rows.feature for name, rows in lists.items()}
    else:
        values = {name: [message.context.feature[name]] for name in feature_names(message.context)}
    for name, rows in values.items():
        # One test per row: a 64-bit sum of 32-bit values cannot overflow, so it is finite if all values are.
        if not all(math.isfinite(sum(row.float_list.value)) for row in rows):
            raise place.damaged(f"feature {name!r} holds values that are not finite")
