"""Ids are paths below the folder, and rows of labels find their videos by path, or by name where that is unique."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from topgb.errors import InputError
from topgb.packing.label_rows import match_rows
from topgb.packing.pack import PackOptions, pack
from topgb.packing.source import Reading, find_source
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.description import find_description
from topgb.records.labels import Targets

NESTED = ("Küche/Brot backen/clip 1.npy", "Küche/clip 1.npy", "sport/clip2.npy", "clip3.npy")
IDS = ["Küche/Brot backen/clip 1", "Küche/clip 1", "clip3", "sport/clip2"]


def _vector(path: str) -> np.ndarray:
    return np.arange(3, dtype=np.float32) + len(path)


@pytest.fixture
def nested(tmp_path) -> Path:
    """Four videos in folders in folders; names are in a Mac's form NFD."""
    folder = tmp_path / "features"
    for path in NESTED:
        file = folder / unicodedata.normalize("NFD", path)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, _vector(path))
    return folder


def _csv(folder: Path, *rows: str, columns: str = "id,labels") -> Path:
    path = folder / "labels.csv"
    path.write_text("\n".join([columns, *rows]) + "\n")
    return path


def _packed(out: Path) -> dict[str, list[int] | None]:
    """The class numbers of each video, by its id, in the order of the records."""
    described = find_description(f"{out}/*.tfrecord")
    labelled = described.classes is not None
    data = open_dataset(f"{out}/*.tfrecord", described.spec, described.classes or 1, 300, targets=Targets(labelled))
    (batch,) = evaluation_batches(data, 100)
    rows = batch.labels if batch.labels is not None else [None] * len(batch.ids)
    return {
        video: None if row is None else row.nonzero()[:, 0].tolist() for video, row in zip(batch.ids, rows, strict=True)
    }


def test_ids_are_paths_below_the_folder(nested, tmp_path):
    pack(str(nested), tmp_path / "p")
    assert list(_packed(tmp_path / "p")) == IDS


@pytest.mark.parametrize(
    ("pattern", "ids"),
    [
        ("features/**/*.npy", IDS),
        ("features/*/clip*.npy", ["Küche/clip 1", "sport/clip2"]),
        ("features/sport/*.npy", ["clip2"]),
        ("features/sport/clip2.npy", ["clip2"]),
        ("*/sport/*.npy", ["features/sport/clip2"]),
    ],
)
def test_a_globs_folder_is_the_part_before_its_first_wildcard(nested, tmp_path, monkeypatch, pattern, ids):
    monkeypatch.chdir(tmp_path)
    assert [entry.id for entry in find_source(pattern, Reading()).entries] == ids
    assert [entry.id for entry in find_source(str(tmp_path / pattern), Reading()).entries] == ids


def test_names_alone_as_ids(nested, tmp_path):
    with pytest.raises(InputError, match=r"id 'clip 1' occurs twice, first in .*Brot.*; .*or use id='path'"):
        pack(str(nested), tmp_path / "p", options=PackOptions(ids="stem"))
    next(nested.glob("*/Brot*/*.npy")).unlink()
    pack(str(nested), tmp_path / "p", options=PackOptions(ids="stem"))
    assert list(_packed(tmp_path / "p")) == ["clip 1", "clip2", "clip3"]


def test_links_to_folders_are_followed_and_none_for_ever(nested, tmp_path):
    (nested / "again").symlink_to(nested)
    (tmp_path / "more").mkdir()
    np.save(tmp_path / "more/x.npy", _vector("x"))
    (nested / "linked").symlink_to(tmp_path / "more")
    (nested / ".hidden").mkdir()
    np.save(nested / ".hidden/x.npy", _vector("x"))
    assert [entry.id for entry in find_source(str(nested), Reading()).entries] == sorted([*IDS, "linked/x"])


@pytest.mark.parametrize(
    "rows",
    [
        ("Küche/Brot backen/clip 1", "Küche/clip 1", "clip3", "sport/clip2"),
        ("Küche/Brot backen/clip 1.npy", "Küche/clip 1.npy", "clip3.npy", "sport/clip2.npy"),
        ("Küche/Brot backen/clip 1.mp4", "./Küche/clip 1.mkv", "clip3.webm", "sport/clip2.mp4"),
        ("features/Küche/Brot backen/clip 1.npy", "features/Küche/clip 1", "features/clip3.npy", "clip2"),
        (r"Küche\Brot backen\clip 1.npy", r"Küche\clip 1.npy", "clip3", "clip2.npy"),
        ("{tmp}/features/Küche/Brot backen/clip 1.npy", "Küche/clip 1", "clip3", "clip2.mp4"),
    ],
)
@pytest.mark.parametrize("columns", ["id,labels", "path,labels"])
def test_rows_name_videos_by_path_or_by_a_name_that_is_unique(nested, tmp_path, monkeypatch, rows, columns):
    monkeypatch.chdir(tmp_path)
    rows = [f"{row.format(tmp=tmp_path)},{'cat;dog' if n % 2 else 'cat'}" for n, row in enumerate(rows)]
    packed = pack("features", tmp_path / "p", _csv(tmp_path, *rows, "gone,cat", columns=columns))
    assert packed.absent == 1
    assert _packed(tmp_path / "p") == {
        "Küche/Brot backen/clip 1": [0],
        "Küche/clip 1": [0, 1],
        "clip3": [0],
        IDS[3]: [0, 1],
    }


def test_where_a_csv_has_both_id_counts(nested, tmp_path):
    rows = [f"nonsense,{video},cat" for video in IDS]
    pack(str(nested), tmp_path / "p", _csv(tmp_path, *rows, columns="path,id,labels"))
    assert list(_packed(tmp_path / "p")) == IDS


def test_rows_that_mean_one_video_add_up(nested, tmp_path):
    labels = _csv(tmp_path, *(f"{video},cat" for video in IDS), "clip3.npy,dog", "clip3,cat")
    pack(str(nested), tmp_path / "p", labels)
    assert _packed(tmp_path / "p")["clip3"] == [0, 1]


@pytest.mark.parametrize("row", ["clip 1", "clip 1.npy", "clip 1.mp4"])
def test_a_name_that_two_folders_have_is_no_name(nested, tmp_path, row):
    labels = _csv(tmp_path, f"{row},cat", "clip3,cat", "clip2,cat")
    with pytest.raises(InputError, match="two files have that name") as raised:
        pack(str(nested), tmp_path / "p", labels)
    for path in NESTED[:2]:
        assert path in unicodedata.normalize("NFC", str(raised.value))


def test_an_id_goes_before_a_name(tmp_path):
    (tmp_path / "f/a").mkdir(parents=True)
    for path in ("a/x.npy", "x.npy"):
        np.save(tmp_path / "f" / path, _vector(path))
    entries = find_source(str(tmp_path / "f"), Reading()).entries
    matched = match_rows({"x": ("cat",), "a/x": ()}, entries, tmp_path / "labels.csv")
    assert matched == {"x": ("cat",), "a/x": ()}


def test_rows_for_two_clips_of_one_name_are_refused(nested, tmp_path):
    labels = _csv(tmp_path, "clip3.mp4,cat", "clip3.avi,dog")
    with pytest.raises(InputError, match=r"rows for 'clip3.mp4' and 'clip3.avi', which both mean the video 'clip3'"):
        pack(str(nested), tmp_path / "p", labels)


def test_videos_without_a_row_are_listed_left_out_or_kept(nested, tmp_path):
    labels = _csv(tmp_path, "sport/clip2,cat", "clip3,")
    listed = "no row for 2 of the 4 videos: 'Küche/Brot backen/clip 1', 'Küche/clip 1'; add rows"
    with pytest.raises(InputError, match=f"{listed}.*unlabelled='skip'.*unlabelled='keep'"):
        pack(str(nested), tmp_path / "p", labels)
    assert not (tmp_path / "p").exists()
    skipped = pack(str(nested), tmp_path / "skip", labels, options=PackOptions(unlabelled="skip"))
    assert (skipped.train, skipped.unlabelled) == (2, 2)
    assert _packed(tmp_path / "skip") == {"clip3": [], "sport/clip2": [0]}
    kept = pack(str(nested), tmp_path / "keep", labels, options=PackOptions(unlabelled="keep"))
    assert (kept.train, kept.unlabelled) == (4, 2)
    assert _packed(tmp_path / "keep") == {video: [0] * (video == "sport/clip2") for video in IDS}


def test_many_videos_without_a_row_are_one_bounded_sentence(tmp_path):
    (tmp_path / "f").mkdir()
    for number in range(60):
        np.save(tmp_path / f"f/{'x' * 150}{number}.npy", _vector("x"))
    labels = _csv(tmp_path, "other,cat")
    with pytest.raises(
        InputError, match="no row for 60 of the 60 videos.*first row is for 'other'.* and 40 more;"
    ) as raised:
        pack(str(tmp_path / "f"), tmp_path / "p", labels)
    assert len(str(raised.value)) < 3000
    with pytest.raises(InputError, match="no row for any of the 60 videos: its first row is for 'other'"):
        pack(str(tmp_path / "f"), tmp_path / "p", labels, options=PackOptions(unlabelled="skip"))


def test_skipped_videos_are_not_even_read(nested, tmp_path):
    (nested / "broken.npy").write_bytes(b"broken")
    labels = _csv(tmp_path, *(f"{video},cat" for video in IDS))
    assert pack(str(nested), tmp_path / "p", labels, options=PackOptions(unlabelled="skip")).train == 4
