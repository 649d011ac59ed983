"""Folders of videos to records: the same bytes whatever the jobs, nothing decoded twice, and what is left out said."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import topgb
from topgb.cli.main import run
from topgb.errors import InputError, TopgbError
from topgb.packing.files import Found, VideoFile
from topgb.packing.label_rows import match_rows
from topgb.packing.source import Entry
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.description import read_description
from topgb.video.extract import extract_video
from topgb.video.extraction import NothingExtractedError
from topgb.video.extractors import extractor_of, find_extractor
from topgb.video.opening import ffmpeg_version
from topgb.video.workers import Workers, _Worker
from video.clips import write_clip
from video.test_decoding import damage

CLIPS = {
    "a.mp4": {"seconds": 3.0, "seed": 1, "hertz": 300},
    "b.MKV": {"seconds": 2.0, "seed": 2, "hertz": 900},
    "deep/a.mp4": {"seconds": 2.0, "seed": 3, "sound": None},
    "deep/c.wav": {"seconds": 1.0, "codec": None, "sound": "pcm_s16le"},
}
IDS = ["a", "b", "deep/a", "deep/c"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for name, options in CLIPS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        made = write_clip(folder / name.lower(), **options)
        made.rename(folder / name)
    (folder / "labels.csv").write_text("path,labels\na.mp4,red;low\nb.MKV,blue\ndeep/a.mp4,red\ndeep/c.wav,\n")
    (folder / "notes.txt").write_text("no video")
    return folder


def extract(clips, out, **options):
    return topgb.extract(clips, out, progress=False, **{"jobs": 1, **options})


@pytest.fixture(scope="module")
def extracted(clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("extracted") / "data"
    return out, extract(clips, out, labels=clips / "labels.csv")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_folder_becomes_what_training_reads(clips, extracted):
    out, done = extracted
    assert done.videos == done.decoded == 4
    assert done.seconds == 8
    assert (done.no_picture, done.no_sound) == (1, 2)
    assert not done.unreadable
    assert not done.damaged
    described = read_description(out / "dataset.yaml")
    assert [(f.name, f.size, f.dtype) for f in described.spec.features] == [
        ("image", 1280, "uint8"),
        ("speech", 96, "uint8"),
        ("mel", 128, "uint8"),
    ]
    assert described.class_names() == ("red", "blue", "low")
    assert extractor_of(described.extractor).digest == find_extractor("default").digest
    assert sorted(files(out / "features")) == sorted(f"{one}.npz" for one in IDS)
    dataset = open_dataset(str(out / "train*.tfrecord"), described.spec, described.classes, 300)
    (batch,) = evaluation_batches(dataset, 10)
    assert list(batch.ids) == IDS
    assert batch.num_frames.tolist() == [3, 2, 2, 1]
    assert batch.labels.int().tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0]]


def test_stored_features_are_those_of_one_video_alone(clips, extracted):
    with np.load(extracted[0] / "features" / "a.npz") as stored:
        alone = extract_video(str(clips / "a.mp4"), find_extractor("default")).arrays
        assert sorted(stored.files) == sorted(alone)
        for name, values in alone.items():
            np.testing.assert_array_equal(stored[name], values)


def test_jobs_and_threads_do_not_change_a_byte(clips, extracted, tmp_path):
    arguments = ["extract", clips, "--out", tmp_path / "data", "--labels", clips / "labels.csv", "--jobs", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-m", "topgb", *map(str, arguments)], env=environment, check=True)
    assert files(tmp_path / "data") == files(extracted[0])


def test_no_video_is_decoded_twice(clips, extracted, tmp_path):
    out = tmp_path / "data"
    shutil.copytree(extracted[0], out)
    with pytest.raises(InputError, match=r"exists already; .*force=True"):
        extract(clips, out, labels=clips / "labels.csv")
    again = extract(clips, out, labels=clips / "labels.csv", force=True)
    assert again.decoded == 0
    assert again.to_dict() == {**extracted[1].to_dict(), "out": str(out), "decoded": 0}
    assert files(out) == files(extracted[0])


def test_only_what_changed_is_decoded(clips, extracted, tmp_path):
    shutil.copytree(extracted[0], tmp_path / "data")
    shutil.copytree(clips, tmp_path / "clips")
    shutil.copy(clips / "deep" / "a.mp4", tmp_path / "clips" / "a.mp4")
    (tmp_path / "data" / "features" / "b.npz").write_bytes(b"broken")
    found = extract(tmp_path / "clips", tmp_path / "data", labels=clips / "labels.csv", force=True)
    assert found.decoded == 2
    assert extract(clips, tmp_path / "data", force=True, max_seconds=1).decoded == 4
    assert extract(clips, tmp_path / "data", force=True, extractor="sound", fps=2.0, unlabelled="keep").videos == 3


def test_a_video_that_ends_its_process_costs_nothing_but_itself(clips, extracted, tmp_path, monkeypatch):
    tell = _Worker.tell

    def deadly(worker, order):
        tell(worker, order)
        if order.get("extract", {}).get("path", "").endswith("b.MKV"):
            worker._process.kill()

    monkeypatch.setattr(_Worker, "tell", deadly)
    done = extract(clips, tmp_path / "data")
    assert done.videos == 3
    ((path, reason),) = [(left.path, left.reason) for left in done.unreadable]
    assert path.endswith("b.MKV")
    assert "SIGKILL ended the process" in reason


def test_a_process_that_cannot_begin_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("topgb.video.workers.sys.executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\necho no python here >&2\nexit 3\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(TopgbError, match="has ended: no python here"), Workers(find_extractor("sound"), 1) as workers:
        list(workers.run([{"look": {}}]))


def test_a_later_set_takes_ranges_and_classes_of_an_earlier_one(clips, extracted, tmp_path):
    (tmp_path / "labels.csv").write_text("path,labels\ndeep/c.wav,low\n")
    later = {"labels": tmp_path / "labels.csv", "unlabelled": "skip", "like": extracted[0]}
    extract(clips, tmp_path / "out", **later)
    first, second = (read_description(folder / "dataset.yaml") for folder in (extracted[0], tmp_path / "out"))
    assert second.spec == first.spec
    assert second.class_names() == first.class_names()
    with pytest.raises(InputError, match=r"was made by the extractor default .*, not by sound .*; choose its"):
        extract(clips, tmp_path / "other", **later, extractor="sound")
    (tmp_path / "labels.csv").write_text("path,labels\ndeep/c.wav,green\n")
    with pytest.raises(InputError, match="'green' is not in the vocabulary"):
        extract(clips, tmp_path / "other", **later)


@pytest.fixture
def mixed(tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    write_clip(folder / "good.mp4", 1.0)
    damage(write_clip(folder / "hurt.mp4", 10.0, sound=None, options={"g": "12"}))
    (folder / "text.mp4").write_text("no video at all\n" * 50)
    return folder


def test_unreadable_videos_are_named_and_the_others_go_on(mixed, tmp_path, capsys, monkeypatch):
    os.mkfifo(mixed / "pipe.mp4")
    monkeypatch.setattr(sys, "argv", ["topgb", "extract", str(mixed), "--out", str(tmp_path / "out"), "--json"])
    with pytest.raises(SystemExit) as ended:
        run()
    assert not ended.value.code
    said = capsys.readouterr()
    done = json.loads(said.out)
    pipe, text = done["unreadable"]
    assert "is a FIFO" in pipe["reason"]
    assert text["path"].endswith("text.mp4")
    assert done["videos"] == 2
    (hurt,) = done["damaged"]
    assert hurt["path"].endswith("hurt.mp4")
    assert hurt["packets"] > 0
    assert "left out" in said.err
    assert "free" in said.err


def test_damaged_videos_can_be_left_out_or_stop_the_work(mixed, tmp_path):
    (mixed / "text.mp4").unlink()
    kept = extract(mixed, tmp_path / "out")
    assert (kept.videos, kept.decoded, len(kept.damaged)) == (2, 2, 1)
    for out in ("out", "fresh"):
        done = extract(mixed, tmp_path / out, on_damaged="skip", force=True)
        assert done.videos == 1
        assert "it is damaged" in done.unreadable[0].reason
        with pytest.raises(InputError, match=r"hurt\.mp4 cannot be extracted: .*on_damaged='skip'"):
            extract(mixed, tmp_path / out, on_damaged="stop", force=True)


def test_where_no_video_can_be_read_nothing_is_written(mixed, tmp_path, capsys, monkeypatch):
    with pytest.raises(NothingExtractedError, match=r"none of the 1 videos can be read, .*text\.mp4 because"):
        extract(mixed / "text.mp4", tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.yaml").exists()
    monkeypatch.setattr(
        sys, "argv", ["topgb", "extract", str(mixed / "text.mp4"), "--out", str(tmp_path / "out"), "--json"]
    )
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2
    assert json.loads(capsys.readouterr().out)["unreadable"][0]["path"].endswith("text.mp4")


def test_csvs_list_videos_and_label_them(clips, tmp_path):
    listing = tmp_path / "list.csv"
    listing.write_text(f"labels,path\nred,{clips}/a.mp4\nblue;red,{clips}/deep/c.wav\n")
    done = topgb.extract(listing, tmp_path / "out", extractor="sound", jobs=1, progress=False)
    assert sorted(files(tmp_path / "out" / "features")) == ["a.npz", "c.npz"]
    assert (done.videos, done.classes, done.labels) == (2, 2, 3)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("id,labels\na,b\n", "has no column 'path'"),
        ("path\n\n", "lists no video"),
        ("path,labels\n,x\n", "line 2 has an empty path"),
    ],
)
def test_csvs_that_list_nothing_are_one_sentence(tmp_path, rows, said):
    (tmp_path / "list.csv").write_text(rows)
    with pytest.raises(InputError, match=said):
        topgb.extract(tmp_path / "list.csv", tmp_path / "out", progress=False)


def test_two_videos_of_one_id_are_both_named(tmp_path):
    for name in ("a.mp4", "a.mkv"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.mp4: the id 'a' occurs twice, first in .*a\.mkv"):
        topgb.extract(tmp_path, tmp_path / "out", progress=False)


def test_a_missing_row_of_labels_shows_before_anything_is_decoded(clips, tmp_path):
    (tmp_path / "labels.csv").write_text("path,labels\na.mp4,red\n")
    with pytest.raises(InputError, match=r"no row for 3 of the 4 videos"):
        extract(clips, tmp_path / "out", labels=tmp_path / "labels.csv")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"extractor": "best"}, "is no extractor"),
        ({"jobs": 0}, "jobs"),
        ({"on_damaged": "drop"}, "on_damaged"),
        ({"max_seconds": 0}, "max_seconds"),
        ({"fps": 100}, "fps"),
        ({"unlabelled": "no"}, "unlabelled"),
    ],
)
def test_senseless_options_are_one_sentence(clips, tmp_path, options, said):
    with pytest.raises(InputError, match=said):
        extract(clips, tmp_path / "out", **options)


def test_what_does_not_exist_or_holds_nothing_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="gone does not exist"):
        topgb.extract(tmp_path / "gone", tmp_path / "out", progress=False)
    with pytest.raises(InputError, match="holds no video, sound or picture"):
        topgb.extract(tmp_path, tmp_path / "out", progress=False)


def test_the_extra_is_named_where_pyav_is_missing(clips, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(TopgbError, match=r"needs PyAV, .* pip install '\.\[video\]'"):
        extract(clips, tmp_path / "out")


def test_packing_the_features_keeps_their_extractor(extracted, tmp_path):
    packed = topgb.pack(extracted[0] / "features", tmp_path / "out", progress=False).description
    described = read_description(extracted[0] / "dataset.yaml")
    assert packed.extractor == described.extractor
    assert read_description(tmp_path / "out" / "dataset.yaml").ffmpeg == described.ffmpeg == ffmpeg_version()


def test_features_of_two_extractors_are_not_packed_together(clips, extracted, tmp_path):
    features = tmp_path / "features"
    shutil.copytree(extracted[0] / "features", features)
    other = tmp_path / "other"
    extract(clips / "a.mp4", other, fps=2.0)
    shutil.copy(other / "features" / "a.npz", features / "z.npz")
    with pytest.raises(
        InputError, match=r"z\.npz was made by the extractor default .*, .*a\.npz by default .*: fps is 2"
    ):
        topgb.pack(features, tmp_path / "out", progress=False)
    # Nobody knows what made this one.
    np.savez(features / "z.npz", **dict(np.load(features / "a.npz")))
    assert topgb.pack(features, tmp_path / "out", progress=False).description.extractor is None


def test_another_version_of_ffmpeg_is_noted_and_refuses_nothing(clips, extracted, tmp_path, monkeypatch):
    shutil.copytree(extracted[0], tmp_path / "data")
    stored = tmp_path / "data" / "features" / "a.npz"
    stored.write_bytes(stored.read_bytes().replace(f'"ffmpeg": "{ffmpeg_version()}"'.encode(), b'"ffmpeg": "7.0.1"'))
    assert extract(clips, tmp_path / "data", force=True).decoded == 0
    versions = read_description(tmp_path / "data" / "dataset.yaml").ffmpeg.split(", ")
    assert sorted(versions) == sorted({"7.0.1", ffmpeg_version()})


def test_features_of_videos_that_are_gone_stay_out_of_the_records_and_are_said(
    clips, extracted, tmp_path, capsys, monkeypatch
):
    shutil.copytree(extracted[0], tmp_path / "data")
    arguments = ["topgb", "extract", clips / "a.mp4", "--out", tmp_path / "data", "--force"]
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    with pytest.raises(SystemExit) as ended:
        run()
    assert not ended.value.code
    gone = [tmp_path / "data" / "features" / name for name in ("b.npz", "deep/a.npz", "deep/c.npz")]
    size = sum(path.stat().st_size for path in gone)
    assert f"stale     3 files ({size / 1e6:,.1f} MB) in features/" in capsys.readouterr().out
    described = read_description(tmp_path / "data" / "dataset.yaml")
    dataset = open_dataset(str(tmp_path / "data" / "train*.tfrecord"), described.spec, described.classes, 300)
    assert [batch.ids for batch in evaluation_batches(dataset, 10)] == [["a"]]


@pytest.mark.parametrize(
    "form", ["{}", "./{}", "clips/{}", "./clips/{}", r"clips\{}", r".\clips\{}", "{folder}/{}", "../set/clips/{}"]
)
@pytest.mark.parametrize("ending", [True, False])
def test_labels_beside_the_folder_may_name_it(clips, tmp_path, form, ending):
    folder = tmp_path / "set" / "clips"
    entries = []
    for one in ("a.mp4", "deep/a.mp4", "deep/c.wav"):
        entries.append(
            Entry(os.path.splitext(one)[0], (VideoFile(os.path.splitext(one)[0], Found(f"{folder}/{one}", one)),))
        )
    rows = {}
    for entry in entries:
        below = entry.parts[0].found.below if ending else entry.id
        rows[form.format(below.replace("/", "\\") if "\\" in form else below, folder=folder)] = (entry.id,)
    found = match_rows(rows, entries, tmp_path / "set" / "labels.csv")
    assert found == {entry.id: (entry.id,) for entry in entries}
    # From elsewhere the folder's name alone tells, unless the path is that of a folder below.
    if ".." not in form:
        assert match_rows(rows, entries, tmp_path / "elsewhere" / "labels.csv") == found
