"""Labels that are not class numbers or not there, and scores that are no probabilities: refused by every command."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cli.program import Done, topgb
from combining.small_models import model_file
from topgb.features import Feature, FeatureSpec
from topgb.records.codec import encode_example, encode_sequence_example
from topgb.records.framing import frame_record
from topgb.records.protos import Features, SequenceExample
from topgb.tensors import load_tensors, save_tensors

VIDEOS = FeatureSpec("video", (Feature("feature", 16, "float32"),))
FRAMES = FeatureSpec("frame", (Feature("feature", 16),))
MODEL = {"aggregator": "average", "head": {"name": "logistic"}}


def write_records(path: Path, spec: FeatureSpec, lists: Sequence[Any], key: str = "labels") -> Path:
    """Records of `spec` whose labels are `lists`: class numbers, floats, names or None; gzipped if `path` says so."""
    generator = np.random.default_rng(0)
    framed = []
    for number, values in enumerate(lists):
        if spec.level == "video":
            payload = encode_example(f"v{number}", {"feature": generator.normal(size=16).astype(np.float32)}, None)
        else:
            frames = generator.integers(0, 256, (3, 16), np.uint8)
            payload = encode_sequence_example(f"v{number}", {"feature": frames}, None)
        framed.append(frame_record(payload if values is None else _with_labels(payload, values, key)))
    path.write_bytes((gzip.compress if path.suffix == ".gz" else bytes)(b"".join(framed)))
    return path


def _with_labels(payload: bytes, values: Any, key: str) -> bytes:
    message = SequenceExample.FromString(payload)
    added = Features()
    feature = added.feature[key]
    if all(isinstance(value, int) for value in values):
        feature.int64_list.value.extend(values)
        feature.int64_list.SetInParent()
    elif isinstance(values[0], float):
        feature.float_list.value.extend(values)
    else:
        feature.bytes_list.value.extend(value.encode() for value in values)
    message.context.MergeFrom(added)
    return message.SerializeToString()


def one_hot(classes: int, videos: int, kind: type = int) -> list[list[Any]]:
    return [[kind(number % classes == place) for place in range(classes)] for number in range(videos)]


def recipe_for(folder: Path, spec: FeatureSpec, classes: int) -> Path:
    features = [{"name": f.name, "size": f.size, "dtype": f.dtype} for f in spec.features]
    value = {
        "data": {"level": spec.level, "features": features, "classes": classes},
        "model": MODEL,
        "training": {"batch_size": 8, "epochs": 1},
        "optimizer": {"learning_rate": 0.01},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(value))
    return path


def each_command(folder: Path, records: Path, spec: FeatureSpec, classes: int) -> dict[str, Done]:
    """How train, eval, distill, verify and inspect end on these records."""
    model = model_file(folder / "model.safetensors", MODEL, features=spec, classes=classes)
    skip = ("--on-damaged", "skip")
    return {
        "train": topgb("train", recipe_for(folder, spec, classes), "--data", records, "--out", folder / "run", *skip),
        "eval": topgb("eval", model, records, *skip),
        "distill": topgb("distill", model, records, "--out", folder / "scores", *skip),
        "verify": topgb("data", "verify", records),
        "inspect": topgb("data", "inspect", records),
    }


VECTORS = {
    "of integers": ("a.tfrecord", VIDEOS, 5, one_hot(5, 12)),
    "of integers, two classes too few": ("a.tfrecord.gz", FRAMES, 3, one_hot(5, 12)),
    "of integers, two classes": ("a.tfrecord.gz", FRAMES, 2, [[1, 0], [0, 1]] * 8),
    "of integers, two classes a video": ("a.tfrecord", VIDEOS, 2, [[0, 1], [1, 0]] * 8),
    "of floats": ("a.tfrecord", FRAMES, 4, one_hot(4, 12, float)),
    "of floats, gzipped": ("a.tfrecord.gz", VIDEOS, 2, one_hot(2, 12, float)),
    "in one video": ("a.tfrecord", FRAMES, 4, [[2], [3]] * 10 + [[0, 0, 1, 0]]),
}


@pytest.mark.parametrize("case", VECTORS)
def test_vectors_are_refused(tmp_path, case):
    name, spec, classes, lists = VECTORS[case]
    done = each_command(tmp_path, write_records(tmp_path / name, spec, lists), spec, classes)
    codes = {command: one.returncode for command, one in done.items()}
    assert codes == {"train": 2, "eval": 2, "distill": 2, "verify": 1, "inspect": 0}
    assert "a recipe that reads these records" not in done["inspect"].stdout
    for one in done.values():
        assert "0/1 vector" in one.stdout + one.stderr
        assert "write the classes' numbers" in one.stdout + one.stderr


def test_a_class_that_occurs_twice_is_refused(tmp_path):
    records = write_records(tmp_path / "a.tfrecord", VIDEOS, [[1, 4], [3, 2, 3]] * 6)
    for one in each_command(tmp_path, records, VIDEOS, 5).values():
        assert (
            "labels hold the class 3 more than once; write the classes' numbers, each once" in one.stdout + one.stderr
        )
    found = json.loads(topgb("data", "verify", records, "--json").stdout)
    assert (found["sound"], len(found["damaged"]), len(found["unusable"])) == (6, 0, 6)
    assert found["unusable"][0]["record"] == 1


@pytest.mark.parametrize(("name", "spec"), [("a.tfrecord", FRAMES), ("a.tfrecord.gz", VIDEOS)])
def test_lists_of_all_classes_score_nothing(tmp_path, name, spec):
    """Any model has GAP 1.0 on them."""
    records = write_records(tmp_path / name, spec, [[0, 1, 2]] * 12)
    one, two = (model_file(tmp_path / path, MODEL, features=spec, classes=3) for path in "ab")
    calls = [
        ("train", recipe_for(tmp_path, spec, 3), "--data", records, "--out", tmp_path / "run"),
        ("eval", one, records),
        ("compare", one, two, records),
        ("thresholds", one, records, "--out", tmp_path / "t"),
        ("report", one, records, "--out", tmp_path / "r.html"),
        ("model", "card", one, "--data", records, "--out", tmp_path / "c.md"),
        ("model", "ensemble", one, two, "--fit-weights", records, "--out", tmp_path / "e"),
        ("model", "shrink", one, two, "--budget", "1MB", "--data", records, "--out", tmp_path / "s"),
    ]
    for arguments in calls:
        done = topgb(*arguments)
        assert done.returncode == 2, arguments
        assert "each of the 12 videos has all 3 classes as labels, so there is nothing to" in done.stderr
    few = write_records(tmp_path / f"few.{name}", spec, [[0, 1, 2]] * 11 + [[0]])
    assert topgb("eval", one, few).returncode == 0


@pytest.mark.parametrize("label", [3, 9])
def test_numbers_from_1_are_told(tmp_path, label):
    records = write_records(tmp_path / "a.tfrecord", FRAMES, [[1], [2], [label]] * 4)
    done = topgb("eval", model_file(tmp_path / "m", MODEL, features=FRAMES, classes=3), records)
    assert (done.returncode, "numbered from 0" in done.stderr) == (2, label == 3)


def test_names_are_no_class_numbers(tmp_path):
    records = write_records(tmp_path / "a.tfrecord", FRAMES, [["cat", "dog"], ["dog"]] * 6)
    for one in each_command(tmp_path, records, FRAMES, 5).values():
        assert "labels hold bytes ('cat' …), not integers; write the classes' numbers" in one.stdout + one.stderr


def test_labels_that_are_0_and_1_now_and_then_are_class_numbers(tmp_path):
    lists = [[0, 1], [1], [0], [1, 0], []] * 4
    done = each_command(tmp_path, write_records(tmp_path / "a.tfrecord", VIDEOS, lists), VIDEOS, 2)
    assert {one.returncode for one in done.values()} == {0}
    assert "labels    in 20 of 20 records, 4 of them empty" in done["inspect"].stdout


@pytest.mark.parametrize(("name", "spec"), [("a.tfrecord", VIDEOS), ("a.tfrecord.gz", FRAMES)])
def test_lists_that_are_all_empty(tmp_path, name, spec):
    records = write_records(tmp_path / name, spec, [[]] * 60)
    done = each_command(tmp_path, records, spec, 3)
    for command, purpose in (("train", "learn from"), ("eval", "score against")):
        assert done[command].returncode == 2
        assert f"are all empty, so there is nothing to {purpose}" in done[command].stderr
    assert "labels    in 60 of 60 records, 60 of them empty" in done["inspect"].stdout
    assert done["distill"].returncode == 0
    # A teacher alone needs no labels.
    recipe = recipe_for(tmp_path, spec, 3)
    taught = ("--teacher", tmp_path / "scores", "--distill-weight")
    assert topgb("train", recipe, "--data", records, "--out", tmp_path / "a", *taught, "1").returncode == 0
    assert topgb("train", recipe, "--data", records, "--out", tmp_path / "b", *taught, "0.5").returncode == 2


def test_other_commands_that_need_labels_refuse_empty_lists(tmp_path):
    records = write_records(tmp_path / "a.tfrecord", VIDEOS, [[]] * 20)
    labelled = write_records(tmp_path / "b.tfrecord", VIDEOS, [[2]] * 20)
    model = model_file(tmp_path / "m", MODEL, features=VIDEOS, classes=40)
    assert topgb("distill", model, records, "--out", tmp_path / "s").returncode == 0
    for command in (
        ("compare", model, model, records),
        ("model", "ensemble", model, model, "--fit-weights", records, "--out", tmp_path / "e"),
        ("model", "remember", model, "--data", records, "--out", tmp_path / "r"),
        ("model", "rerank", model, "--data", records, "--scores", tmp_path / "s", "--out", tmp_path / "t"),
        ("train", recipe_for(tmp_path, VIDEOS, 40), "--data", labelled, "--validate", records, "--out", tmp_path / "u"),
    ):
        done = topgb(*command)
        assert (done.returncode, "are all empty" in done.stderr) == (2, True), done.stderr


def test_a_few_labelled_videos_are_enough(tmp_path):
    # The sample that training looks at first has no label.
    records = write_records(tmp_path / "a.tfrecord", VIDEOS, [[], [], [1], []] * 50)
    done = topgb("train", recipe_for(tmp_path, VIDEOS, 3), "--data", records, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "spec", "key"), [("a.tfrecord", VIDEOS, "label"), ("a.tfrecord.gz", FRAMES, "tags")])
def test_the_key_that_is_there_is_named(tmp_path, name, spec, key):
    done = each_command(tmp_path, write_records(tmp_path / name, spec, [[1], [2]] * 6, key), spec, 3)
    for command in ("train", "eval"):
        assert done[command].returncode == 2
        assert f"topgb reads the key 'labels', and here are integers under '{key}'" in done[command].stderr


def test_the_case_of_vectors(cases, tmp_path):
    folder = cases / "multihot-int"
    done = topgb("train", folder / "recipe.yaml", "--data", folder / "a.tfrecord", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "labels hold a 0/1 vector of 5 values; write the classes' numbers, here [0]" in done.stderr
    assert topgb("data", "verify", folder / "a.tfrecord").returncode == 1
    assert "unusable in 60 records: labels hold a 0/1 vector" in topgb("data", "inspect", folder / "a.tfrecord").stdout


def test_the_case_of_empty_lists(cases, tmp_path):
    folder = cases / "empty-labels"

    def train(name: str) -> Done:
        return topgb("train", folder / "recipe.yaml", "--data", folder / f"{name}.tfrecord", "--out", tmp_path / name)

    refused = train("allempty")
    assert (refused.returncode, "are all empty" in refused.stderr) == (2, True)
    assert train("empties").returncode == 0
    refused = topgb("eval", tmp_path / "empties", folder / "allempty.tfrecord")
    assert (refused.returncode, "nothing to score against" in refused.stderr) == (2, True)
    assert "in 40 of 40 records, 8 of them empty" in topgb("data", "inspect", folder / "empties.tfrecord").stdout


@pytest.mark.parametrize(
    ("spec", "top_k", "wrong"), [(VIDEOS, None, np.nan), (FRAMES, 30, np.inf), (FRAMES, None, 2.0)]
)
def test_scores_that_are_no_probabilities_are_refused_wherever_they_are_read(tmp_path, spec, top_k, wrong):
    records = write_records(tmp_path / "a.tfrecord", spec, [[1], [2]] * 6)
    model = model_file(tmp_path / "m", MODEL, features=spec, classes=40)
    kept = () if top_k is None else ("--top-k", str(top_k))
    assert topgb("distill", model, records, "--out", tmp_path / "scores", *kept).returncode == 0
    path = tmp_path / "scores" / "a.tfrecord.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_tensors(path)[0].items()}
    tensors["probabilities" if top_k is None else "scores"][5, 3] = wrong
    save_tensors(path, tensors)
    recipe = recipe_for(tmp_path, spec, 40)
    for command in (
        ("train", recipe, "--data", records, "--out", tmp_path / "run", "--teacher", tmp_path / "scores"),
        ("model", "rerank", model, "--data", records, "--scores", tmp_path / "scores", "--out", tmp_path / "r"),
    ):
        done = topgb(*command)
        assert done.returncode == 2
        assert f"{path} holds scores that are no probabilities ({wrong:g} for video 'v5')" in done.stderr
    assert not (tmp_path / "run").exists()
