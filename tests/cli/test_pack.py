"""topgb data pack: what it writes, what it says, and each wrong input as one sentence."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from cli.program import topgb
from topgb.packing.source import SUFFIXES

IDS = [f"v{number:02d}" for number in range(24)]


def _write_labels(path, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["id", "labels"], *rows])


@pytest.fixture
def source(tmp_path):
    """24 videos of 3 to 5 frames, 6 wide, and their labels in `labels.csv`."""
    generator = np.random.default_rng(0)
    (tmp_path / "features").mkdir()
    for number, video_id in enumerate(IDS):
        np.save(tmp_path / f"features/{video_id}.npy", generator.normal(size=(3 + number % 3, 6)).astype(np.float32))
    _write_labels(tmp_path / "labels.csv", [[i, "cat;dog" if n % 3 else "cat"] for n, i in enumerate(IDS)])
    return tmp_path


def _pack(source, *more, features="features", labels=True, out="packed"):
    named = ["--labels", source / "labels.csv"] if labels else []
    return topgb("data", "pack", source / features, "--out", source / out, *named, *more)


def test_records_vocabulary_and_description(source):
    done = _pack(source, "--validate", "0.3", "--videos-per-shard", "10")
    assert done.returncode == 0, done.stderr
    assert "24 videos, frame level" in done.stdout
    assert "2 classes in vocabulary.csv, 1.67 a video" in done.stdout
    described = yaml.safe_load((source / "packed/dataset.yaml").read_text())
    assert described["level"] == "frame"
    assert described["classes"] == 2
    assert described["vocabulary"] == "vocabulary.csv"
    (feature,) = described["features"]
    assert (feature["name"], feature["size"], feature["dtype"]) == ("embedding", 6, "uint8")
    assert (source / "packed/vocabulary.csv").read_text().splitlines()[1].endswith(",cat")
    done = topgb("data", "inspect", source / "packed/*.tfrecord")
    assert "24 records, frame level" in done.stdout
    assert topgb("data", "verify", source / "packed/*.tfrecord").returncode == 0


def test_the_same_input_gives_the_same_bytes_and_needs_force_to_replace(source):
    assert _pack(source, "--videos-per-shard", "5").returncode == 0
    before = {path.name: path.read_bytes() for path in (source / "packed").iterdir()}
    done = _pack(source, "--videos-per-shard", "5")
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert _pack(source, "--videos-per-shard", "5", "--force").returncode == 0
    assert {path.name: path.read_bytes() for path in (source / "packed").iterdir()} == before
    assert _pack(source, "--videos-per-shard", "100", "--force").returncode == 0
    assert [path.name for path in (source / "packed").glob("*.tfrecord")] == ["train0000.tfrecord"]


def test_labels_of_absent_videos_are_counted(source):
    with open(source / "labels.csv", "a") as file:
        file.write("absent,cat\n")
    assert "the labels of 1 videos that have no features" in _pack(source).stdout


def test_a_video_stays_in_its_part_when_others_are_added(source):
    def validated(out):
        text = topgb("data", "inspect", source / out / "validate*.tfrecord", "--json")
        return yaml.safe_load(text.stdout)["records"]

    assert _pack(source, "--validate", "0.5", out="all").returncode == 0
    few = "features/v0*.npy"
    assert _pack(source, "--validate", "0.5", features=few, out="few").returncode == 0
    rest = "features/v[12]*.npy"
    assert _pack(source, "--validate", "0.5", features=rest, out="rest").returncode == 0
    assert validated("all") == validated("few") + validated("rest")


def test_a_table_gives_the_records_of_the_arrays(source):
    pyarrow = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    from pyarrow import parquet

    arrays = [np.load(source / f"features/{video_id}.npy") for video_id in IDS]
    labels = [["cat", "dog"] if number % 3 else ["cat"] for number in range(len(IDS))]
    columns = {"id": IDS, "labels": labels, "embedding": [array.tolist() for array in arrays]}
    kinds = {
        "id": pyarrow.string(),
        "labels": pyarrow.list_(pyarrow.string()),
        "embedding": pyarrow.list_(pyarrow.list_(pyarrow.float32(), 6)),
    }
    table = pyarrow.table({name: pyarrow.array(values, kinds[name]) for name, values in columns.items()})
    parquet.write_table(table, source / "table.parquet", row_group_size=7)
    assert _pack(source).returncode == 0
    done = _pack(source, features="table.parquet", labels=False, out="table")
    assert done.returncode == 0, done.stderr
    for name in ("train0000.tfrecord", "vocabulary.csv", "dataset.yaml"):
        assert (source / "table" / name).read_bytes() == (source / "packed" / name).read_bytes()


def _save(source, name, array):
    np.save(source / f"features/{name}.npy", array)


def _save_header(source, text):
    header = text.encode() + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(72)
    (source / "features/v05.npy").write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda s: _save(s, "v05", np.full((2, 6), np.nan, np.float32)), "v05.npy"),
        (lambda s: _save(s, "v05", np.zeros((0, 6), np.float32)), "v05.npy"),
        (lambda s: _save(s, "v05", np.zeros((2, 7), np.float32)), "v05.npy"),
        (lambda s: _save(s, "v05", np.zeros(6, np.float32)), "v05.npy"),
        (lambda s: _save(s, "v05", np.zeros((2, 6), np.uint8)), "v05.npy"),
        (lambda s: _save(s, "v05", np.zeros((2, 6), np.int64)), "int64"),
        (lambda s: _save(s, "v05", np.zeros((2, 3, 1), np.float32)), "v05.npy"),
        (lambda s: _save(s, "new", np.zeros((2, 6), np.float32)), "'new'"),
        (lambda s: np.savez(s / "features/v05.npz", embedding=np.zeros((2, 6), np.float32)), "v05"),
        (lambda s: (s / "features/v05.npy").write_bytes(b""), "v05.npy"),
        (lambda s: (s / "features/v05.npy").write_bytes(b"\x80\x04N."), "v05.npy"),
        (lambda s: np.save(s / "features/v05.npy", np.array([{}], object)), "v05.npy"),
        (lambda s: _save_header(s, "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 6L"), "v05.npy"),
        (lambda s: _save_header(s, "{'descr': '<f4', 'fortran_order': False, 'shape': (9999999, 99999)}"), "v05.npy"),
        (lambda s: (s / "features/v05.npz").write_bytes(b"PK\x03\x04 broken"), "v05.npz"),
        (lambda s: (s / "labels.csv").write_bytes(b"\xff\xfe\0"), "labels.csv"),
        (lambda s: (s / "labels.csv").write_text(""), "labels.csv"),
        (lambda s: (s / "labels.csv").write_text("video,labels\nv00,cat\n"), "no column 'id'"),
        (lambda s: (s / "labels.csv").write_text("id,labels\nv00,cat,dog\n"), "line 2"),
        (lambda s: (s / "labels.csv").write_text("id,labels\n"), "labels no video"),
        (lambda s: (s / "labels.csv").unlink(), "cannot read"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(source, spoil, words):
    spoil(source)
    done = _pack(source)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (source / "packed").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--range", "5"], "LOW,HIGH"),
        (["--range=2,-2"], "LOW,HIGH"),
        (["--range=nan,2"], "LOW,HIGH"),
        (["--range", "rgb:0,1"], "'rgb'"),
        (["--store", "float32", "--range", "0,1"], "--range"),
        (["--validate", "1.5"], "--validate"),
        (["--validate", "1e-9"], "--validate"),
        (["--name", "labels"], "'labels'"),
        (["--name", "a.b"], "'a.b'"),
        (["--vocabulary", "{tmp}/few.csv"], "'dog'"),
    ],
)
def test_wrong_options_are_one_sentence_and_write_nothing(source, more, words):
    (source / "few.csv").write_text("Index,Name\n0,cat\n")
    done = _pack(source, *[text.format(tmp=source) for text in more])
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (source / "packed").exists()


def test_training_takes_the_description_and_what_does_not_fit_is_one_sentence(source):
    assert _pack(source).returncode == 0
    train = ["--data", source / "packed/train*.tfrecord", "--device", "cpu"]
    done = topgb("train", "demo", *train, "--out", source / "run")
    assert done.returncode == 2
    assert "'model.clusters' names rgb, audio; the model's features are embedding" in done.stderr
    small = ["--set", "model.clusters=2", "--set", "model.hidden=8", "--set", "training.epochs=1"]
    done = topgb("train", "own-frames", *train, "--out", source / "run", *small)
    assert done.returncode == 0, done.stderr
    assert f"described by {source}/packed/dataset.yaml" in done.stderr
    shown = topgb("model", "show", source / "run/model.safetensors").stdout
    assert "0 cat, 1 dog" in shown
    done = topgb("train", "own-frames", *train, "--out", source / "run2", "--set", "data.classes=0", *small)
    assert done.returncode == 2
    assert "data.classes" in done.stderr


@pytest.mark.parametrize(
    "text", ["", "[", "level: frame", "a: 1", "\0", "level: frame\nfeatures: [{name: x, size: -1}]", "features: 3"]
)
def test_a_broken_description_is_one_sentence(source, text):
    assert _pack(source).returncode == 0
    (source / "packed/dataset.yaml").write_text(text)
    data = ["--data", source / "packed/train*.tfrecord", "--out", source / "run"]
    done = topgb("train", "own-frames", *data)
    assert done.returncode == 2
    assert "dataset.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_video_level_keeps_floats(tmp_path):
    (tmp_path / "features").mkdir()
    for video_id in IDS:
        np.savez(tmp_path / f"features/{video_id}.npz", image=np.ones(4, np.float16), sound=np.ones(3, np.uint8))
    _write_labels(tmp_path / "labels.csv", [[video_id, "cat"] for video_id in IDS])
    done = _pack(tmp_path)
    assert done.returncode == 0, done.stderr
    described = yaml.safe_load((tmp_path / "packed/dataset.yaml").read_text())
    assert described["level"] == "video"
    assert [(f["name"], f["size"], f["dtype"]) for f in described["features"]] == [
        ("image", 4, "float32"),
        ("sound", 3, "uint8"),
    ]


def test_unlabelled_videos_can_be_packed_and_training_on_them_says_what_is_missing(source):
    done = _pack(source, labels=False)
    assert done.returncode == 0, done.stderr
    assert "labels    none" in done.stdout
    assert not (source / "packed/vocabulary.csv").exists()
    done = topgb("train", "own-frames", "--data", source / "packed/*.tfrecord", "--out", source / "run")
    assert done.returncode == 2
    assert "'data.classes' is missing" in done.stderr


def test_validating_on_records_of_another_range_is_refused(source):
    assert _pack(source, "--range=-3,3", out="one").returncode == 0
    assert _pack(source, "--range=-4,4", out="two").returncode == 0
    data = ["--data", source / "one/*.tfrecord", "--validate", source / "two/*.tfrecord"]
    done = topgb("train", "own-frames", *data, "--out", source / "run")
    assert done.returncode == 2
    assert "two/dataset.yaml" in done.stderr
    assert "--range embedding:-3,3" in done.stderr


def test_own_videos_trains_on_vectors(tmp_path):
    (tmp_path / "features").mkdir()
    centres = np.eye(2, 5)
    for number, video_id in enumerate(IDS):
        np.save(tmp_path / f"features/{video_id}.npy", centres[number % 2] + 0.01 * number)
    _write_labels(tmp_path / "labels.csv", [[i, "even" if n % 2 == 0 else "odd"] for n, i in enumerate(IDS)])
    assert _pack(tmp_path).returncode == 0
    data = tmp_path / "packed/train*.tfrecord"
    done = topgb("train", "own-videos", "--data", data, "--out", tmp_path / "run", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert topgb("predict", tmp_path / "run", data, "--out", tmp_path / "p.csv", "--names").returncode == 0
    with open(tmp_path / "p.csv", newline="") as file:
        found = {row["VideoId"]: row["ClassNames"].split("; ")[0] for row in csv.DictReader(file)}
    assert found == {i: "even" if n % 2 == 0 else "odd" for n, i in enumerate(IDS)}


def _table(path, **columns):
    pyarrow = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path)


FRAMES = [[[1.0, 2.0]], [[3.0, 4.0]]]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"x": FRAMES}, "no column 'id'"),
        ({"id": [1.5, 2.5], "x": FRAMES}, "'id' holds double"),
        ({"id": ["a", None], "x": FRAMES}, "row 1"),
        ({"id": ["a", "a"], "x": FRAMES}, "occurs twice"),
        ({"id": ["a", "b"], "x": ["text", "text"]}, "'x' holds string"),
        ({"id": ["a", "b"], "x": [[1, 2], [3, 4]]}, "int64"),
        ({"id": ["a", "b"], "x": [[[1.0], [1.0, 2.0]], [[1.0]]]}, "1 to 2 values"),
        ({"id": ["a", "b"], "x": [[[1.0, None]], [[1.0, 2.0]]]}, "null"),
        ({"id": ["a", "b"], "x": [[[1.0]], None]}, "null"),
        ({"id": ["a", "b"], "x": [[[1.0]], []]}, "no frames"),
        ({"id": ["a", "b"], "x": FRAMES, "labels": [[1], [2]]}, "'labels' holds list"),
        ({"id": ["a", "b"], "x": FRAMES, "labels": [["cat"], None]}, "no labels (null)"),
        ({"id": ["a", "b"]}, "no feature"),
    ],
)
def test_a_wrong_table_is_one_sentence(tmp_path, columns, words):
    _table(tmp_path / "t.parquet", **columns)
    done = _pack(tmp_path, features="t.parquet", labels=False)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "packed").exists()


def test_a_table_of_numbered_videos_with_labels_as_text(tmp_path):
    _table(tmp_path / "t.parquet", id=[7, 3], image=FRAMES, labels=["cat; dog", ""])
    done = _pack(tmp_path, features="t.parquet", labels=False)
    assert done.returncode == 0, done.stderr
    assert "2 classes in vocabulary.csv, 1.00 a video" in done.stdout


def test_a_table_needs_pyarrow_and_says_so(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = _pack(tmp_path, features="t.parquet", labels=False)
    assert done.returncode
    assert "pip install '.[parquet]'" in done.stderr


def test_a_model_refuses_bytes_that_stand_for_other_values(tmp_path):
    generator = np.random.default_rng(0)
    (tmp_path / "features").mkdir()
    for number in range(12):
        np.save(tmp_path / "features" / f"v{number}.npy", generator.normal(size=(4, 6)).astype(np.float32))
    (tmp_path / "labels.csv").write_text("id,labels\n" + "".join(f"v{n},{'ab'[n % 2]}\n" for n in range(12)))
    for name, ends in (("one", "-4,4"), ("two", "-5,5")):
        done = topgb(
            *("data", "pack", tmp_path / "features", "--labels", tmp_path / "labels.csv", "--out", tmp_path / name),
            f"--range={ends}",
        )
        assert done.returncode == 0, done.stderr
    small = ("--set", "model.clusters=2", "--set", "model.hidden=8", "--set", "training.epochs=1")
    trained = topgb("train", "own-frames", "--data", f"{tmp_path}/one/train*", "--out", tmp_path / "run", *small)
    assert trained.returncode == 0, trained.stderr
    assert topgb("eval", tmp_path / "run", f"{tmp_path}/one/train*").returncode == 0
    for command in (("eval",), ("predict", "--out", tmp_path / "p.csv")):
        refused = topgb(command[0], tmp_path / "run", f"{tmp_path}/two/train*", *command[1:])
        assert refused.returncode == 2
        assert "but -4 to 4 is expected; pack with --range embedding:-4,4" in refused.stderr


def test_every_kind_of_file_that_is_read_is_named(tmp_path):
    page = (Path(__file__).resolve().parents[2] / "docs/own-features.md").read_text()
    texts = [page, topgb("data", "pack", "--help").stdout, _pack(tmp_path, features="absent", labels=False).stderr]
    for suffix in SUFFIXES:
        assert all(suffix in text for text in texts), suffix
