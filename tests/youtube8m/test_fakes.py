"""Dropping fake videos: which are kept, and that what is kept is the same bytes."""

import gzip

import numpy as np
import pytest

from topgb.errors import DamagedRecordError, InputError, TopgbError
from topgb.records.codec import encode_example, encode_sequence_example
from topgb.records.framing import frame_record
from topgb.records.protobuf_decoding import parse_record
from topgb.records.shards import Shard, open_shard
from topgb.youtube8m.deviations import deviations_from_csv
from topgb.youtube8m.fakes import FakeCriterion, drop_fakes

WIDTH = 64


def frames(name, spread, seed=0):
    """A frame-level record whose mean rgb has about the given deviation, whatever its frames have."""
    generator = np.random.default_rng(seed)
    mean = spread * np.tile([1, -1], WIDTH // 2)
    values = mean + generator.uniform(-0.3, 0.3, (9, WIDTH))
    values -= values.mean(0) - mean
    codes = np.clip(np.rint((values + 2 - 4 / 512) * 255 / 4), 0, 255).astype(np.uint8)
    return encode_sequence_example(name, {"rgb": codes, "audio": codes[:, :4]}, None)


def video(name, spread):
    return encode_example(name, {"mean_rgb": np.float32(spread * np.tile([1, -1], WIDTH // 2))}, None)


@pytest.fixture
def source(tmp_path):
    """Three shards: fakes and real videos, fakes alone, real ones alone. Returns the glob and the records by file."""
    records = {
        "test00.tfrecord": [frames(f"a{n}", 0.4 if n % 3 else 0.05, n) for n in range(9)],
        "test01.tfrecord": [frames(f"b{n}", 0.04, n) for n in range(4)],
        "test02.tfrecord": [frames(f"c{n}", 0.3, n) for n in range(3)],
    }
    (tmp_path / "src").mkdir()
    for name, payloads in records.items():
        (tmp_path / "src" / name).write_bytes(b"".join(map(frame_record, payloads)))
    return f"{tmp_path}/src/*.tfrecord", records


def _dropped(csv):
    """The ids in a CSV of fakes."""
    return [row.partition(",")[0] for row in csv.read_text().splitlines()[1:]]


def test_kept_records_are_the_same_bytes(source, tmp_path):
    pattern, records = source
    seen = []
    found = drop_fakes(
        pattern,
        tmp_path / "dst",
        fakes=tmp_path / "fakes.csv",
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert sorted(path.name for path in (tmp_path / "dst").iterdir()) == ["test00.tfrecord", "test02.tfrecord"]
    first = b"".join(frame_record(records["test00.tfrecord"][n]) for n in (1, 2, 4, 5, 7, 8))
    assert (tmp_path / "dst/test00.tfrecord").read_bytes() == first
    assert (tmp_path / "dst/test02.tfrecord").read_bytes() == (tmp_path / "src/test02.tfrecord").read_bytes()
    assert _dropped(tmp_path / "fakes.csv") == ["a0", "a3", "a6", "b0", "b1", "b2", "b3"]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert (found.files, found.written, found.videos, found.unlisted, found.damaged) == (3, 2, 16, 0, [])
    assert (found.kept.videos, found.dropped.videos) == (9, 7)


def test_where_the_modes_lie(source, tmp_path):
    found = drop_fakes(source[0], tmp_path / "dst")
    # Bytes are 4/255 apart, and nine frames' rounding partly cancels.
    assert found.kept.mode == pytest.approx(0.4, abs=0.01)
    assert found.kept.least == pytest.approx(0.3, abs=0.01)
    assert found.dropped.mode == pytest.approx(0.04, abs=0.01)
    assert found.dropped.greatest == pytest.approx(0.05, abs=0.01)
    assert (found.close, found.parted) == (0, True)


@pytest.mark.parametrize(
    ("deviations", "threshold", "parted", "close"),
    [
        (np.linspace(0.02, 0.4, 500), 0.1, False, 27),
        (np.concatenate([np.linspace(0.03, 0.07, 200), [0.1], np.linspace(0.2, 0.6, 300)]), 0.1, True, 1),
        (np.linspace(0.2, 0.6, 50), 0.1, False, 0),
        (np.linspace(0.01, 0.06, 50), 0.1, False, 0),
        (np.array([0.0, 0.0, 0.5]), 0.0, False, 2),
    ],
)
def test_one_mode_or_two(tmp_path, deviations, threshold, parted, close):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(b"".join(frame_record(video(f"v{n}", value)) for n, value in enumerate(deviations)))
    found = drop_fakes(str(path), tmp_path / "dst", FakeCriterion(threshold=threshold))
    assert (found.parted, found.close) == (parted, close)


def test_a_deviation_equal_to_the_threshold_is_that_of_a_fake(tmp_path):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(frame_record(video("v", 0.25)) + frame_record(video("w", 0.5)))
    found = drop_fakes(str(path), tmp_path / "dst", FakeCriterion(threshold=0.25), tmp_path / "fakes.csv")
    assert found.kept.videos == 1
    assert _dropped(tmp_path / "fakes.csv") == ["v"]


def test_deviations_from_a_csv(source, tmp_path):
    (tmp_path / "stds.csv").write_text("vids,std\na0,0.5\nc1,0.2\nc2,0.1\nelsewhere,3\n")
    criterion = FakeCriterion(deviations_from_csv(tmp_path / "stds.csv"))
    found = drop_fakes(source[0], tmp_path / "dst", criterion, tmp_path / "fakes.csv")
    dropped = _dropped(tmp_path / "fakes.csv")
    assert (found.kept.videos, found.dropped.videos, found.unlisted, found.videos) == (2, 1, 13, 16)
    assert len(dropped) == 14
    assert not {"a0", "c1"} & set(dropped)
    left = open_shard(Shard(str(tmp_path / "dst/test02.tfrecord")))
    assert len(left) == 1
    assert b"c1" in bytes(left.data(0))


def test_gzip_goes_by_the_name(source, tmp_path):
    plain = (tmp_path / "src/test02.tfrecord").read_bytes()
    (tmp_path / "src/test03.tfrecord.gz").write_bytes(gzip.compress(plain))
    (tmp_path / "src/test04.tfrecord").write_bytes(gzip.compress(plain))
    drop_fakes(f"{tmp_path}/src/test0[34]*", tmp_path / "dst")
    assert gzip.decompress((tmp_path / "dst/test03.tfrecord.gz").read_bytes()) == plain
    assert (tmp_path / "dst/test04.tfrecord").read_bytes() == plain
    drop_fakes(f"{tmp_path}/src/test03*", tmp_path / "again")
    copies = [(tmp_path / folder / "test03.tfrecord.gz").read_bytes() for folder in ("dst", "again")]
    assert copies[0] == copies[1]


def test_force_leaves_no_copy_of_an_earlier_threshold(source, tmp_path):
    drop_fakes(source[0], tmp_path / "dst", FakeCriterion(threshold=0))
    assert len(list((tmp_path / "dst").iterdir())) == 3
    with pytest.raises(InputError, match="test00.tfrecord exists already; .*force=True"):
        drop_fakes(source[0], tmp_path / "dst")
    found = drop_fakes(source[0], tmp_path / "dst", force=True)
    assert found.written == len(list((tmp_path / "dst").iterdir())) == 2


def test_damage(source, damage, tmp_path):
    pattern, records = source
    # A byte of audio, which no deviation is of: the CRC covers it all the same.
    damage(tmp_path / "src/test00.tfrecord", len(frame_record(records["test00.tfrecord"][0])) * 2 - 10)
    cut = (tmp_path / "src/test02.tfrecord").read_bytes()[:-1]
    (tmp_path / "src/test02.tfrecord").write_bytes(cut)
    with pytest.raises(DamagedRecordError, match="test00.tfrecord: record 1 .*CRC"):
        drop_fakes(pattern, tmp_path / "dst")
    with pytest.raises(DamagedRecordError, match="test02.tfrecord: record 2 .*cut off"):
        drop_fakes(f"{tmp_path}/src/test02*", tmp_path / "dst")
    assert not (tmp_path / "dst").exists()
    (tmp_path / "src/test03.tfrecord").write_bytes(b"")
    found = drop_fakes(pattern, tmp_path / "dst", on_damaged="skip")
    assert [(error.path[-15:-9], error.record) for error in found.damaged] == [
        ("test00", 1),
        ("test02", 2),
        ("test03", 0),
    ]
    assert (found.kept.videos, found.dropped.videos, found.written) == (7, 7, 2)
    kept = b"".join(frame_record(records["test00.tfrecord"][n]) for n in (2, 4, 5, 7, 8))
    assert (tmp_path / "dst/test00.tfrecord").read_bytes() == kept
    with pytest.raises(InputError, match="no record can be read from .*test03"):
        drop_fakes(f"{tmp_path}/src/test03*", tmp_path / "dst", on_damaged="skip")


def test_names_that_fall_on_each_other(source, tmp_path):
    pattern, _ = source
    with pytest.raises(InputError, match="lies in .*src itself"):
        drop_fakes(pattern, tmp_path / "src", force=True)
    (tmp_path / "link").symlink_to(tmp_path / "src")
    with pytest.raises(InputError, match="lies in .*link itself"):
        drop_fakes(pattern, tmp_path / "link", force=True)
    (tmp_path / "more").mkdir()
    (tmp_path / "more/test01.tfrecord").write_bytes((tmp_path / "src/test01.tfrecord").read_bytes())
    with pytest.raises(InputError, match="more/test01.tfrecord and .*src/test01.tfrecord have the same name"):
        drop_fakes(f"{pattern},{tmp_path}/more/*", tmp_path / "dst")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file; the copies need a directory"):
        drop_fakes(pattern, tmp_path / "file")
    assert not (tmp_path / "dst").exists()


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf")])
def test_thresholds_that_are_none(source, tmp_path, threshold):
    with pytest.raises(InputError, match="threshold"):
        drop_fakes(source[0], tmp_path / "dst", FakeCriterion(threshold=threshold))


def test_a_folder_that_cannot_be_written(source, tmp_path, monkeypatch):
    def refuse(*arguments, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("topgb.file_sets.os.fsync", refuse)
    with pytest.raises(TopgbError, match="cannot write .*test00.tfrecord: No space left") as caught:
        drop_fakes(source[0], tmp_path / "dst")
    assert caught.value.exit_code == 1
    assert not (tmp_path / "dst").exists()


def test_real_videos_are_no_fakes(real_data, tmp_path):
    folder = real_data / "yt8m-2018-video"
    for part, videos in (("train", 12_861), ("validate", 2_252)):
        found = drop_fakes(f"{folder}/{part}/*.tfrecord", tmp_path / part)
        assert (found.kept.videos, found.dropped.videos, found.close, found.parted) == (videos, 0, 0, False)
        assert 0.11 < found.kept.least < 0.14
        assert 0.33 < found.kept.mode < 0.36
        for path in (folder / part).iterdir():
            assert (tmp_path / part / path.name).read_bytes() == path.read_bytes()


def test_real_values_are_dequantised_and_not_normalised(real_data):
    """A video-level mean has the range of dequantised frames, so that one threshold suits both levels."""
    extremes, norms = [], []
    for path in sorted((real_data / "yt8m-2018-video/train").iterdir()):
        opened = open_shard(Shard(str(path)))
        for record in range(len(opened)):
            context = parse_record(opened.data(record), opened.place(record)).context
            values = np.array(context.feature["mean_rgb"].float_list.value, np.float32)
            extremes += [values.min(), values.max()]
            norms.append(np.linalg.norm(values))
    assert (min(extremes), max(extremes)) == (4 / 512 - 2, 2 + 4 / 512)
    assert min(norms) > 3
