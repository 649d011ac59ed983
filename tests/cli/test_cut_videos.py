"""Videos longer than the frames that are looked at, and videos without labels, are never passed over in silence."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

import topgb as api
from cli.program import topgb
from combining.small_models import model_file
from topgb.errors import InputError, TopgbWarning
from topgb.features import Feature, FeatureSpec
from topgb.modelfile import read_model_file
from topgb.records.codec import count_frames, encode_example, encode_sequence_example
from topgb.records.dataset import open_dataset
from topgb.records.description import MOST_FRAMES, read_description
from topgb.records.framing import frame_record
from topgb.records.layout import Layout
from topgb.records.protos import SequenceExample
from topgb.records.sampling import Cut

SMALL = ("--set", "model.clusters=2", "--set", "model.hidden=8", "--set", "training={batch_size: 8, epochs: 1}")
# Cut at 10 frames: 3 of 12 videos, 60 of the 90 frames of these.
LENGTHS = (4, 20, 10, 11, 1, 59, 10, 3, 2, 8, 9, 10)


def write_records(path: Path, spec: FeatureSpec, labels=lambda number: [number % 3]) -> Path:
    framed = []
    for number, frames in enumerate(LENGTHS):
        values = {
            f.name: np.full((frames, f.size), 7, np.uint8 if f.dtype == "uint8" else np.float32) for f in spec.features
        }
        framed.append(frame_record(encode_sequence_example(f"v{number}", values, labels(number))))
    path.write_bytes((gzip.compress if path.suffix == ".gz" else bytes)(b"".join(framed)))
    return path


BYTES = FeatureSpec("frame", (Feature("rgb", 16), Feature("audio", 1)))
FLOATS = FeatureSpec("frame", (Feature("x", 4, "float32"),))


@pytest.mark.parametrize(("name", "spec"), [("a.tfrecord", BYTES), ("a.tfrecord.gz", FLOATS)])
def test_records_of_any_kind(tmp_path, name, spec):
    records = write_records(tmp_path / name, spec)
    assert open_dataset(str(records), spec, 3, 10).cut == Cut(10, 3, 59, 90)
    assert open_dataset(str(records), spec, 3, 59).cut == Cut(59)
    said = (
        "3 of 12 videos are longer than the 10 frames that are looked at, the longest 59: 67% of their frames are cut"
    )
    model = {"aggregator": "average", "head": {"name": "logistic"}, "max_frames": 10}
    short = model_file(tmp_path / "short", model, features=spec, classes=3)
    whole = model_file(tmp_path / "whole", {**model, "max_frames": 59}, features=spec, classes=3)
    for command in (["eval"], ["predict", "--out", tmp_path / "p"], ["distill", "--out", tmp_path / "d", "--top-k", 2]):
        one, *more = command
        done = topgb(one, short, records, *map(str, more))
        assert (done.returncode, said in done.stderr) == (0, True), done.stderr
        done = topgb(one, whole, records, *map(str, more), *(["--force"] if more else []))
        assert (done.returncode, "longer than" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize("interface", ["command", "python"])
def test_every_command_that_reads_videos_says_what_is_cut(tmp_path, interface):
    records = write_records(tmp_path / "a.tfrecord", BYTES)
    model = {"aggregator": "average", "head": {"name": "logistic"}, "max_frames": 10}
    one, two = (
        model_file(tmp_path / name, {**model, "max_frames": frames}, features=BYTES, classes=3)
        for name, frames in (("one", 10), ("two", 8))
    )
    out = str(tmp_path / "out")
    calls = {
        ("compare", one, two, records): lambda: api.compare(one, two, records),
        ("model", "ensemble", one, two, "--fit-weights", records, "--out", out): lambda: api.ensemble(
            [one, two], out, fit_weights=records
        ),
        ("model", "quantize", one, "--method", "entropy", "--calibrate", records, "--out", out): lambda: api.quantize(
            one, out, method="entropy", calibrate=records
        ),
        ("model", "quantize", one, "--method", "int8", "--check", records, "--out", out): lambda: api.quantize(
            one, out, method="int8", check=records
        ),
        ("model", "shrink", one, two, "--budget", "1MB", "--data", records, "--out", out): lambda: api.shrink(
            [one, two], out, budget="1MB", data=records
        ),
        ("model", "remember", one, "--data", records, "--out", out): lambda: api.remember(one, out, data=records),
    }
    for arguments, call in calls.items():
        Path(out).unlink(missing_ok=True)
        if interface == "command":
            done = topgb(*arguments)
            assert done.returncode == 0, done.stderr
            assert "3 of 12 videos are longer than the 10 frames" in done.stderr, arguments
            continue
        with pytest.warns(TopgbWarning, match="3 of 12 videos are longer than the 10 frames") as caught:
            call()
        assert {one.filename for one in caught} == {__file__}


def test_records_in_another_order_of_fields_are_counted_too():
    layout = Layout(BYTES, 3)
    payload = encode_sequence_example("v", {f.name: np.zeros((9, f.size), np.uint8) for f in BYTES.features}, [1])
    message = SequenceExample.FromString(payload)
    irregular = message.SerializeToString() + SequenceExample().SerializeToString() + b"\x12\x00"
    assert [count_frames(memoryview(one), layout) for one in (payload, irregular, b"\xff", b"")] == [9, 9, 0, 0]


def _pack(folder: Path, lengths: list[int], *more: str) -> tuple[Path, str]:
    (folder / "features").mkdir()
    for number, frames in enumerate(lengths):
        np.save(folder / "features" / f"v{number:02d}.npy", np.full((frames, 2), number % 2, np.float32))
    rows = "".join(f"v{number:02d},{'cat' if number % 2 else 'dog'}\n" for number in range(len(lengths)))
    (folder / "labels.csv").write_text("id,labels\n" + rows)
    labels = ("--labels", folder / "labels.csv")
    done = topgb("data", "pack", folder / "features", "--out", folder / "packed", *labels, *more)
    assert done.returncode == 0, done.stderr
    return folder / "packed", done.stdout


@pytest.mark.parametrize(("longest", "looked_at"), [(7, 300), (400, 400), (3100, 3000)])
def test_the_longest_video_is_the_default_of_recipes(tmp_path, longest, looked_at):
    packed, printed = _pack(tmp_path, [5] * 11 + [longest], *(["--store", "float32"] if longest == 400 else []))
    assert f"frames    up to {longest:,} a video" in printed
    assert read_description(packed / "dataset.yaml").max_frames == longest
    said = f"1 of 12 videos are longer than the 3,000 frames that are looked at, the longest {longest:,}: 3% of"
    assert (said in printed) == (longest > MOST_FRAMES)
    done = topgb("train", "own-frames", "--data", f"{packed}/train*", "--out", tmp_path / "run", *SMALL)
    assert done.returncode == 0, done.stderr
    assert (said in done.stderr) == (longest > MOST_FRAMES)
    assert read_model_file(tmp_path / "run" / "model.safetensors")[0].max_frames == looked_at


def test_what_a_recipe_or_the_user_says_comes_first(tmp_path):
    packed, _ = _pack(tmp_path, [5] * 11 + [40])
    own = (*SMALL, "--set", "model.max_frames=6", "--set", "training.frames=all")
    done = topgb("train", "own-frames", "--data", f"{packed}/train*", "--out", tmp_path / "run", *own)
    assert done.returncode == 0, done.stderr
    assert "1 of 12 videos are longer than the 6 frames" in done.stderr
    assert read_model_file(tmp_path / "run" / "model.safetensors")[0].max_frames == 6


def test_whole_videos_have_no_frames(tmp_path):
    (tmp_path / "features").mkdir()
    for number in range(4):
        np.save(tmp_path / "features" / f"v{number}.npy", np.float32([number, 1]))
    done = topgb("data", "pack", tmp_path / "features", "--out", tmp_path / "packed")
    assert (done.returncode, "frames " in done.stdout) == (0, False)
    assert "max_frames" not in (tmp_path / "packed" / "dataset.yaml").read_text()


@pytest.mark.parametrize("value", ["0", "-3", "2.5", "many", "true", "99999999999"])
def test_a_longest_video_that_makes_no_sense(tmp_path, value):
    path = tmp_path / "dataset.yaml"
    path.write_text(f"level: frame\nfeatures:\n  - {{name: x, size: 1}}\nmax_frames: {value}\n")
    with pytest.raises(InputError, match="'max_frames' is .*; it must be the frames of the longest video"):
        read_description(path)


@pytest.mark.parametrize("level", ["frame", "video"])
def test_videos_without_labels_are_counted(tmp_path, level):
    def labels(number):
        return [number % 3] if number % 3 else []

    spec, records = BYTES, tmp_path / "a.tfrecord"
    if level == "frame":
        write_records(records, spec, labels)
    else:
        spec = FeatureSpec("video", (Feature("x", 4, "float32"),))
        payloads = (encode_example(f"v{n}", {"x": np.ones(4, np.float32)}, labels(n)) for n in range(12))
        records.write_bytes(b"".join(map(frame_record, payloads)))
    model = model_file(tmp_path / "m", {"aggregator": "average", "head": "logistic"}, features=spec, classes=3)
    assert "videos   12, 4 of them without labels\n" in topgb("eval", model, records).stdout
    assert json.loads(topgb("eval", model, records, "--json").stdout)["unlabelled"] == 4
