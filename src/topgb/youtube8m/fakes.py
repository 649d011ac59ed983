"""Drop fake videos from a test set: copy its shards without the videos whose vector hardly varies."""

import os
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from topgb.errors import DamagedRecordError, InputError
from topgb.file_sets import complete_set, finish_earlier, write_set
from topgb.files import GROWING, refuse_existing, write_failure
from topgb.folder_lock import writing_alone
from topgb.records.framing import FOOTER_BYTES, HEADER_BYTES
from topgb.records.on_damaged import NoteDamage, OnDamaged, raise_damage
from topgb.records.shards import OpenShard, Shard, find_shards, open_shard
from topgb.results import Result
from topgb.youtube8m.deviations import Measure, Spread, deviations_from_records, spread_of
from topgb.youtube8m.plan import refuse_collisions
from topgb.youtube8m.submission import fake_rows

# 2018: the threshold of remove_test_fakes.py.
THRESHOLD = 0.1
# A deviation is close to the threshold if it differs by at most this share of it.
CLOSE = 0.1
# The mark of an unfinished set begins so while the CSV of fakes is missing; its path follows.
_LACKS_CSV = b"topgb data drop-fakes has yet to write "


@dataclass(frozen=True, repr=False)
class DroppedFakes(Result):
    """The result of `drop_fakes`.

    files      number of shards read, of which `written` had videos left
    kept       number and deviations of the videos above the threshold
    dropped    number and deviations of the other videos
    unlisted   number of videos that were dropped too because they have no known deviation
    threshold  the threshold for deviations
    close      number of kept and dropped videos within a tenth of the threshold
    damaged    errors of the records that could not be read, which are neither kept nor dropped
    """

    files: int
    written: int
    threshold: float
    kept: Spread
    dropped: Spread
    unlisted: int
    close: int
    damaged: list[DamagedRecordError]

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values: the fields, with the number of `damaged` records, and `videos` and `parted`."""
        return {"videos": self.videos, **super().to_dict(), "parted": self.parted, "damaged": len(self.damaged)}

    @property
    def videos(self) -> int:
        """The number of videos read."""
        return self.kept.videos + self.dropped.videos + self.unlisted

    @property
    def parted(self) -> bool:
        """Whether the threshold parts two modes: videos near it are less than half as dense as around either mode."""
        if not self.close:
            return bool(self.kept.videos and self.dropped.videos)
        around = self.close / (2 * CLOSE * self.threshold) if self.threshold else float("inf")
        return around < min(self.kept.density, self.dropped.density) / 2


@dataclass(frozen=True)
class FakeCriterion:
    """A video is fake if its deviation by `measure` (None: `deviations_from_records()`) is at most `threshold`.

    Raises `InputError` if the threshold is no deviation.
    """

    measure: Measure | None = None
    threshold: float = THRESHOLD

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < float("inf"):
            raise InputError(
                f"the threshold {self.threshold} is no deviation; give a number from 0, such as {THRESHOLD}"
            )


DEFAULT_CRITERION = FakeCriterion()


def drop_fakes(
    pattern: str | Sequence[str],
    folder: Path,
    criterion: FakeCriterion = DEFAULT_CRITERION,
    fakes: Path | None = None,
    on_damaged: OnDamaged = "stop",
    force: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> DroppedFakes:
    """Copy the shards of `pattern` (see `find_shards`) into `folder` without fakes (2018: `remove_test_fakes.py`).

    The records of videos that are not fake by `criterion` are copied byte for byte, in order, to a file of the shard's
    name, gzipped if it ends in .gz. A shard without such videos gives no file. `fakes` is a CSV to write, with a row of
    a submission for every other video, in order. `on_progress` is called with (files done, files). A record's CRC is
    checked before it is measured.

    Raises `InputError` if shards share a name or lie in `folder` itself, if a file exists and `force` is off, if no
    record can be read, and for records that the measure refuses; `DamagedRecordError` for damage unless `on_damaged` is
    "skip"; `TopgbError` if writing fails. All files appear together, at the end; after an error, `folder` is as before.
    """
    shards = find_shards(pattern)
    with writing_alone(folder):
        finish_earlier(folder)
        # Left by a call that was killed between the copies and the end of the CSV.
        stopped = (folder / GROWING).is_file() and (folder / GROWING).read_bytes().startswith(_LACKS_CSV)
        _check_names(shards, folder, force or stopped)
        if fakes is None:
            return _write_copies(shards, folder, _Judge(criterion, lambda video_id: None, on_damaged), on_progress)
        mark = _LACKS_CSV + os.fsencode(fakes.absolute())
        with fake_rows(fakes, force or (stopped and (folder / GROWING).read_bytes() == mark)) as on_dropped:
            result = _write_copies(shards, folder, _Judge(criterion, on_dropped, on_damaged), on_progress, mark)
        complete_set(folder)
        return result


def _write_copies(
    shards: list[Shard],
    folder: Path,
    judge: "_Judge",
    on_progress: Callable[[int, int], None] | None,
    mark: bytes | None = None,
) -> DroppedFakes:
    """Write the copies, and, if something is to come after them, the `mark` that says so."""
    written, on_damaged = 0, judge.on_damaged
    # With `force`, no earlier copy of a shard stays, even if the shard has no video left.
    gone = [*(folder / shard.name for shard in shards), folder / GROWING]
    with write_set(folder, gone) as files:
        if mark is not None:
            files.write(GROWING, mark)
        for done, shard in enumerate(shards, start=1):
            with NoteDamage(judge.damaged, on_damaged):
                opened = open_shard(shard)
                with NoteDamage(judge.damaged, on_damaged):
                    raise_damage(opened)
                real = judge.real_records(opened)
                if real:
                    with files.open(shard.name) as copy:
                        _copy_records(copy, opened, real)
                written += bool(real)
            if on_progress:
                on_progress(done, len(shards))
        result = judge.result(len(shards), written)
        if not result.videos:
            one = shards[0].path if len(shards) == 1 else f"any of {len(shards)} files, {shards[0].path} the first"
            raise InputError(f"no record can be read from {one}; topgb data verify says why")
    return result


class _Judge:
    """Separates real videos from fakes, and keeps the deviations it saw: 8 bytes per video."""

    def __init__(self, criterion: FakeCriterion, on_dropped: Callable[[str], None], on_damaged: OnDamaged):
        self.measure, self.threshold = criterion.measure or deviations_from_records(), criterion.threshold
        self.on_dropped, self.on_damaged = on_dropped, on_damaged
        self.damaged: list[DamagedRecordError] = []
        self.deviations = array("d")
        self.unlisted = 0

    def real_records(self, opened: OpenShard) -> list[int]:
        """The numbers of a shard's records that are real videos."""
        real = []
        for record in range(len(opened)):
            with NoteDamage(self.damaged, self.on_damaged):
                video_id, deviation = self.measure(*opened.checked(record))
                if deviation is None:
                    self.unlisted += 1
                else:
                    self.deviations.append(deviation)
                if deviation is not None and deviation > self.threshold:
                    real.append(record)
                else:
                    self.on_dropped(video_id)
        return real

    def result(self, files: int, written: int) -> DroppedFakes:
        """The figures of `drop_fakes`, once all shards are done."""
        deviations = np.array(self.deviations)
        real = deviations > self.threshold
        close = np.abs(deviations - self.threshold) <= CLOSE * self.threshold
        return DroppedFakes(
            files=files,
            written=written,
            threshold=self.threshold,
            kept=spread_of(deviations[real]),
            dropped=spread_of(deviations[~real]),
            unlisted=self.unlisted,
            close=int(close.sum()),
            damaged=self.damaged,
        )


def _copy_records(copy: BinaryIO, opened: OpenShard, records: list[int]) -> None:
    """Write these records, with their framing, to `copy`."""
    for record in records:
        start = int(opened.index.offsets[record]) - HEADER_BYTES
        stop = start + HEADER_BYTES + int(opened.index.lengths[record]) + FOOTER_BYTES
        copy.write(opened.buffer[start:stop])


def _check_names(shards: list[Shard], folder: Path, force: bool) -> None:
    """Raise `InputError` if copies in `folder` would overwrite each other, the shards, or existing files."""
    names = [shard.name for shard in shards]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        one, other = [shard.path for shard in shards if shard.name == twice][:2]
        raise InputError(f"{one} and {other} have the same name; copy them into different folders, one after the other")
    place = os.path.realpath(folder)
    for shard in shards:
        if not shard.remote and os.path.dirname(os.path.realpath(shard.path)) == place:
            raise InputError(f"{shard.path} lies in {folder} itself; write the copies into another folder")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; the copies need a directory")
    for name in names:
        refuse_existing(folder / name, force, "records")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        refuse_collisions(folder, names)
    except OSError as error:
        raise write_failure(folder, error) from error
