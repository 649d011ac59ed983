"""How much a video's vector varies: from records of either level, and from a CSV."""

import numpy as np
import pytest

from topgb.errors import DamagedRecordError, InputError, UnfitRecordError
from topgb.features import YOUTUBE8M_FRAMES
from topgb.records.codec import encode_example, encode_sequence_example
from topgb.records.framing import Place
from topgb.youtube8m.deviations import Spread, deviations_from_csv, deviations_from_records, spread_of

HERE = Place("x.tfrecord", 7, 99)


def _measure(payload, feature=None):
    return deviations_from_records(feature)(memoryview(payload), HERE)


def test_both_levels_of_a_video_give_the_deviation_of_its_dequantised_mean():
    rgb = np.random.default_rng(1).integers(0, 256, (37, 50), np.uint8)
    dequantised = [[value * 4 / 255 + 4 / 512 - 2 for value in frame] for frame in rgb.tolist()]
    mean = [sum(column) / 37 for column in zip(*dequantised, strict=True)]
    centre = sum(mean) / 50
    expected = (sum((value - centre) ** 2 for value in mean) / 50) ** 0.5
    frames = encode_sequence_example("v", {"rgb": rgb, "audio": rgb[:, :3]}, [1])
    assert _measure(frames) == ("v", pytest.approx(expected, rel=1e-9))
    video = encode_example("v", {"mean_audio": np.float32([5, 9]), "mean_rgb": np.float32(mean)}, None)
    assert _measure(video) == ("v", pytest.approx(expected, rel=1e-6))


def test_frames_of_floats_and_videos_of_bytes():
    floats = encode_sequence_example("v", {"rgb": np.float32([[0, 10], [4, 10]])}, None)
    assert _measure(floats)[1] == pytest.approx(4)
    stored = encode_example("v", {"mean_rgb": np.uint8([0, 255])}, None)
    assert _measure(stored)[1] == pytest.approx(2)


def test_each_record_is_measured_by_itself():
    measure = deviations_from_records()
    for width in (4, 6, 4):
        values = np.float32([1, 2] * (width // 2))
        video = encode_example("video", {"mean_rgb": values}, None)
        frames = encode_sequence_example("frame", {"rgb": np.float32([values, values + 2])}, None)
        for payload in (video, frames, video):
            assert measure(memoryview(payload), HERE)[1] == pytest.approx(0.5)


def test_another_feature():
    payload = encode_sequence_example("v", {"rgb": np.float32([[1, 2]]), "x": np.float32([[1, 4]])}, None)
    assert _measure(payload)[1] == 0.5
    assert _measure(payload, "x")[1] == 1.5


@pytest.mark.parametrize(
    ("payload", "kind", "words"),
    [
        (
            encode_sequence_example("v", {"a": np.float32([[1, 2]])}, None),
            InputError,
            "'rgb' or 'mean_rgb'; it has: a;",
        ),
        (encode_example("v", {}, None), InputError, "it has: none; name one of those with feature"),
        (encode_example("v", {"rgb": np.float32([1])}, None), InputError, "'rgb' has fewer than two values"),
        (encode_example("v", {"rgb": np.float32([])}, None), InputError, "'rgb' has fewer than two values"),
        (encode_sequence_example("v", {"rgb": np.float32([[1, 2]])[:0]}, None), DamagedRecordError, "has no frames"),
        (encode_example("v", {"rgb": np.float32([1, np.nan])}, None), DamagedRecordError, "not finite"),
        (b"\xff" * 9, UnfitRecordError, "no Example or SequenceExample"),
        (encode_example("v", {"rgb": np.float32([1, 2])}, None).replace(b"id", b"ix"), DamagedRecordError, "no id"),
    ],
)
def test_records_that_cannot_be_measured(payload, kind, words):
    with pytest.raises(kind, match="record 7 at byte 99") as caught:
        _measure(payload)
    assert words in str(caught.value)
    assert isinstance(caught.value, DamagedRecordError) == issubclass(kind, DamagedRecordError)


def test_labels_as_a_feature():
    payload = encode_example("v", {"rgb": np.float32([1, 2])}, [1, 2])
    with pytest.raises(InputError, match="'labels' holds neither bytes nor floats"):
        _measure(payload, "labels")


def test_a_csv(tmp_path):
    path = tmp_path / "stds.csv"
    path.write_text('\ufeff,std,vids\n0,0.25,a\n1,1e-3,"b,""c"\n\n')
    measure = deviations_from_csv(path)
    found = [measure(memoryview(encode_example(name, {}, None)), HERE) for name in ("a", 'b,"c', "d")]
    assert found == [("a", 0.25), ('b,"c', 0.001), ("d", None)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no text"),
        ("name,sd\na,1\n", "no column 'vids'"),
        ("vids,sd\na,1\n", "no column 'std' in its first line"),
        ("vids,std\na,1\nb\n", "line 3 has 1 columns and the first line 2"),
        ("vids,std\na,1\nb,1\na,1\n", "line 4 names video 'a' again"),
        ("vids,std\na,one\n", "line 2 has the std 'one'; it must be a number from 0"),
        ("vids,std\na,nan\n", "line 2 has the std 'nan'"),
        ("vids,std\na,-1\n", "line 2 has the std '-1'"),
        ("vids,std\na,inf\n", "line 2 has the std 'inf'"),
        ('vids,std\n"a,1\nb,1\n', "line 2 is not a row of a CSV"),
    ],
)
def test_a_csv_that_is_none(tmp_path, text, words):
    path = tmp_path / "stds.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        deviations_from_csv(path)
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)


def test_where_deviations_lie():
    assert spread_of(np.array([])) == Spread(0)
    assert spread_of(np.array([3.0])) == Spread(1, 3.0, 3.0, 3.0, 0.0)
    # Of nine values the shortest interval with five is 5.0 to 5.4.
    values = np.array([5.4, 0, 9, 5.0, 5.1, 1, 5.2, 5.3, 7])
    found = spread_of(values)
    assert (found.videos, found.least, found.greatest) == (9, 0, 9)
    assert (found.mode, found.width) == (pytest.approx(5.2), pytest.approx(0.4))


def test_the_usual_features_are_youtube8ms():
    rgb = np.zeros((2, 1024), np.uint8)
    record = encode_sequence_example("v", {f.name: rgb[:, : f.size] for f in YOUTUBE8M_FRAMES.features}, None)
    assert _measure(record) == ("v", 0.0)
