"""Opening a large data set again: what is known of its shards is what a walk finds, whatever happens to the files."""

import gzip
import multiprocessing
import os
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from records.conftest import video
from topgb.errors import DamagedRecordError, InputError, NotRecordsError, TopgbError
from topgb.features import Feature, FeatureSpec
from topgb.progress import Progress
from topgb.records import framing_index, known_framing, known_sizes, shard_sizes
from topgb.records import shards as opening
from topgb.records.dataset import Dataset, evaluation_batches, open_dataset
from topgb.records.framing import frame_record
from topgb.records.framing_index import Stamp, index_path
from topgb.unpacked_size import set_max_unpacked

SPEC = FeatureSpec("frame", (Feature("rgb", 6), Feature("audio", 3)))
COUNTS = (5, 3, 7)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache folder; three shards are a large data set, and files settle at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(shard_sizes, "LEAST_SHARDS", 1)
    monkeypatch.setattr(known_framing, "SETTLED_NS", 0)
    known_framing._held.cache_clear()
    return tmp_path / "cache" / "topgb" / "framing"


@pytest.fixture
def walks(monkeypatch) -> list[str]:
    """The names of the shards that are walked."""
    walked: list[str] = []
    walk = opening._walk

    def noted(file, size, shard):
        walked.append(shard.name)
        return walk(file, size, shard)

    monkeypatch.setattr(opening, "_walk", noted)
    return walked


def opened(pattern: str, max_frames: int = 300, on_damaged="stop", spec: FeatureSpec = SPEC) -> Dataset:
    return open_dataset(pattern, spec, 5, max_frames, on_damaged)


def content(data: Dataset) -> tuple:
    """Everything that a reader sees of a data set."""
    batches = list(evaluation_batches(data, 4))
    ids = [each for batch in batches for each in batch.ids]
    frames = [batch.features.numpy().tobytes() for batch in batches]
    return data.fingerprint(), data.counts.tolist(), data.cut, data.most_frames, ids, frames


def records_of(path: Path) -> list[bytes]:
    """The framed records of a shard."""
    whole = opening.open_shard(opening.Shard(str(path)))
    return [frame_record(bytes(whole.data(n))) for n in range(len(whole))]


def walked_anew(pattern: str, monkeypatch, **options) -> tuple:
    """The content as a process without a cache sees it."""
    with monkeypatch.context() as patched:
        patched.setattr(shard_sizes, "LEAST_SHARDS", 1000)
        return content(opened(pattern, **options))


def test_the_second_opening_walks_nothing(shards, cache, walks, monkeypatch):
    pattern = shards(*COUNTS)
    first = content(opened(pattern))
    assert sorted(set(walks)) == ["part000.tfrecord", "part001.tfrecord", "part002.tfrecord"]
    walks.clear()
    second = opened(pattern)
    assert content(second) == content(pickle.loads(pickle.dumps(second))) == first
    assert walks == []
    assert first == walked_anew(pattern, monkeypatch)
    assert len(list(cache.iterdir())) == 1


def test_only_new_shards_are_walked(shards, cache, walks, tmp_path):
    pattern = shards(*COUNTS)
    opened(pattern)
    shutil.copy(tmp_path / "part001.tfrecord", tmp_path / "part003.tfrecord")
    (tmp_path / "part000.tfrecord").unlink()
    walks.clear()
    assert opened(pattern).counts.tolist() == [3, 7, 3]
    assert walks == ["part003.tfrecord"]
    walks.clear()
    opened(f"{tmp_path}/part002*")
    assert opened(pattern).counts.tolist() == [3, 7, 3]
    assert walks == []
    assert "part000.tfrecord" not in framing_index.read_index(os.path.realpath(tmp_path)).rows


def _touch(path: Path) -> None:
    os.utime(path)


def _grow(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(frame_record(video(99, 4, [1])[1]))


def _shorten(path: Path) -> None:
    """Cut the last record off, so that what is left is whole."""
    index = opening.open_shard(opening.Shard(str(path))).index
    os.truncate(path, int(index.offsets[-1]) - 12)


def _swap_keeping_times(path: Path) -> None:
    """Records of the same total size, in another order, in a new file with the old times."""
    status = os.stat(path)
    beside = path.with_suffix(".new")
    beside.write_bytes(b"".join(reversed(records_of(path))))
    os.utime(beside, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(beside, path)


def _overwrite_keeping_times(path: Path) -> None:
    """The same in place: only the time of change tells."""
    status, inode = os.stat(path), os.stat(path).st_ino
    copy = path.with_suffix(".copy")
    shutil.copy(path, copy)
    _swap_keeping_times(copy)
    with open(path, "r+b") as file:
        file.write(copy.read_bytes())
    copy.unlink()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert os.stat(path).st_ino == inode


CHANGES = [_touch, _grow, _shorten, _swap_keeping_times, _overwrite_keeping_times]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_shard_is_walked_again(shards, cache, walks, monkeypatch, tmp_path, change):
    pattern = shards(*COUNTS)
    opened(pattern)
    # The kernel's clock ticks every few milliseconds; a real shard has settled for ten seconds before it is kept.
    time.sleep(0.02)
    change(tmp_path / "part002.tfrecord")
    walks.clear()
    found = content(opened(pattern))
    assert set(walks) == {"part002.tfrecord"}
    assert found == walked_anew(pattern, monkeypatch)


def test_a_cut_shard_is_an_error_each_time(shards, cache, tmp_path, monkeypatch):
    pattern = shards(*COUNTS)
    opened(pattern)
    os.truncate(tmp_path / "part001.tfrecord", 100)
    for _ in range(2):
        with pytest.raises(DamagedRecordError, match="part001.*cut off"):
            opened(pattern)
        assert content(opened(pattern, on_damaged="skip")) == walked_anew(pattern, monkeypatch, on_damaged="skip")


def test_a_shard_that_was_just_written_is_not_kept(shards, cache, walks, monkeypatch):
    monkeypatch.setattr(known_framing, "SETTLED_NS", 10_000_000_000)
    pattern = shards(*COUNTS)
    opened(pattern)
    opened(pattern)
    assert len(walks) == 2 * len(COUNTS)
    assert not list(cache.glob("*.index"))


@pytest.fixture
def dull_clock(monkeypatch) -> None:
    """A file system that tells of a file no more than its size."""
    monkeypatch.setattr(Stamp, "of", classmethod(lambda cls, found: cls(found.st_size, 1, 1, 1)))


@pytest.mark.parametrize("change", [_swap_keeping_times, _overwrite_keeping_times])
def test_no_wrong_record_even_if_no_stamp_tells(shards, cache, monkeypatch, tmp_path, dull_clock, change):
    pattern = shards(*COUNTS)
    opened(pattern)
    change(tmp_path / "part002.tfrecord")
    # At opening, by the headers of a sample.
    assert content(opened(pattern)) == walked_anew(pattern, monkeypatch)


def test_records_that_moved_are_noticed_when_they_are_read(shards, cache, monkeypatch, tmp_path, dull_clock):
    """The first and the last record are as they were, and those between have changed places."""
    pattern = shards(*COUNTS)
    opened(pattern)
    path = tmp_path / "part002.tfrecord"
    found = records_of(path)
    path.write_bytes(b"".join([found[0], *reversed(found[1:-1]), found[-1]]))
    stale = opened(pattern)
    with pytest.raises(InputError, match=r"part002\.tfrecord holds other records than .* start again"):
        content(stale)
    assert content(opened(pattern)) == walked_anew(pattern, monkeypatch)


def test_a_damaged_record_of_a_known_shard_is_a_damaged_record(shards, cache, tmp_path, damage, dull_clock):
    pattern = shards(*COUNTS)
    opened(pattern)
    damage(tmp_path / "part001.tfrecord", -8)
    with pytest.raises(DamagedRecordError, match="part001.*record 2.*does not match its CRC"):
        content(opened(pattern))
    data = opened(pattern, on_damaged="skip")
    assert sum(len(batch) for batch in evaluation_batches(data, 4)) == sum(COUNTS) - 1


def test_a_damaged_index_is_made_anew(shards, cache, monkeypatch):
    pattern = shards(*COUNTS)
    right = content(opened(pattern))
    (path,) = cache.glob("*.index")
    whole = path.read_bytes()
    spoiled = [whole[:cut] for cut in (0, 7, 30, len(whole) // 2, len(whole) - 1)]
    spoiled += [b"", whole + b"\0", bytes(len(whole)), b"\xff" * len(whole)]
    for place in range(0, len(whole), 13):
        spoiled.append(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
    for raw in spoiled:
        path.write_bytes(raw)
        assert content(opened(pattern)) == right
    opened(pattern)
    assert path.read_bytes()[:8] == whole[:8]


@pytest.mark.parametrize("fault", ["no folder", "full", "no lock"])
def test_a_cache_that_cannot_be_written_fails_nothing(shards, cache, walks, monkeypatch, tmp_path, fault):
    def full(*arguments):
        raise TopgbError("cannot write: No space left on device")

    if fault == "no folder":
        (tmp_path / "cache").write_text("a file")
    elif fault == "full":
        monkeypatch.setattr(known_framing, "write_index", full)
    else:
        monkeypatch.setattr(known_framing, "lock", lambda descriptor: None)
    pattern = shards(*COUNTS)
    first = content(opened(pattern))
    assert content(opened(pattern)) == first == walked_anew(pattern, monkeypatch)


def test_a_copy_elsewhere_has_an_index_of_its_own(shards, cache, walks, tmp_path):
    pattern = shards(*COUNTS)
    opened(pattern)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in tmp_path.glob("*.tfrecord"):
        shutil.copy2(path, elsewhere)
    walks.clear()
    opened(f"{elsewhere}/*")
    assert len(walks) == len(COUNTS)
    assert len(list(cache.glob("*.index"))) == 2
    (tmp_path / "link").symlink_to(elsewhere)
    walks.clear()
    opened(f"{tmp_path}/link/*")
    assert walks == []
    # The index of one folder under the name of another.
    shutil.copy(index_path(os.path.realpath(elsewhere)), index_path(os.path.realpath(tmp_path)))
    opened(pattern)
    assert len(walks) == len(COUNTS)


def test_gzipped_shards_are_unpacked_when_they_are_read(shards, cache, monkeypatch, tmp_path):
    pattern = shards(*COUNTS)
    for path in tmp_path.glob("*.tfrecord"):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    right = walked_anew(f"{pattern}.gz", monkeypatch)
    assert content(opened(f"{pattern}.gz")) == right
    with monkeypatch.context() as patched:
        patched.setattr(opening, "_unpack_gzip", None)
        again = opened(f"{pattern}.gz")
    assert content(again) == right
    set_max_unpacked(100)
    try:
        with pytest.raises(InputError, match="unpacks to more than 100"):
            opened(f"{pattern}.gz")
    finally:
        set_max_unpacked(None)


def test_cut_videos_are_counted_for_each_limit(shards, cache, walks, monkeypatch):
    pattern = shards(*COUNTS)
    for limit in (300, 3, 3, 5, 300):
        found = opened(pattern, limit)
        assert found.cut == opened(pattern, limit).cut
        with monkeypatch.context() as patched:
            patched.setattr(shard_sizes, "LEAST_SHARDS", 1000)
            assert found.cut == opened(pattern, limit).cut
        assert (found.cut.videos > 0) == (limit < 7)


def test_a_file_without_records_is_an_error_each_time(shards, cache, tmp_path):
    pattern = shards(*COUNTS)
    (tmp_path / "part003.tfrecord").write_bytes(b"id,labels\n" * 20)
    (tmp_path / "part004.tfrecord").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(NotRecordsError, match="part003"):
            opened(pattern)
        (tmp_path / "part003.tfrecord").unlink(missing_ok=True)
        with pytest.raises(DamagedRecordError, match="part004.*empty"):
            opened(pattern)
        assert opened(pattern, on_damaged="skip").counts.tolist() == [*COUNTS, 0]
        (tmp_path / "part003.tfrecord").write_bytes(b"id,labels\n" * 20)


def _open_in_process(pattern: str, barrier, results) -> None:
    walked = []
    walk = opening._walk
    opening._walk = lambda file, size, shard: walked.append(shard.name) or walk(file, size, shard)
    barrier.wait(20)
    data = opened(pattern)
    results.put((len(walked), data.fingerprint()))


def test_processes_that_open_at_once_walk_each_shard_once(shards, cache):
    pattern = shards(*COUNTS, *range(1, 30))
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_open_in_process, args=(pattern, barrier, results)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(walked for walked, _ in found) == [0, 0, 32]
    assert found[0][1] == found[1][1] == found[2][1]


class Heard(Progress):
    def __init__(self):
        self.heard: list = []

    def begin(self, what, total, unit, done=0):
        self.heard.append((what, total, unit))
        self.done = done

    def advance(self, count, note=""):
        self.done += count

    def end(self):
        self.heard.append(self.done)

    def say(self, line):
        self.heard.append(line)


def test_a_long_walk_shows_progress(shards, cache, monkeypatch):
    monkeypatch.setattr(known_sizes, "QUIET_SECONDS", -1.0)
    heard = Heard()
    open_dataset(shards(*COUNTS), SPEC, 5, 300, progress=heard)
    assert heard.heard == [("looking for the records", 3, "files"), 3]


def test_a_walk_is_kept_on_the_way(shards, cache, walks, monkeypatch):
    monkeypatch.setattr(known_sizes, "KEEP_SECONDS", -1.0)
    monkeypatch.setattr(known_sizes, "THREADS", 1)
    keep, kept = known_sizes.keep, []

    def stopped(folder, new, old):
        keep(folder, new, old)
        kept.append(len(new))
        if len(kept) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(known_sizes, "keep", stopped)
    pattern = shards(*COUNTS)
    with pytest.raises(KeyboardInterrupt):
        opened(pattern)
    walks.clear()
    monkeypatch.setattr(known_sizes, "keep", keep)
    opened(pattern)
    assert len(walks) == len(COUNTS) - 2


def test_nobody_waits_for_ever(cache, monkeypatch, tmp_path):
    lock = index_path(os.path.realpath(tmp_path)).with_suffix(".lock")
    lock.parent.mkdir(parents=True)
    descriptor = known_framing._locked(lock)
    ticks = iter(np.arange(0, 1000, 1.5).tolist())
    monkeypatch.setattr(known_framing.time, "monotonic", lambda: next(ticks))
    monkeypatch.setattr(known_framing, "PATIENCE", 5.0)
    heard = Heard()
    with known_framing.one_walker(os.path.realpath(tmp_path), heard):
        assert heard.heard == [f"waiting for another process that looks for the records in {tmp_path}"]
    monkeypatch.undo()
    assert lock.exists()
    os.close(descriptor)


def test_old_indexes_give_way(shards, cache, monkeypatch, tmp_path):
    pattern = shards(*COUNTS)
    paths = {folder: index_path(os.path.realpath(folder)) for folder in (tmp_path / name for name in "abc")}
    for age, (folder, path) in enumerate(paths.items()):
        folder.mkdir()
        for shard in tmp_path.glob("*.tfrecord"):
            shutil.copy(shard, folder)
        opened(f"{folder}/*")
        os.utime(path, (1000 + age, 1000 + age))
    opened(f"{tmp_path}/a/*")
    monkeypatch.setattr(known_framing, "MOST_BYTES", 3 * path.stat().st_size)
    opened(pattern)
    del paths[tmp_path / "b"]
    assert {*cache.glob("*.index")} == {index_path(os.path.realpath(tmp_path)), *paths.values()}


def test_small_data_sets_leave_no_trace(shards, cache, monkeypatch):
    monkeypatch.setattr(shard_sizes, "LEAST_SHARDS", 64)
    content(opened(shards(*COUNTS)))
    assert not cache.exists()
