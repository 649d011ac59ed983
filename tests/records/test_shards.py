import errno
import gzip
import os
import pickle
import struct
import tempfile
import zipfile

import fsspec
import pytest

from topgb.errors import DamagedRecordError, InputError, TopgbError
from topgb.records.framing import frame_record
from topgb.records.shards import Shard, ShardCache, find_shards, open_shard

DATA = b"".join(frame_record(b"record %d" % number) for number in range(100))


def names(pattern):
    return [shard.name for shard in find_shards(pattern)]


@pytest.fixture
def folder(tmp_path):
    for name in ("b1.tfrecord", "a2.tfrecord", "a1.tfrecord", "deep/er/c.tfrecord"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(DATA)
    return tmp_path


def test_patterns(folder):
    assert names(f"{folder}/a1.tfrecord") == ["a1.tfrecord"]
    assert names(f"{folder}/*.tfrecord") == ["a1.tfrecord", "a2.tfrecord", "b1.tfrecord"]
    assert names(f"{folder}/**/*.tfrecord") == ["a1.tfrecord", "a2.tfrecord", "b1.tfrecord", "c.tfrecord"]
    assert names(f"{folder}/b*, {folder}/a1.tfrecord") == ["a1.tfrecord", "b1.tfrecord"]
    assert names([f"{folder}/a*", f"{folder}/a1*"]) == ["a1.tfrecord", "a2.tfrecord"]
    (folder / "link.tfrecord").symlink_to(folder / "a1.tfrecord")
    twice = find_shards(f"{folder}/a1.tfrecord,{folder}/./a1.tfrecord,{folder}/deep/../a1.tfrecord,{folder}/link*")
    assert [shard.path for shard in twice] == [f"{folder}/a1.tfrecord"]
    assert names(f"file://{folder}/a?.tfrecord") == ["a1.tfrecord", "a2.tfrecord"]


def test_a_name_with_glob_signs_and_commas_is_a_name(tmp_path):
    path = tmp_path / "odd[1],*.tfrecord"
    path.write_bytes(DATA)
    assert names(str(path)) == [path.name]
    assert names([str(path)]) == [path.name]


@pytest.mark.parametrize("pattern", ["{}/none*", "{}/none.tfrecord", "memory://nowhere/*", "memory://nowhere/x"])
def test_nothing_matches(folder, pattern):
    pattern = pattern.format(folder)
    with pytest.raises(InputError, match="no file matches") as caught:
        find_shards(pattern)
    assert pattern in str(caught.value)


@pytest.mark.parametrize("pattern", ["", " , ", []])
def test_nothing_named(pattern):
    with pytest.raises(InputError, match="no records were named"):
        find_shards(pattern)


@pytest.mark.parametrize("pattern", ["{}", "{}/", "file://{}", "{}/deep/e*"])
def test_a_folder_stands_for_its_records(folder, pattern):
    (folder / "vocabulary.csv").write_text("Index,Name\n")
    (folder / ".hidden.tfrecord").write_bytes(DATA)
    (folder / "b2.tfrecord.gz").write_bytes(gzip.compress(DATA))
    expected = ["c.tfrecord"] if "deep" in pattern else ["a1.tfrecord", "a2.tfrecord", "b1.tfrecord", "b2.tfrecord.gz"]
    assert names(pattern.format(folder)) == expected


def test_a_folder_without_records(folder):
    with pytest.raises(InputError, match=r"deep holds no \*.tfrecord or \*.tfrecord.gz"):
        find_shards(f"{folder}/deep")


@pytest.mark.parametrize("pattern", ["{folder}", "{folder}/*", "{folder}/a.tfrecord,{folder}/a.tfrecord.gz"])
def test_a_file_beside_its_gzipped_form(tmp_path, pattern):
    for name in ("a.tfrecord", "a.tfrecord.gz", "b.tfrecord"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.tfrecord\.gz is beside the same file unpacked, and would count twice"):
        find_shards(pattern.format(folder=tmp_path))
    assert len(find_shards(str(tmp_path / "*.tfrecord"))) == 2


def test_signs_of_a_glob_in_a_folder_that_exists_are_its_name(tmp_path):
    for place in ("run [1]", "run 1", "a,b*"):
        (tmp_path / place).mkdir()
        (tmp_path / place / f"{place[-2]}.tfrecord").write_bytes(DATA)
    assert names(f"{tmp_path}/run [1]/*.tfrecord") == ["1.tfrecord"]
    assert names(f"{tmp_path}/run [1]") == ["1.tfrecord"]
    assert names(f"{tmp_path}/a,b*/*.tfrecord") == ["b.tfrecord"]
    assert names(f"{tmp_path}/run ?/*.tfrecord") == [" .tfrecord"]


def test_unknown_protocol():
    with pytest.raises(InputError, match="nosuch"):
        find_shards("nosuch://x/y")


def test_shards_pickle(folder):
    shards = find_shards(f"{folder}/*.tfrecord")
    assert pickle.loads(pickle.dumps(shards)) == shards


def check(opened):
    assert len(opened) == 100
    assert opened.damage is None
    assert bytes(opened.data(99)) == b"record 99"


def test_open_plain_and_gzip_whatever_the_name(tmp_path):
    plain, packed = tmp_path / "plain.gz", tmp_path / "packed.tfrecord"
    plain.write_bytes(DATA)
    packed.write_bytes(gzip.compress(DATA))
    check(open_shard(Shard(str(plain))))
    check(open_shard(Shard(str(packed))))


def test_a_record_length_like_gzips_magic_is_no_gzip(tmp_path):
    payload = bytes(struct.unpack("<I", b"\x1f\x8b\x00\x00")[0])
    path = tmp_path / "x.tfrecord"
    path.write_bytes(frame_record(payload))
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    assert len(open_shard(Shard(str(path)))) == 1


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_remote(pack):
    system = fsspec.filesystem("memory")
    for name in ("b", "a"):
        system.pipe(f"/topgb-test/{name}.tfrecord", pack(DATA))
    shards = find_shards("memory://topgb-test/*.tfrecord")
    assert [shard.name for shard in shards] == ["a.tfrecord", "b.tfrecord"]
    for shard in [*shards, *find_shards("memory://topgb-test/a.tfrecord")]:
        check(open_shard(shard))
    assert find_shards("memory://topgb-test") == find_shards("memory://topgb-test/") == shards
    shards = find_shards("memory://topgb-test/a.tfrecord")
    system.rm("/topgb-test", recursive=True)
    with pytest.raises(InputError, match="no file matches"):
        open_shard(shards[0])


def test_chained_url(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("in/a.tfrecord", DATA)
        archive.writestr("in/b.tfrecord", DATA)
    shards = find_shards(f"zip://in/*.tfrecord::{tmp_path}/set.zip")
    assert len(shards) == 2
    check(open_shard(shards[1]))


def test_cut_gzip_keeps_its_beginning(tmp_path):
    path = tmp_path / "cut.tfrecord"
    noise = os.urandom(3000)
    packed = gzip.compress(b"".join(frame_record(noise + bytes([n])) for n in range(50)), 1)
    path.write_bytes(packed[: len(packed) // 2])
    opened = open_shard(Shard(str(path)))
    assert "gzip" in opened.damage.reason
    assert opened.damage.record == len(opened)


def test_empty_and_vanished_and_odd_files(tmp_path):
    path = tmp_path / "x.tfrecord"
    with pytest.raises(InputError, match=r"cannot read .*x\.tfrecord: No such file"):
        open_shard(Shard(str(path)))
    path.write_bytes(b"")
    with pytest.raises(DamagedRecordError, match="empty"):
        open_shard(Shard(str(path)))
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(DamagedRecordError, match="empty"):
        open_shard(Shard(str(path)))
    with pytest.raises(InputError, match="is a device, not a file; save what it gives as a file"):
        open_shard(Shard("/dev/null"))


def test_full_temporary_folder(tmp_path, monkeypatch):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(gzip.compress(DATA))

    class Full:
        def write(self, chunk):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **settings: Full())
    with pytest.raises(TopgbError, match=r"No space left on device.*TMPDIR") as caught:
        open_shard(Shard(str(path)))
    assert caught.value.exit_code == 1


def test_cache_frees_what_it_evicts(folder):
    before = len(os.listdir("/proc/self/fd"))
    cache = ShardCache(limit=2)
    for shard in find_shards(f"{folder}/**/*.tfrecord") * 2:
        check(cache.get(shard))
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    assert cache.get(find_shards(f"{folder}/**/c*")[0]) is cache.get(find_shards(f"{folder}/**/c*")[0])
    assert len(pickle.loads(pickle.dumps(cache))._open) == 0


def test_braces_are_the_shells_alone(tmp_path):
    (tmp_path / "a1.tfrecord").touch()
    with pytest.raises(InputError, match="only the shell knows braces .*; name several patterns with commas"):
        find_shards(f"{tmp_path}/a{{1,2}}.tfrecord")
