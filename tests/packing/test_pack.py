"""A user's own features become records: what is written, and which options are wrong."""

from pathlib import Path

import numpy as np
import pytest

from topgb.errors import InputError, TopgbError
from topgb.features import Feature, FeatureSpec
from topgb.packing.pack import PackOptions, pack
from topgb.packing.writer import in_validation
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.description import find_description
from topgb.records.inspect import inspect_shards
from topgb.records.labels import Targets
from topgb.records.verify import verify_shards
from topgb.vocabulary import read_vocabulary, write_vocabulary


def _frames(number: int, width: int = 6) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(2 + number % 5, width)).astype(np.float32)


@pytest.fixture
def features(tmp_path) -> Path:
    """Twenty videos in `.npy` files, of 2 to 6 frames."""
    folder = tmp_path / "features"
    folder.mkdir()
    for number in range(20):
        np.save(folder / f"v{number:02d}.npy", _frames(number))
    return folder


@pytest.fixture
def labels(tmp_path) -> Path:
    """Odd videos show a cat, every fifth a dog."""
    rows = [f"v{n:02d}," + ";".join(["cat"] * (n % 2) + ["dog"] * (n % 5 == 0)) for n in range(20)]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(["id,labels", *rows, "gone,cat;bird"]) + "\n")
    return path


def _read(folder: Path, part: str = "train") -> dict[str, tuple[np.ndarray, list[int] | None]]:
    """The dequantised features and the labels of each video, by its id."""
    described = find_description(f"{folder}/{part}*.tfrecord")
    scale, offset = (
        np.concatenate([np.full(f.size, getattr(f, key)) for f in described.spec.features])
        for key in ("scale", "offset")
    )
    labelled = described.classes is not None
    data = open_dataset(
        f"{folder}/{part}*.tfrecord", described.spec, described.classes or 1, 300, targets=Targets(labelled)
    )
    found = {}
    for batch in evaluation_batches(data, 7):
        for row, video_id in enumerate(batch.ids):
            values = batch.features[row, : batch.num_frames[row]].numpy() * scale + offset
            found[video_id] = values, batch.labels[row].nonzero()[:, 0].tolist() if labelled else None
    return found


def test_frames_and_labels_come_back(features, labels, tmp_path):
    out = tmp_path / "packed"
    packed = pack(str(features), out, labels, options=PackOptions(videos_per_shard=8))
    assert sorted(path.name for path in out.iterdir()) == [
        "dataset.yaml",
        "train0000.tfrecord",
        "train0001.tfrecord",
        "train0002.tfrecord",
        "vocabulary.csv",
    ]
    assert (packed.train, packed.validate, packed.labels, packed.absent) == (20, 0, 14, 1)
    assert (out / "vocabulary.csv").read_text() == "Index,TrainVideoCount,Name\n0,10,cat\n1,4,dog\n"
    feature = packed.description.spec.features[0]
    assert (feature.name, feature.size, feature.dtype) == ("embedding", 6, "uint8")
    found = _read(out)
    assert list(found) == [f"v{number:02d}" for number in range(20)]
    squares = 0.0
    for number in range(20):
        values, classes = found[f"v{number:02d}"]
        assert classes == [0] * (number % 2) + [1] * (number % 5 == 0)
        wanted = _frames(number)
        assert np.abs(values - np.clip(wanted, *feature.range)).max() <= 0.51 * feature.scale
        squares += np.square(values - wanted).sum()
    assert 0 < packed.quantised["embedding"].error < 0.02
    assert packed.quantised["embedding"].clipped < 0.03
    assert squares > 0
    assert not verify_shards(f"{out}/*.tfrecord").damaged


def test_the_same_input_gives_the_same_bytes(features, labels, tmp_path):
    for name in ("a", "b"):
        pack(str(features), tmp_path / name, labels, options=PackOptions(validate=0.3))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_videos_to_validate_on_stay_there_when_others_come(features, labels, tmp_path):
    packed = pack(str(features), tmp_path / "all", labels, options=PackOptions(validate=0.3))
    held_out = set(_read(tmp_path / "all", "validate"))
    assert packed.validate == len(held_out) > 0
    assert packed.train == 20 - len(held_out)
    assert not held_out & set(_read(tmp_path / "all"))
    pack(f"{features}/v0*.npy", tmp_path / "some", labels, options=PackOptions(validate=0.3))
    assert set(_read(tmp_path / "some", "validate")) == {name for name in held_out if name < "v10"}
    share = sum(in_validation(str(number), 0.3) for number in range(5000)) / 5000
    assert share == pytest.approx(0.3, abs=0.03)


def test_classes_count_the_training_videos_alone(features, labels, tmp_path):
    pack(str(features), tmp_path / "p", labels, options=PackOptions(validate=0.3))
    counts = [int(line.split(",")[1]) for line in (tmp_path / "p/vocabulary.csv").read_text().splitlines()[1:]]
    shown = [classes for _, classes in _read(tmp_path / "p").values()]
    assert counts == [sum(number in classes for classes in shown) for number in range(2)]


def test_whole_videos_are_kept_as_floats(tmp_path):
    (tmp_path / "f").mkdir()
    for number in range(3):
        np.save(tmp_path / f"f/v{number}.npy", _frames(number)[0].astype(np.float64))
    packed = pack(f"{tmp_path}/f/*.npy", tmp_path / "p", options=PackOptions(name="clip"))
    assert packed.description.spec == FeatureSpec("video", (Feature("clip", 6, "float32"),))
    assert packed.description.classes is None
    assert packed.quantised == {}
    assert not (tmp_path / "p/vocabulary.csv").exists()
    found = inspect_shards(f"{tmp_path}/p/*.tfrecord")
    assert (found.level, found.labelled, found.records) == ("video", 0, 3)
    assert np.array_equal(_read(tmp_path / "p")["v2"][0][0], _frames(2)[0])
    as_bytes = pack(f"{tmp_path}/f/*.npy", tmp_path / "b", options=PackOptions(name="clip", store="bytes"))
    assert as_bytes.description.spec.features[0].dtype == "uint8"
    assert np.abs(_read(tmp_path / "b")["v2"][0] - _frames(2)[0]).max() < 0.02


def test_archives_of_several_features_of_several_kinds(tmp_path):
    (tmp_path / "f").mkdir()
    generator = np.random.default_rng(0)
    sound = generator.integers(0, 256, (4, 3), np.uint8)
    image = np.asfortranarray(generator.normal(size=(4, 5))).astype(">f8", order="F")
    half = generator.normal(size=(4, 2)).astype(np.float16)
    np.savez(tmp_path / "f/a.npz", image=image, sound=sound, half=half)
    np.savez_compressed(tmp_path / "f/b.npz", sound=sound, half=half.astype(np.float32), image=image)
    packed = pack(str(tmp_path / "f"), tmp_path / "p", options=PackOptions(store="float32"))
    assert packed.description.spec == FeatureSpec(
        "frame", (Feature("image", 5, "float32"), Feature("sound", 3), Feature("half", 2, "float32"))
    )
    found = _read(tmp_path / "p")
    for video in "ab":
        values = found[video][0]
        assert np.array_equal(values[:, :5], image.astype(np.float32))
        assert values[:, 5:8] == pytest.approx(sound * (4 / 255) + 4 / 512 - 2)
        assert np.array_equal(values[:, 8:], half.astype(np.float32))


def test_ranges_by_hand_are_recorded(tmp_path):
    (tmp_path / "f").mkdir()
    np.savez(tmp_path / "f/a.npz", x=np.array([[0.5, 9.0]]), y=np.zeros((1, 2), np.uint8), z=np.ones((1, 1)))
    packed = pack(str(tmp_path / "f"), tmp_path / "p", options=PackOptions(ranges={None: (-1.0, 1.0), "y": (0.0, 6.0)}))
    assert [feature.range for feature in packed.description.spec.features] == [(-1, 1), (0, 6), (-1, 1)]
    assert packed.quantised["x"].clipped == 0.5
    assert packed.quantised["x"].error == pytest.approx(8 / np.hypot(0.5, 9), rel=0.01)
    assert set(packed.quantised) == {"x", "z"}
    assert find_description(f"{tmp_path}/p/*.tfrecord").spec == packed.description.spec


def test_a_vocabulary_sets_order_and_number_of_the_classes(features, labels, tmp_path):
    write_vocabulary(tmp_path / "v.csv", ["bird", "dog", "cat"])
    packed = pack(str(features), tmp_path / "p", labels, vocabulary=tmp_path / "v.csv")
    assert packed.description.classes == 3
    assert read_vocabulary(tmp_path / "p/vocabulary.csv") == ("bird", "dog", "cat")
    assert _read(tmp_path / "p")["v05"][1] == [1, 2]
    write_vocabulary(tmp_path / "v.csv", ["bird", "dog"], force=True)
    with pytest.raises(InputError, match="v01.npy: its label 'cat' is not in the vocabulary"):
        pack(str(features), tmp_path / "q", labels, vocabulary=tmp_path / "v.csv")
    assert not (tmp_path / "q").exists()
    # Unlabelled videos for a model of these classes.
    unlabelled = pack(str(features), tmp_path / "u", vocabulary=tmp_path / "v.csv")
    assert unlabelled.description.classes == 2
    assert inspect_shards(f"{tmp_path}/u/*.tfrecord").labelled == 0


def test_force_replaces_an_earlier_set_whole(features, labels, tmp_path):
    out = tmp_path / "p"
    pack(str(features), out, labels, options=PackOptions(videos_per_shard=2, validate=0.3))
    (out / "train_mine.tfrecord").write_bytes(b"x")
    with pytest.raises(InputError, match="train0000.tfrecord exists already.*force=True"):
        pack(str(features), out, labels)
    pack(str(features), out, labels, force=True)
    assert sorted(path.name for path in out.iterdir()) == [
        "dataset.yaml",
        "train0000.tfrecord",
        "train_mine.tfrecord",
        "vocabulary.csv",
    ]


def test_a_full_disk_leaves_the_earlier_set(features, labels, tmp_path, monkeypatch):
    out = tmp_path / "p"
    pack(str(features), out, labels)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    written = 0

    def full_disk(file, payload):
        nonlocal written
        written += 1
        if written == 8:
            raise OSError(28, "No space left on device")
        file.write(b"")

    monkeypatch.setattr("topgb.packing.writer.write_record", full_disk)
    with pytest.raises(TopgbError, match="cannot write .*train0001.tfrecord: No space left"):
        pack(str(features), out, labels, options=PackOptions(videos_per_shard=5), force=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_nothing_is_written_where_the_input_is_wrong(features, labels, tmp_path):
    np.save(features / "v99.npy", _frames(0))
    with pytest.raises(InputError, match="labels.csv has no row for the id 'v99' of .*v99.npy; add one"):
        pack(str(features), tmp_path / "p", labels)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"validate": 1.0}, "between 0 and 1"),
        ({"validate": float("nan")}, "between 0 and 1"),
        ({"validate": 1e-9}, "takes none of the 20 videos"),
        ({"validate": 0.999999}, "takes all of the 20 videos"),
        ({"videos_per_shard": 0}, "1 or more"),
        ({"name": "labels"}, "name: no feature can be called 'labels'"),
        ({"name": "a.b"}, "no dot"),
        ({"ranges": {None: (2.0, 1.0)}}, "low must be below high"),
        ({"ranges": {None: (float("nan"), 1.0)}}, "finite"),
        ({"ranges": {None: (0.0, 1.0)}, "store": "float32"}, "no feature is stored as bytes"),
        ({"ranges": {"rgb": (0.0, 1.0)}}, "names 'rgb', and there is no such feature; there are: embedding"),
        ({"ranges": {"embedding": (0.0, 1.0)}, "store": "float32"}, "no feature 'embedding' is stored as bytes"),
        ({"source": "{tmp}/absent"}, "names no features"),
        ({"source": "{tmp}/*.csv"}, "names no features"),
        ({"source": "{labels}"}, "names no features"),
        ({"labels": "{tmp}"}, "is not a file"),
        ({"vocabulary": "{labels}"}, "no column Index"),
        ({"out": "{labels}"}, "is a file, not a directory"),
        ({"out": "{labels}/x"}, "is a file, not a directory"),
    ],
)
def test_wrong_options_are_one_sentence(features, labels, tmp_path, options, words):
    options = dict(options)
    places = {"tmp": tmp_path, "labels": labels}
    given = {"source": str(features), "out": str(tmp_path / "p"), "labels": str(labels), "vocabulary": None}
    for key, text in given.items():
        text = options.pop(key, text)
        given[key] = None if text is None else text.format(**places) if key == "source" else Path(text.format(**places))
    with pytest.raises(InputError, match=words):
        pack(**given, options=PackOptions(**options))
    assert not (tmp_path / "p").exists()


def test_labels_without_a_single_class_are_refused(features, tmp_path):
    (tmp_path / "l.csv").write_text("id,labels\n" + "".join(f"v{number:02d},\n" for number in range(20)))
    with pytest.raises(InputError, match="no video has a label"):
        pack(str(features), tmp_path / "p", tmp_path / "l.csv")


def test_a_folder_in_place_of_a_file_and_hidden_files(features, labels, tmp_path):
    (features / "._v00.npy").write_bytes(b"what a Mac leaves behind")
    assert pack(str(features), tmp_path / "p", labels).train == 20
    (features / "w.npy").mkdir()
    with pytest.raises(InputError, match="w.npy is not a file"):
        pack(str(features), tmp_path / "q", labels)


def test_a_name_that_is_not_utf8_is_refused(features, tmp_path):
    (features / "v00.npy").rename(features / "v\udcff.npy")
    with pytest.raises(InputError, match="not UTF-8"):
        pack(str(features), tmp_path / "p")
