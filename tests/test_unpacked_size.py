"""Small files that unpack to large ones: refused within little memory, and read if their size is allowed."""

import gzip
import io
import zipfile
import zlib

import numpy as np
import pytest

from cli import program
from conftest import SHARED, SMALL_CLASSES, SMALL_SPEC
from fuzz.hostile import needs_limits, refused
from topgb import unpacked_size
from topgb.csv_rows import csv_rows
from topgb.errors import InputError, NotRecordsError
from topgb.packing.arrays import read_arrays
from topgb.packing.parquet import count_rows, read_rows
from topgb.records.framing import MOST_HOLLOW, frame_record
from topgb.records.shards import find_shards, open_shard
from topgb.records.synth import write_synthetic
from topgb.records.verify import verify_shards
from topgb.unpacked_size import parse_size, set_max_unpacked

MB = 1 << 20


@pytest.fixture
def small_bound(monkeypatch):
    """Files may unpack to 2 MB instead of 1 GiB, or to 20 times their size."""
    monkeypatch.setattr(unpacked_size, "LEAST_BYTES", 2 * MB)


@pytest.fixture(autouse=True)
def _unbounded_after():
    yield
    set_max_unpacked(None)


def _zeros(size: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([packer.compress(bytes(MB)) for _ in range(size // MB)]) + packer.flush()


CONTENTS = {
    "zeros": lambda: _zeros(3 * MB),
    "empty records": lambda: gzip.compress(frame_record(b"") * (3 * MB // 16), mtime=0),
    "many members": lambda: gzip.compress(bytes(MB), mtime=0) * 3,
    "lines": lambda: gzip.compress((b"x" * 99_999 + b"\n") * 10, mtime=0) * 3,
}


@pytest.mark.parametrize("content", CONTENTS)
def test_gzip_as_a_shard_and_as_a_csv(content, small_bound, tmp_path):
    for name, read in (
        ("a.tfrecord", lambda path: verify_shards(str(path))),
        ("a.csv.gz", lambda path: list(csv_rows(path))),
    ):
        path = tmp_path / name
        path.write_bytes(CONTENTS[content]())
        with pytest.raises(InputError) as caught:
            read(path)
        assert "unpacks to more than 2,097,152" in str(caught.value) or "longer than" in str(caught.value)


def test_a_shard_is_read_if_it_is_allowed_to(small_bound, tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(_zeros(3 * MB))
    set_max_unpacked(4 * MB)
    allowed = find_shards(str(path))[0]
    set_max_unpacked(None)
    # The bound goes with the shard, to the processes that open it.
    with pytest.raises(NotRecordsError, match="zeros alone"):
        open_shard(allowed)
    with pytest.raises(InputError, match="max_unpacked='6M'"):
        open_shard(find_shards(str(path))[0])


def test_the_command_line_says_how_to_allow_it(small_bound, tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(_zeros(3 * MB))
    done = program.topgb("data", "verify", path)
    assert done.returncode == 2
    assert "allow more with --max-unpacked 6M" in done.stderr
    assert program.topgb("data", "verify", path, "--max-unpacked", "6M").returncode == 1
    assert program.topgb("data", "inspect", path).returncode == 2
    assert program.topgb("data", "verify", path, "--max-unpacked", "much").returncode == 2


def test_packed_records_of_every_size_are_read(small_bound, tmp_path):
    write_synthetic(tmp_path, SMALL_SPEC, SMALL_CLASSES, 40)
    for path in tmp_path.glob("*.tfrecord"):
        path.write_bytes(gzip.compress(path.read_bytes() * 8, mtime=0))
    assert not verify_shards(str(tmp_path / "*.tfrecord")).damaged


def test_millions_of_empty_records(tmp_path):
    path = tmp_path / "a.tfrecord"
    for payload in (b"", b"\0"):
        path.write_bytes(frame_record(payload) * (MOST_HOLLOW + 5))
        opened = open_shard(find_shards(str(path))[0])
        assert len(opened) == MOST_HOLLOW
        assert "too short to hold a video" in opened.damage.reason


def _npz(path, arrays: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in arrays.items():
            archive.writestr(name + ".npy", content)
    return path


def _npy(shape: tuple[int, ...], dtype: str, values: int) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(values * np.dtype(dtype).itemsize)


@needs_limits
@pytest.mark.parametrize("version", [1, 2])
def test_a_header_of_blanks(version, tmp_path):
    length = (65_535).to_bytes(2, "little") if version == 1 else (70 * MB).to_bytes(4, "little")
    for name, path in (("npz", tmp_path / "a.npz"), ("npy", tmp_path / "a.npy")):
        content = b"\x93NUMPY" + bytes((version, 0)) + length + b" " * int.from_bytes(length, "little")
        if name == "npz":
            _npz(path, {"rgb": content})
        else:
            path.write_bytes(content)
        del content
        refused(lambda path=path: read_arrays(str(path), "rgb"), 0, "header has")


@pytest.mark.parametrize(("shape", "dtype"), [((700, 1000), "<f4"), ((350_000,), "<f8"), ((3, 1_000_000), "|u1")])
def test_values_of_an_archive(shape, dtype, small_bound, tmp_path):
    path = _npz(tmp_path / "a.npz", {"rgb": _npy(shape, dtype, int(np.prod(shape)))})
    with pytest.raises(InputError, match="unpacks to more than"):
        read_arrays(str(path), "rgb")
    set_max_unpacked(4 * MB)
    assert read_arrays(str(path), "rgb").features["rgb"].shape == shape


def test_arrays_of_an_archive_count_together(small_bound, tmp_path):
    arrays = {name: _npy((10, 30_000), "<f4", 300_000) for name in "ab"}
    with pytest.raises(InputError, match="unpacks to more than"):
        read_arrays(str(_npz(tmp_path / "a.npz", arrays)), "rgb")


def test_archives_of_other_methods(tmp_path):
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = _npz(tmp_path / "a.npz", {"rgb": _npy((2, 3), "<f4", 6)}, method)
        with pytest.raises(InputError, match="compressed in another way"):
            read_arrays(str(path), "rgb")


@pytest.mark.parametrize("level", ["frames", "videos"])
@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_parquet(level, codec, small_bound, tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    values = pa.array(np.zeros(600_000, np.float32))
    lists = pa.ListArray.from_arrays(pa.array([0, 600_000], pa.int32()), values)
    if level == "frames":
        rows = pa.FixedSizeListArray.from_arrays(values, 1000)
        lists = pa.ListArray.from_arrays(pa.array([0, 600], pa.int32()), rows)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ["a"], "rgb": lists}), path, compression=codec)
    assert path.stat().st_size < 10_000
    for read in (count_rows, lambda path: list(read_rows(path))):
        with pytest.raises(InputError, match="unpacks to more than"):
            read(str(path))
    set_max_unpacked(parse_size("1G"))
    assert len(list(read_rows(str(path)))) == 1


@needs_limits
def test_a_table_of_a_kilobyte():
    pytest.importorskip("pyarrow")
    path = SHARED / "cases" / "hostile" / "bomb.parquet"
    if not path.is_file():
        pytest.skip("the cases (../shared/cases beside the checkout) are absent")
    with pytest.raises(InputError, match="unpacks to more than 1,073,741,824"):
        count_rows(str(path))
    done = program.topgb("data", "pack", path, "--out", "never")
    assert done.returncode == 2
    assert "--max-unpacked" in done.stderr


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("2K", 2048), ("1.5g", 3 << 29), ("8GiB", 8 << 30), ("3 MB", 3 * MB)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1G", "nan", "inf", "1e400", "G", "1X", "1 2"])
def test_sizes_that_are_none(text):
    with pytest.raises(InputError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        np._core._exceptions._ArrayMemoryError((1 << 40,), np.dtype("f4")),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 205.00 GiB"),
    ],
    ids=["Python", "NumPy", "PyTorch", "CUDA"],
)
def test_lack_of_memory_is_one_sentence(error, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("topgb.records.verify.verify_shards", fail)
    done = program.topgb("data", "verify", "x.tfrecord")
    assert done.returncode == 1
    assert done.stderr.startswith("topgb: there is not enough memory (")
    assert done.stderr.count("\n") == 1
