"""Records of which some have labels and others none: what cannot be done with them, and what can, in every command."""

import re
from pathlib import Path

import numpy as np
import pytest

import topgb
from cli.program import topgb as program
from cli.test_label_lists import FRAMES, MODEL, VIDEOS, recipe_for
from combining.small_models import model_file
from topgb.errors import InputError
from topgb.features import FeatureSpec
from topgb.records.codec import encode_example, encode_sequence_example
from topgb.records.framing import frame_record

CLASSES, APART = 4, "read labelled and unlabelled records apart"
SCORES = np.full(CLASSES, 0.5, np.float32)
# Labels of the records of each shard.
SETS = {
    "in turn": [[n % CLASSES] if n % 2 else None for n in range(60)],
    "few labelled": [[1] if n > 56 else None for n in range(60)],
    "few unlabelled": [None if n > 56 else [1] for n in range(60)],
}


def _write(path: Path, spec: FeatureSpec, lists: list[list[int] | None], first: int = 0) -> str:
    generator, framed = np.random.default_rng(0), []
    for number, labels in enumerate(lists, start=first):
        if spec.level == "video":
            values = {"feature": generator.normal(size=16).astype(np.float32)}
            payload = encode_example(f"v{number}", values, labels, predictions=SCORES)
        else:
            values = {"feature": generator.integers(0, 256, (3, 16), np.uint8)}
            payload = encode_sequence_example(f"v{number}", values, labels, predictions=SCORES)
        framed.append(frame_record(payload))
    path.write_bytes(b"".join(framed))
    return str(path)


def _needing_labels(folder: Path, spec: FeatureSpec, records: str) -> dict[str, tuple]:
    """The commands that need labels, but for training."""
    model = model_file(folder / "model.safetensors", MODEL, features=spec, classes=CLASSES)
    return {
        "eval": ("eval", model, records),
        "compare": ("compare", model, model, records),
        "thresholds": ("thresholds", model, records, "--out", folder / "t"),
        "ensemble": ("model", "ensemble", model, model, "--fit-weights", records, "--out", folder / "e"),
        "remember": ("model", "remember", model, "--data", records, "--out", folder / "r"),
        "quantize": ("model", "quantize", model, "--method", "int8", "--check", records, "--out", folder / "q"),
    }


@pytest.mark.parametrize("spec", [FRAMES, VIDEOS], ids=["frame", "video"])
@pytest.mark.parametrize("name", SETS)
def test_in_one_file(tmp_path, spec, name):
    records = _write(tmp_path / "a.tfrecord", spec, SETS[name])
    for command, arguments in _needing_labels(tmp_path, spec, records).items():
        done = program(*arguments)
        assert done.returncode == 2, command
        assert re.search(
            rf"{re.escape(records)}: video 'v\d+' has no labels, but video 'v\d+' has; {APART}$", done.stderr
        )
    trained = ("train", recipe_for(tmp_path, spec, CLASSES), "--data", records, "--out", tmp_path / "run")
    done = program(*trained)
    without = SETS[name].count(None)
    assert done.returncode == 2
    # Training samples 50 of the 60 records.
    assert f"the records of {records} are labelled in part: " in done.stderr
    assert f" of the 50 looked at have no labels; {APART}\n" in done.stderr
    assert not (tmp_path / "run").exists()
    labelled = _write(tmp_path / "b.tfrecord", spec, [[1], [2]] * 20, first=100)
    done = program("train", trained[1], "--data", labelled, "--validate", records, "--out", tmp_path / "run")
    assert (done.returncode, f"the records of {records} are labelled in part" in done.stderr) == (2, True)
    # The teacher teaches what is unlabelled, too, and predictions need no labels.
    done = program(*trained, "--teacher", "records")
    assert done.stderr.endswith(f"{APART}, or learn from the teacher alone with --distill-weight 1\n")
    assert program(*trained, "--teacher", "records", "--distill-weight", "1").returncode == 0
    model = tmp_path / "model.safetensors"
    assert program("predict", model, records, "--out", tmp_path / "p.csv").returncode == 0
    assert program("distill", model, records, "--out", tmp_path / "s").returncode == 0
    assert f"in the way   {without} of 60 records have no labels" in program("data", "inspect", records).stdout


@pytest.mark.parametrize("spec", [FRAMES, VIDEOS], ids=["frame", "video"])
@pytest.mark.parametrize("unlabelled", ["a", "b"])
def test_in_files_of_their_own(tmp_path, spec, unlabelled):
    """The file without labels is named, and no key of the other is said to be the labels' by another name."""
    for first, name in ((0, "a"), (100, "b")):
        _write(tmp_path / f"{name}.tfrecord", spec, [None if name == unlabelled else [1]] * 40, first)
    for command, arguments in _needing_labels(tmp_path, spec, f"{tmp_path}/*.tfrecord").items():
        done = program(*arguments)
        assert done.returncode == 2, command
        assert f"records of {tmp_path}/{unlabelled}.tfrecord hold no labels (video " in done.stderr
        assert "; name labelled records, or use topgb predict for unlabelled ones" in done.stderr
    recipe = recipe_for(tmp_path, spec, CLASSES)
    done = program("train", recipe, "--data", f"{tmp_path}/*.tfrecord", "--out", tmp_path / "run")
    assert (done.returncode, "are labelled in part: 25 of the 50" in done.stderr) == (2, True)


@pytest.mark.parametrize("spec", [FRAMES, VIDEOS], ids=["frame", "video"])
@pytest.mark.parametrize("teacher", ["records", "folder"])
@pytest.mark.parametrize("labels", [None, []])
def test_training_on_a_teacher_alone_is_named(tmp_path, spec, teacher, labels):
    records = _write(tmp_path / "a.tfrecord", spec, [labels] * 20)
    if teacher == "folder":
        model = model_file(tmp_path / "model.safetensors", MODEL, features=spec, classes=CLASSES)
        teacher = str(tmp_path / "scores")
        assert program("distill", model, records, "--out", teacher).returncode == 0
    recipe = recipe_for(tmp_path, spec, CLASSES)
    arguments = ("train", recipe, "--data", records, "--out", tmp_path / "run", "--teacher", teacher)
    done = program(*arguments)
    assert done.returncode == 2
    assert done.stderr.endswith(", or learn from the teacher alone with --distill-weight 1\n")
    with pytest.raises(InputError, match=", or learn from the teacher alone with distill_weight=1$"):
        topgb.train(recipe, records, tmp_path / "run", teacher=teacher, progress=False)
    assert program(*arguments, "--distill-weight", "1").returncode == 0


def test_a_sample_is_not_taken_for_all(tmp_path):
    records = _write(tmp_path / "a.tfrecord", VIDEOS, [[1] if n % 100 == 99 else None for n in range(1000)])
    done = program("train", recipe_for(tmp_path, VIDEOS, CLASSES), "--data", records, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "hold no labels (50 of 1,000 were looked at), so there is nothing to learn from" in done.stderr


def test_training_stops_at_the_one_record_that_was_not_looked_at(tmp_path):
    records = _write(tmp_path / "a.tfrecord", VIDEOS, [None if n == 505 else [n % CLASSES] for n in range(1001)])
    recipe = recipe_for(tmp_path, VIDEOS, CLASSES)
    arguments = ("train", recipe, "--data", records, "--out", tmp_path / "run", "--teacher", "records", "--force")
    for batch_size, said in (
        ("8", "video 'v505' has no labels, but video 'v"),
        ("1", "video 'v505' has no labels; train"),
    ):
        done = program(*arguments, "--set", f"training.batch_size={batch_size}")
        assert (done.returncode, said in done.stderr) == (2, True)
        assert done.stderr.endswith(", or learn from the teacher alone with --distill-weight 1\n")
