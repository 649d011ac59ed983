"""A user's own features in Parquet tables."""

import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from topgb.errors import InputError, TopgbError
from topgb.features import Feature, FeatureSpec
from topgb.packing.pack import PackOptions, pack
from topgb.packing.parquet import count_rows, read_rows
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.description import find_description
from topgb.unpacked_size import set_max_unpacked
from topgb.vocabulary import read_vocabulary

pa = pytest.importorskip("pyarrow", reason="pyarrow (the extra topgb[parquet]) is absent")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow (the extra topgb[parquet]) is absent")

WIDTH = 4


def _write(path: Path, columns: dict, **options) -> None:
    pq.write_table(pa.table(columns), path, **options)


def _frames(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(1 + number % 3, WIDTH)).astype(np.float32)


def _columns(*numbers: int) -> dict:
    return {
        "id": pa.array([f"v{number}" for number in numbers]),
        "clip": pa.array([_frames(number).tolist() for number in numbers], pa.list_(pa.list_(pa.float32()))),
    }


def _read(folder: Path) -> dict[str, tuple[np.ndarray, list[int]]]:
    described = find_description(f"{folder}/*.tfrecord")
    data = open_dataset(f"{folder}/*.tfrecord", described.spec, described.classes, 300)
    found = {}
    for batch in evaluation_batches(data, 8):
        for row, video_id in enumerate(batch.ids):
            values = batch.features[row, : batch.num_frames[row]].numpy()
            found[video_id] = values, batch.labels[row].nonzero()[:, 0].tolist()
    return found


def test_tables_of_frames_in_the_order_of_files_and_rows(tmp_path):
    labels = pa.array([["dog", "cat"], ["cat"], []])
    _write(tmp_path / "b.parquet", {**_columns(0), "labels": pa.array([["cat", " cat", ""]])})
    _write(tmp_path / "a.parquet", {"labels": labels, **_columns(9, 5, 7)}, row_group_size=1)
    (tmp_path / "_SUCCESS").write_bytes(b"")
    packed = pack(str(tmp_path), tmp_path / "p", options=PackOptions(store="float32"))
    assert packed.description.spec == FeatureSpec("frame", (Feature("clip", WIDTH, "float32"),))
    assert read_vocabulary(tmp_path / "p/vocabulary.csv") == ("cat", "dog")
    found = _read(tmp_path / "p")
    assert list(found) == ["v9", "v5", "v7", "v0"]
    assert [classes for _, classes in found.values()] == [[0, 1], [0], [], [0]]
    for video_id, (values, _) in found.items():
        assert np.array_equal(values, _frames(int(video_id[1:])))


def test_more_rows_than_are_read_at_a_time(tmp_path):
    _write(tmp_path / "a.parquet", {**_columns(*range(150)), "labels": pa.array(["x"] * 150)})
    packed = pack(
        str(tmp_path / "a.parquet"), tmp_path / "p", options=PackOptions(store="float32", videos_per_shard=40)
    )
    assert packed.train == 150
    found = _read(tmp_path / "p")
    assert list(found) == [f"v{number}" for number in range(150)]
    assert all(np.array_equal(values, _frames(int(key[1:]))) for key, (values, _) in found.items())


@pytest.mark.parametrize(
    ("kind", "values", "spec"),
    [
        (lambda n: pa.list_(n), [1.5, -2.0], Feature("x", 2, "float32")),
        (lambda n: pa.large_list(n), [1.5, -2.0], Feature("x", 2, "float32")),
        (lambda n: pa.list_(n, 2), [1.5, -2.0], Feature("x", 2, "float32")),
        (lambda n: pa.list_(pa.list_(n, 2), 3), [[1.5, -2.0]] * 3, Feature("x", 2, "float32")),
        (lambda n: pa.large_list(pa.list_(n, 2)), [[1.5, -2.0]] * 3, Feature("x", 2, "float32")),
    ],
)
@pytest.mark.parametrize("number", ["float16", "float32", "float64"])
def test_every_kind_of_list(tmp_path, kind, values, spec, number):
    column = pa.array([values, values], kind(getattr(pa, number)()))
    # A slice must not show what lies before it.
    table = pa.table({"id": pa.array([7, 8]), "x": column, "labels": pa.array(["a;b", "a"])})
    pq.write_table(table, tmp_path / "a.parquet")
    packed = pack(str(tmp_path / "a.parquet"), tmp_path / "p", options=PackOptions(store="float32"))
    assert packed.description.spec.features == (spec,)
    found = _read(tmp_path / "p")
    assert list(found) == ["7", "8"]
    assert found["8"][0].tolist() == np.atleast_2d(values).tolist()
    assert found["7"][1] == [0, 1]


def test_bytes_and_labels_from_a_csv(tmp_path):
    _write(tmp_path / "a.parquet", {"id": ["x"], "rgb": pa.array([[[1, 255]]], pa.list_(pa.list_(pa.uint8())))})
    (tmp_path / "l.csv").write_text("id,labels\nx,cat\n")
    packed = pack(
        str(tmp_path / "a.parquet"), tmp_path / "p", tmp_path / "l.csv", options=PackOptions(ranges={None: (0.0, 1.0)})
    )
    assert packed.description.spec == FeatureSpec("frame", (Feature("rgb", 2, range=(0.0, 1.0)),))
    assert _read(tmp_path / "p")["x"][0].tolist() == [[1, 255]]


NUMBERS = pa.list_(pa.float32())
FRAMES = pa.list_(NUMBERS)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"x": pa.array([[1.0]])}, "no column 'id'"),
        ({"id": pa.array([1.5]), "x": pa.array([[1.0]])}, "the column 'id' holds double; ids are strings or integers"),
        ({"id": pa.array([None], pa.string()), "x": pa.array([[1.0]])}, "row 0 has no id"),
        ({"id": [""], "x": pa.array([[1.0]])}, "has an empty id"),
        ({"id": ["a"]}, "row 0 \\(id 'a'\\) holds no feature"),
        ({"id": ["a"], "x": [1.0]}, "the column 'x' holds double; .*leave the column out"),
        ({"id": ["a"], "x": ["text"]}, "the column 'x' holds string"),
        ({"id": ["a"], "x": pa.array([[1]])}, "'x' holds int64; save it as float32"),
        ({"id": ["a"], "x": pa.array([["b"]])}, "'x' holds"),
        ({"id": ["a"], "x": pa.array([[[[1.0]]]])}, "'x' holds"),
        ({"id": ["a"], "a.b": pa.array([[1.0]])}, "no dot"),
        ({"id": ["a"], "predictions": pa.array([[1.0]])}, "no feature can be called 'predictions'"),
        ({"id": ["a"], "x": pa.array([None], NUMBERS)}, "row 0 \\(id 'a'\\): feature 'x' has empty"),
        ({"id": ["a"], "x": pa.array([[1.0, None]])}, "'x' has empty \\(null\\) values"),
        ({"id": ["a"], "x": pa.array([[[1.0], None]])}, "'x' has empty \\(null\\) values"),
        ({"id": ["a"], "x": pa.array([[[1.0], [None]]])}, "'x' has empty \\(null\\) values"),
        ({"id": ["a"], "x": pa.array([[[1.0], [1.0, 2.0]]])}, "frames of 1 to 2 values"),
        ({"id": ["a"], "x": pa.array([[]], FRAMES)}, "no frames"),
        ({"id": ["a"], "x": pa.array([[[]]], FRAMES)}, "no values"),
        ({"id": ["a"], "x": pa.array([[]], NUMBERS)}, "no values"),
        ({"id": ["a"], "x": pa.array([[float("inf")]])}, "not finite"),
        (
            {"id": ["a", "b"], "x": pa.array([[1.0], [1.0, 2.0]])},
            "row 1 \\(id 'b'\\): feature 'x' is 2 wide, in .*row 0",
        ),
        ({"id": ["a", "a"], "x": pa.array([[1.0], [1.0]])}, "row 1 \\(id 'a'\\): the id 'a' occurs twice"),
        ({"id": [1, 1], "x": pa.array([[1.0], [1.0]])}, "the id '1' occurs twice"),
        ({"id": ["a"], "x": pa.array([[1.0]]), "labels": pa.array([3])}, "the column 'labels' holds int64"),
        ({"id": ["a"], "x": pa.array([[1.0]]), "labels": pa.array([[3]])}, "labels are class names"),
        ({"id": ["a"], "x": pa.array([[1.0]]), "labels": pa.array([None], pa.string())}, "has no labels \\(null\\)"),
        ({"id": ["a"], "x": pa.array([[1.0]]), "labels": pa.array([["c", None]])}, "has no label \\(null\\)"),
        ({"id": pa.array([], pa.string()), "x": pa.array([], NUMBERS)}, "no rows"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, columns, words):
    _write(tmp_path / "a.parquet", columns)
    with pytest.raises(InputError, match=words) as raised:
        pack(str(tmp_path / "a.parquet"), tmp_path / "p")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "p").exists()


def test_a_column_twice(tmp_path):
    schema = pa.schema([("id", pa.string()), ("x", NUMBERS), ("x", NUMBERS)])
    pq.write_table(pa.table([["a"], [[1.0]], [[1.0]]], schema=schema), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has the column 'x' twice"):
        pack(str(tmp_path / "a.parquet"), tmp_path / "p")


def test_labels_twice_and_labels_in_some_tables_only(tmp_path):
    (tmp_path / "l.csv").write_text("id,labels\nv0,cat\n")
    _write(tmp_path / "a.parquet", {**_columns(0), "labels": pa.array(["cat"])})
    with pytest.raises(InputError, match="row 0 \\(id 'v0'\\) has labels, and so has .*l.csv"):
        pack(str(tmp_path / "a.parquet"), tmp_path / "p", tmp_path / "l.csv")
    _write(tmp_path / "b.parquet", _columns(1))
    with pytest.raises(InputError, match="b.parquet: row 0 \\(id 'v1'\\) has no column labels"):
        pack(str(tmp_path), tmp_path / "p")


def test_arrays_and_tables_do_not_mix(tmp_path):
    _write(tmp_path / "a.parquet", _columns(0))
    np.save(tmp_path / "b.npy", _frames(1))
    with pytest.raises(InputError, match="both files of single videos and Parquet tables"):
        pack(str(tmp_path), tmp_path / "p")


def test_a_row_group_is_not_read_whole(tmp_path):
    values = np.random.default_rng(0).normal(size=(800, 5000)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 5000)
    _write(tmp_path / "a.parquet", {"id": pa.array(range(800)), "x": column}, row_group_size=800)
    del column
    before = pa.total_allocated_bytes()
    for number, video in enumerate(read_rows(str(tmp_path / "a.parquet"))):
        assert np.array_equal(video.features["x"], values[number])
        assert pa.total_allocated_bytes() - before < values.nbytes / 2


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + b"\x00" * 100 + b"PAR1", b"id,labels\n"])
def test_what_is_no_parquet_is_one_sentence(tmp_path, data):
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(InputError, match="a.parquet as Parquet") as raised:
        pack(str(tmp_path / "a.parquet"), tmp_path / "p")
    assert "\n" not in str(raised.value)


def test_a_table_without_its_end_is_cut_off(tmp_path):
    _write(tmp_path / "a.parquet", _columns(*range(30)))
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-50])
    with pytest.raises(InputError, match="as Parquet: it is cut off, .* a Parquet table .*; copy or write it again"):
        pack(str(tmp_path / "a.parquet"), tmp_path / "p")


def test_damage_is_one_sentence(tmp_path):
    _write(tmp_path / "a.parquet", _columns(*range(30)))
    sound = (tmp_path / "a.parquet").read_bytes()
    generator, sentences = np.random.default_rng(0), []
    for _ in range(60):
        data = bytearray(sound)
        data[generator.integers(4, len(data) - 8)] ^= 1 << generator.integers(0, 8)
        (tmp_path / "a.parquet").write_bytes(data)
        try:
            pack(str(tmp_path / "a.parquet"), tmp_path / "p", force=True)
        except InputError as error:
            sentences.append(str(error))
    assert sentences
    assert not any("\n" in sentence for sentence in sentences)


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    _write(tmp_path / "a.parquet", _columns(0))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(TopgbError, match="pip install '.\\[parquet\\]'"):
        pack(str(tmp_path / "a.parquet"), tmp_path / "p")


def test_a_footer_that_contradicts_itself(tmp_path):
    """pyarrow ends the process where it is asked for the sizes of this file's columns."""
    path = tmp_path / "a.parquet"
    columns = {"id": ["a", "b"], "labels": [["x"], ["y", "z"]], "rgb": [[[1.0, 2.0]], [[3.0, 4.0]]]}
    pq.write_table(pa.table(columns), path)
    raw = path.read_bytes()
    length = int.from_bytes(raw[-8:-4], "little")
    for place in range(len(raw) - 8 - length, len(raw) - 8):
        for bits in (1, 16):
            path.write_bytes(raw[:place] + bytes((raw[place] ^ bits,)) + raw[place + 1 :])
            with suppress(InputError):
                count_rows(str(path))


def _varint(number: int, length: int = 0) -> bytes:
    """`number` as Thrift writes it, in `length` bytes if that is more than it needs."""
    parts = []
    while number >= 128 or len(parts) + 1 < length:
        parts.append(128 | (number & 127))
        number >>= 7
    return bytes([*parts, number])


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_footer_that_lies_about_its_pages(tmp_path, version, compression):
    count = 300_000
    path = tmp_path / "a.parquet"
    columns = {"id": ["a"], "rgb": pa.array([np.full(count, 2.5, np.float32)], pa.list_(pa.float32()))}
    _write(path, columns, compression=compression, data_page_version=version)
    raw = path.read_bytes()
    footer = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    stored = _varint(2 * count)
    assert stored in raw[footer:]
    path.write_bytes(raw[:footer] + raw[footer:].replace(stored, _varint(2, len(stored))))
    # pyarrow believes the pages.
    assert len(pq.read_table(path)["rgb"][0]) == count
    set_max_unpacked("1M")
    try:
        with pytest.raises(InputError, match="unpacks to more than 1,048,576, which honest files hardly do"):
            list(read_rows(str(path)))
    finally:
        set_max_unpacked(None)
    assert next(read_rows(str(path))).features["rgb"].shape == (count,)


def test_a_text_that_every_row_repeats(tmp_path):
    path = tmp_path / "a.parquet"
    columns = {"id": [str(n) for n in range(64)], "labels": ["x" * 50_000] * 64, "rgb": [[1.0, 2.0]] * 64}
    _write(path, columns, compression="zstd")
    assert path.stat().st_size < 10_000
    set_max_unpacked("1M")
    try:
        with pytest.raises(InputError, match="unpacks to more than 1,048,576"):
            list(read_rows(str(path)))
    finally:
        set_max_unpacked(None)


def test_pages_that_make_no_sense_are_one_sentence(tmp_path):
    path = tmp_path / "a.parquet"
    _write(path, _columns(*range(9)), compression="zstd")
    raw = path.read_bytes()
    footer = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    for place in range(4, footer, 3):
        path.write_bytes(raw[:place] + bytes((raw[place] ^ 0x55,)) + raw[place + 1 :])
        with suppress(InputError):
            list(read_rows(str(path)))


@pytest.mark.parametrize("plaintext_footer", [True, False])
def test_an_encrypted_table_is_called_so(plaintext_footer, tmp_path):
    import pyarrow.parquet.encryption as encryption

    class Keys(encryption.KmsClient):
        def wrap_key(self, key_bytes, master_key_identifier):
            return key_bytes.hex()

        def unwrap_key(self, wrapped_key, master_key_identifier):
            return bytes.fromhex(wrapped_key)

    settings = encryption.EncryptionConfiguration("k", column_keys={"c": ["x"]}, plaintext_footer=plaintext_footer)
    factory = encryption.CryptoFactory(lambda _: Keys())
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), settings)
    table = pa.table({"id": ["a"], "x": [0.5]})
    with pq.ParquetWriter(tmp_path / "t.parquet", table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    with pytest.raises(InputError, match="encrypt"):
        pack(str(tmp_path / "t.parquet"), tmp_path / "out")


def test_a_table_with_a_column_for_each_value(tmp_path):
    """As pandas writes arrays; sizes of many columns take long to read, and each is no feature of its own."""
    columns = {f"e{number}": pa.array([0.5], pa.float32()) for number in range(5000)}
    pq.write_table(pa.table({"id": ["a"], **columns}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="holds 5,000 features, and a video can have 100; .* into one"):
        pack(str(tmp_path / "t.parquet"), tmp_path / "out")


def test_an_id_that_is_too_long_is_not_printed(tmp_path):
    pq.write_table(pa.table({"id": ["x" * 100_000], "e": [[0.5]]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="has an id of 100,000 characters; give it one of 4,096 at most") as caught:
        pack(str(tmp_path / "t.parquet"), tmp_path / "out")
    assert len(str(caught.value)) < 500
