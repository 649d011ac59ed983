"""A folder for each feature: videos are joined by their paths, and frames matched or stretched in time."""

import numpy as np
import pytest

from topgb.errors import InputError
from topgb.features import Feature
from topgb.packing.frame_counts import nearest_frames
from topgb.packing.pack import PackOptions, named_source, pack
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.description import find_description
from topgb.records.labels import Targets


def _frames(seed: int, frames: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(frames, width)).astype(np.float32)


@pytest.fixture
def folders(tmp_path):
    """Two features of two videos; the sound of the second has seven frames, its picture four."""
    for name, width, frames in (("bild", 5, (3, 4)), ("ton", 2, (3, 7))):
        (tmp_path / name / "a b").mkdir(parents=True)
        np.save(tmp_path / name / "a b/x.npy", _frames(0, frames[0], width))
        # A container of one array serves as well.
        np.savez(tmp_path / name / "y.npz", whatever=_frames(1, frames[1], width))
    return {"visual": str(tmp_path / "bild"), "audio": str(tmp_path / "ton")}


def _read(out) -> dict[str, np.ndarray]:
    described = find_description(f"{out}/*.tfrecord")
    data = open_dataset(f"{out}/*.tfrecord", described.spec, 1, 300, targets=Targets(False))
    (batch,) = evaluation_batches(data, 9)
    return {video: batch.features[n, : batch.num_frames[n]].numpy() for n, video in enumerate(batch.ids)}


def test_features_of_several_folders_with_frames_of_the_longest(folders, tmp_path):
    stretched = PackOptions(store="float32", frames="longest")
    packed = pack(folders, tmp_path / "p", options=stretched)
    assert packed.description.spec.features == (Feature("visual", 5, "float32"), Feature("audio", 2, "float32"))
    found = _read(tmp_path / "p")
    assert list(found) == ["a b/x", "y"]
    assert np.array_equal(found["a b/x"], np.hstack([_frames(0, 3, 5), _frames(0, 3, 2)]))
    assert np.array_equal(found["y"], np.hstack([_frames(1, 4, 5)[[0, 0, 1, 2, 2, 3, 3]], _frames(1, 7, 2)]))


def test_the_nearest_in_time():
    for frames, wanted in ((1, 5), (4, 7), (7, 4), (3, 300), (300, 3), (6, 6)):
        moments = (np.arange(wanted) + 0.5) / wanted
        centres = (np.arange(frames) + 0.5) / frames
        chosen = nearest_frames(frames, wanted)
        least = np.abs(moments[:, None] - centres).min(1)
        # Two frames may be equally near: any of them will do.
        assert np.abs(moments - centres[chosen]) == pytest.approx(least, abs=1e-12)


def test_unequal_frames_are_refused_with_the_remedy(folders, tmp_path):
    with pytest.raises(InputError, match=r"visual \[4, 5\], audio \[7, 2\]\).*frames='longest'") as raised:
        pack(folders, tmp_path / "p")
    assert f"{tmp_path}/bild/y.npz and {tmp_path}/ton/y.npz" in str(raised.value)


def test_archives_are_stretched_too(tmp_path):
    np.savez(tmp_path / "a.npz", x=_frames(0, 2, 3), y=_frames(1, 5, 1))
    pack(str(tmp_path / "a.npz"), tmp_path / "p", options=PackOptions(store="float32", frames="longest"))
    (found,) = _read(tmp_path / "p").values()
    assert np.array_equal(found, np.hstack([_frames(0, 2, 3)[[0, 0, 1, 1, 1]], _frames(1, 5, 1)]))


def test_a_stretch_has_a_bound(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((200_000, 1), np.uint8), y=np.zeros((1, 200_000), np.uint8))
    with pytest.raises(InputError, match="too many for one video's record"):
        pack(str(tmp_path / "a.npz"), tmp_path / "p", options=PackOptions(frames="longest"))


def test_a_video_that_a_feature_lacks_is_named(folders, tmp_path):
    np.save(tmp_path / "bild/z.npy", _frames(0, 3, 5))
    with pytest.raises(InputError, match="ton has no features 'audio' of 1 of the 3 videos: 'z'; every video"):
        pack(folders, tmp_path / "p")


def test_files_of_several_features_and_tables_are_refused(folders, tmp_path):
    np.savez(tmp_path / "ton/y.npz", a=_frames(0, 4, 2), b=_frames(0, 4, 2))
    with pytest.raises(InputError, match="holds the features 'a', 'b', but stands for 'audio' alone"):
        pack(folders, tmp_path / "p")
    (tmp_path / "t").mkdir()
    (tmp_path / "t/a.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="names Parquet tables; put all features into one table"):
        pack({**folders, "third": str(tmp_path / "t")}, tmp_path / "p")
    with pytest.raises(InputError, match="feature: a feature is called 'a.b'"):
        pack({"a.b": folders["visual"]}, tmp_path / "p")


def test_one_way_to_name_a_source():
    assert named_source("x", {}) == "x"
    assert named_source(None, {"a": "x"}) == {"a": "x"}
    with pytest.raises(InputError, match="both a source and feature are given"):
        named_source("x", {"a": "x"})
    with pytest.raises(InputError, match="neither a source nor feature is given"):
        named_source(None, {})


def test_labels_by_path_in_any_of_the_folders(folders, tmp_path):
    (tmp_path / "labels.csv").write_text("path,labels\na b/x.npy,cat\ny.npz,dog\n")
    packed = pack(folders, tmp_path / "p", tmp_path / "labels.csv", options=PackOptions(frames="longest"))
    assert (packed.labels, packed.description.classes, packed.absent) == (2, 2, 0)
