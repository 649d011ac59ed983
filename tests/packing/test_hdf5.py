"""HDF5 files of one video or of many become records; nothing in them opens other files, or unpacks without a bound."""

import sys

import numpy as np
import pytest

from topgb.errors import InputError, TopgbError
from topgb.packing.pack import PackOptions, pack
from topgb.packing.source import Reading, find_source
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.description import find_description
from topgb.records.labels import Targets
from topgb.unpacked_size import set_max_unpacked

h5py = pytest.importorskip("h5py", reason="the extra hdf5 is not installed")
FLOATS = PackOptions(store="float32")


def _frames(seed: int, width: int = 4, frames: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(frames, width)).astype(np.float32)


def _write(path, arrays, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, **settings)
    return path


def _read(out) -> dict[str, np.ndarray]:
    described = find_description(f"{out}/*.tfrecord")
    data = open_dataset(f"{out}/*.tfrecord", described.spec, 1, 300, targets=Targets(False))
    (batch,) = evaluation_batches(data, 9)
    return {video: batch.features[n, : batch.num_frames[n]].numpy() for n, video in enumerate(batch.ids)}


@pytest.mark.parametrize("settings", [{}, {"compression": "gzip", "shuffle": True}, {"compression": "lzf"}])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2"])
def test_a_group_is_a_video(tmp_path, settings, dtype):
    arrays = {f"Küche/{v}/{name}": _frames(v, w).astype(dtype) for v in range(3) for name, w in (("b", 4), ("t", 2))}
    packed = pack(str(_write(tmp_path / "all.h5", arrays, **settings)), tmp_path / "p", options=FLOATS)
    assert [(feature.name, feature.size) for feature in packed.description.spec.features] == [("b", 4), ("t", 2)]
    found = _read(tmp_path / "p")
    assert list(found) == ["Küche/0", "Küche/1", "Küche/2"]
    for video, values in found.items():
        wanted = np.hstack([arrays[f"{video}/b"], arrays[f"{video}/t"]]).astype(np.float32)
        assert np.array_equal(values, wanted)


def test_an_array_is_a_video_where_names_tell_or_the_option_says(tmp_path):
    _write(tmp_path / "f/one.h5", {"v0": _frames(0), "v1": _frames(1)})
    found = find_source(str(tmp_path / "f"), Reading())
    assert [entry.id for entry in found.entries] == ["v0", "v1"]
    _write(tmp_path / "f/two.hdf5", {"v2": _frames(2)})
    pack(str(tmp_path / "f"), tmp_path / "p", options=PackOptions(store="float32", name="clip"))
    assert find_description(f"{tmp_path}/p/*.tfrecord").spec.features[0].name == "clip"
    assert all(np.array_equal(values, _frames(int(video[1:]))) for video, values in _read(tmp_path / "p").items())
    alone = find_source(str(tmp_path / "f/two.hdf5"), Reading(arrays="features"))
    assert [entry.id for entry in alone.entries] == ["two"]


def test_a_file_is_a_video_where_names_repeat(tmp_path):
    for number in range(2):
        _write(tmp_path / f"f/a b/{number}.h5", {"bild": _frames(number), "ton": _frames(number, 2)})
    (tmp_path / "labels.csv").write_text("path,labels\na b/0.h5,cat\n1,dog\n")
    packed = pack(str(tmp_path / "f"), tmp_path / "p", tmp_path / "labels.csv", options=FLOATS)
    assert (packed.labels, packed.absent) == (2, 0)
    found = _read(tmp_path / "p")
    assert list(found) == ["a b/0", "a b/1"]
    assert np.array_equal(found["a b/1"], np.hstack([_frames(1), _frames(1, 2)]))
    videos = find_source(str(tmp_path / "f/a b/0.h5"), Reading(arrays="videos")).entries
    assert [entry.id for entry in videos] == ["bild", "ton"]


def test_a_file_for_each_feature(tmp_path):
    for name, width in (("bild", 4), ("ton", 2)):
        _write(tmp_path / f"{name}.h5", {f"v{number}": _frames(number, width) for number in range(3)})
    pack({name: f"{tmp_path}/{name}.h5" for name in ("bild", "ton")}, tmp_path / "p", options=FLOATS)
    found = _read(tmp_path / "p")
    assert list(found) == ["v0", "v1", "v2"]
    assert np.array_equal(found["v2"], np.hstack([_frames(2), _frames(2, 2)]))


def _soft(file):
    file["v"] = h5py.SoftLink("/elsewhere")


def _external(file):
    file["v"] = h5py.ExternalLink("/etc/passwd", "/x")


def _circle(file):
    file.create_group("a")["b"] = file["/"]


def _virtual(file):
    layout = h5py.VirtualLayout((2, 3), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (2, 3))
    file.create_virtual_dataset("v", layout)


def _beside(file):
    file.create_dataset("v", (2, 3), "f4", external=[("/etc/passwd", 0, 24)])


def _plugged_in(file):
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((2, 3))
    # Bit 1 lets the file be written without the filter.
    settings.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
    h5py.h5d.create(file.id, b"v", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((2, 3)), settings)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_soft, "/v is a link, which is not followed"),
        (_external, "/v is a link, which is not followed"),
        (_circle, "stands in the file twice"),
        (_virtual, "stand in other files"),
        (_beside, "stand in other files"),
        (_plugged_in, "packed by a plug-in"),
        (lambda file: file.create_dataset("v", data=np.zeros((2, 3), np.int64)), "holds int64"),
        (lambda file: file.create_dataset("v", data="text"), "holds object"),
        (lambda file: file.create_dataset("v", data=h5py.Empty("f4")), "has the shape None"),
        (lambda file: file.create_dataset("v", data=np.zeros((2, 3, 1), np.float32)), r"shape \(2, 3, 1\)"),
        (lambda file: file.create_dataset("g/a.b", data=np.zeros((2, 3), np.float32)), "no dot"),
        (lambda file: file.create_dataset("g/labels", data=np.zeros((2, 3), np.float32)), "can be called 'labels'"),
        (lambda file: [file.create_group("g"), file.create_dataset("v", data=_frames(0))], "both arrays and groups"),
        (lambda file: file.create_group("g"), "holds no arrays"),
    ],
)
def test_what_is_refused(tmp_path, spoil, words):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        spoil(file)
    with pytest.raises(InputError, match=words) as raised:
        pack(str(tmp_path / "f.h5"), tmp_path / "p")
    assert str(tmp_path / "f.h5") in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("chunks", [(1 << 20, 1), True])
def test_a_small_file_unpacks_to_no_more_than_the_bound(tmp_path, chunks):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        # Values that were never written take no room; nor do zeros.
        array = file.create_dataset("v", (1 << 20, 1), "f8", chunks=chunks, compression="gzip", maxshape=(None, 1))
        array[:2] = 0
        if chunks is not True:
            array.resize((2, 1))
    assert (tmp_path / "f.h5").stat().st_size < 100_000
    set_max_unpacked(1 << 20)
    try:
        with pytest.raises(InputError, match="unpacks to more than 1,048,576"):
            pack(str(tmp_path / "f.h5"), tmp_path / "p")
    finally:
        set_max_unpacked(None)


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n" + bytes(90), b"id,labels\n"])
def test_no_hdf5_file(tmp_path, content):
    (tmp_path / "f.h5").write_bytes(content)
    with pytest.raises(InputError, match="cannot read .*f.h5 as HDF5"):
        pack(str(tmp_path / "f.h5"), tmp_path / "p")


def test_other_kinds_beside_it_and_a_missing_library(tmp_path, monkeypatch):
    _write(tmp_path / "f/a.h5", {"v": _frames(0)})
    np.save(tmp_path / "f/b.npy", _frames(0))
    with pytest.raises(InputError, match="names both HDF5 and other files"):
        pack(str(tmp_path / "f"), tmp_path / "p")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(TopgbError, match=r"needs h5py, which is not installed here; .*pip install '\.\[hdf5\]'"):
        pack(str(tmp_path / "f/a.h5"), tmp_path / "p")


@pytest.mark.parametrize("settings", [{}, {"chunks": (2, 8)}, {"chunks": (2, 8), "compression": "gzip"}])
@pytest.mark.parametrize("written", [0, 2])
def test_values_that_were_never_written_are_no_zeros(written, settings, tmp_path):
    """HDF5 reads its fill value where a program stopped before it wrote; a kilobyte may so hold a gigabyte."""
    path = tmp_path / "v.h5"
    with h5py.File(path, "w") as file:
        array = file.create_dataset("v", (6, 8), "f4", **settings)
        if written:
            array[:written] = 1
    (tmp_path / "labels.csv").write_text("id,labels\nv,cat\n")
    if written and not settings:
        # HDF5 makes room for all values of an array in one piece at once, and does not note which were written.
        pack(str(path), tmp_path / "out", tmp_path / "labels.csv")
        return
    with pytest.raises(InputError, match="values of 'embedding' were never written"):
        pack(str(path), tmp_path / "out", tmp_path / "labels.csv")
