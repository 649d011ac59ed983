"""Features and labels that are likely mistakes: refused, or named by a warning, in every container."""

import csv
import io
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import topgb
from topgb.errors import InputError, TopgbWarning

CONTAINERS = ("npy", "npz", "hdf5", "parquet")
LEVELS = ("frame", "video")
GENERATOR = np.random.default_rng(0)


def _write(folder: Path, container: str, arrays: Sequence[np.ndarray], name: str = "x") -> str:
    """Write a video for each of the arrays; returns the source to pack."""
    folder.mkdir()
    ids = [f"v{number:02d}" for number in range(len(arrays))]
    if container == "hdf5":
        with pytest.importorskip("h5py").File(folder / "a.h5", "w") as file:
            for video, values in zip(ids, arrays, strict=True):
                file[f"{video}/{name}"] = values
    elif container == "parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        rows = pyarrow.array([values.tolist() for values in arrays])
        parquet.write_table(pyarrow.table({"id": ids, name: rows}), folder / "a.parquet")
    for video, values in zip(ids, arrays, strict=True):
        if container == "npy":
            np.save(folder / f"{video}.npy", values)
        elif container == "npz":
            np.savez(folder / f"{video}.npz", **{name: values})
    return str(folder)


def _values(level: str, width: int = 4) -> np.ndarray:
    return GENERATOR.normal(size=(3, width) if level == "frame" else width).astype(np.float32)


def _said(folder: Path, source: str, **options) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        topgb.pack(source, folder / "packed", **options)
    assert all(one.filename == __file__ for one in caught)
    return [str(one.message) for one in caught if one.category is TopgbWarning]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("level", LEVELS)
def test_features_that_hold_nothing_are_named(tmp_path, container, level):
    same = _values(level)
    (words,) = _said(tmp_path / "a", _write(tmp_path / "same", container, [same] * 3))
    assert "holds the same values in all 3 videos, so that a model learns nothing from it" in words
    flat = [_values(level), np.zeros_like(same), _values(level), np.full_like(same, 7.5)]
    (words,) = _said(tmp_path / "b", _write(tmp_path / "flat", container, flat))
    assert "holds one value throughout in 2 of 4 videos, first in " in words
    assert "v01" in words
    assert _said(tmp_path / "c", _write(tmp_path / "sound", container, [_values(level) for _ in range(3)])) == []
    assert _said(tmp_path / "d", _write(tmp_path / "one", container, [_values(level, 1)[:1] for _ in range(3)])) == []


@pytest.mark.parametrize("container", CONTAINERS)
def test_ranges_that_lose_the_values_are_named(tmp_path, container):
    source = _write(tmp_path / "f", container, [_values("frame") for _ in range(3)])
    for number, (low, high) in enumerate([(-0.01, 0.01), (-1e4, 1e4)]):
        (words,) = _said(tmp_path / str(number), source, range=(low, high))
        assert "% of the feature" in words
        assert "leave range out, or give one that fits the values" in words
    assert _said(tmp_path / "fits", source, range=(-4, 4)) == []


def test_labels_that_tell_no_videos_apart_or_all_are_named(tmp_path):
    source = _write(tmp_path / "f", "npy", [_values("frame") for _ in range(10)])
    for classes, words in (
        (10, "each of the 10 videos has a label that no other has"),
        (1, "all 10 videos have the same"),
        (3, None),
    ):
        with open(tmp_path / "labels.csv", "w", newline="") as file:
            rows = [
                (f"v{number:02d}", f"dog;class {number % classes}" if classes == 1 else f"class {number % classes}")
                for number in range(10)
            ]
            csv.writer(file).writerows([("id", "labels"), *rows])
        said = _said(tmp_path / str(classes), source, labels=tmp_path / "labels.csv")
        assert len(said) == (words is not None)
        assert all(str(words) in one for one in said)


@pytest.mark.parametrize("container", CONTAINERS[:3])
def test_frames_in_columns_are_told(tmp_path, container):
    turned = [_values("frame"), _values("frame").T]
    with pytest.raises(InputError, match=r"every video needs the same; if these are \[D, T\], save them as \[T, D\]"):
        topgb.pack(_write(tmp_path / "f", container, turned), tmp_path / "p")


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_an_array_behind_an_array_is_not_left_out(tmp_path, kind):
    """`numpy.save` to an open file, a frame at a time, makes such files."""
    stream = io.BytesIO()
    for _ in range(2):
        np.save(stream, _values("frame"))
    (tmp_path / "f").mkdir()
    if kind == "npy":
        (tmp_path / "f/a.npy").write_bytes(stream.getvalue())
    else:
        with zipfile.ZipFile(tmp_path / "f/a.npz", "w") as archive:
            archive.writestr("x.npy", stream.getvalue())
    with pytest.raises(InputError, match=r"holds more behind its array of the shape \[3, 4\]"):
        topgb.pack(str(tmp_path / "f"), tmp_path / "p")


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
@pytest.mark.parametrize("container", ["npy", "hdf5"])
def test_an_array_of_all_labels_is_told(tmp_path, container, dtype):
    labels = np.eye(5, 2).astype(dtype)
    if container == "npy":
        _write(tmp_path / "f", "npy", [_values("video")] * 2)
        np.save(tmp_path / "f/Y_labels.npy", labels)
    else:
        (tmp_path / "f").mkdir()
        with pytest.importorskip("h5py").File(tmp_path / "f/a.h5", "w") as file:
            file["X"], file["labels"] = _values("frame"), labels
    with pytest.raises(InputError, match="if these are the labels of other videos, give them as class names in a CSV"):
        topgb.pack(str(tmp_path / "f"), tmp_path / "p")


@pytest.mark.parametrize("container", ["npy", "parquet"])
def test_blanks_around_ids_do_not_count(tmp_path, container):
    (tmp_path / "f").mkdir()
    if container == "npy":
        np.save(tmp_path / "f/a .npy", _values("video"))
        np.save(tmp_path / "f/a.npy", _values("video"))
    else:
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        table = pyarrow.table({"id": ["a ", "a"], "x": [[1.0], [2.0]]})
        parquet.write_table(table, tmp_path / "f/a.parquet")
    with pytest.raises(InputError, match="the id 'a' occurs twice"):
        topgb.pack(str(tmp_path / "f"), tmp_path / "p")
