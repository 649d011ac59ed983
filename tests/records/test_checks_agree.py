"""Inspect, verify and training agree on records that are odd in any way: what one promises, the next one reads."""

import random
from pathlib import Path
from typing import Any

import pytest

from topgb.errors import InputError
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.disguised import check_bytes
from topgb.records.framing import frame_record
from topgb.records.inspect import Inspection, inspect_shards
from topgb.records.labels import Targets
from topgb.records.protos import SequenceExample
from topgb.records.verify import verify_shards

SETS, EACH = 8, 60
CLASSES = 5
NAMES = ["rgb", "audio", "x.y", "label", "title", "segment_scores", "é", "a\nb"]
KINDS = ["floats", "floats", "bytes", "bytes", "text", "two values", "integers", "nan", "no values", "nothing"]


def _fill(choose: random.Random, feature: Any, kind: str, width: int) -> None:
    if kind == "text":
        feature.bytes_list.value.append(b"a text of letters"[:width])
    elif kind in ("bytes", "two values"):
        feature.bytes_list.value.extend(choose.randbytes(width) for _ in range(1 + (kind == "two values")))
    elif kind in ("floats", "nan"):
        feature.float_list.value.extend(choose.random() if kind == "floats" else float("nan") for _ in range(width))
    elif kind == "integers":
        feature.int64_list.value.extend(choose.randint(0, 9) for _ in range(width))
    elif kind == "no values":
        feature.float_list.SetInParent()


def _add_labels(choose: random.Random, context: Any, fault: str) -> None:
    odd = choose.random() < 0.3
    if fault == "absent" or (fault == "in part" and odd):
        return
    stored = context.feature["labels"]
    stored.int64_list.SetInParent()
    if fault == "empty":
        return
    labels = choose.sample(range(CLASSES), choose.randint(0, 3))
    wrong: dict[str, list[Any]] = {"negative": [-3], "beyond": [2**31 - 1], "twice": labels[:1]}
    if odd and fault == "floats":
        stored.float_list.value.extend([1.0, 0.0])
    else:
        stored.int64_list.value.extend(labels + (wrong.get(fault, []) if odd else []))


def _add_predictions(choose: random.Random, context: Any, fault: str) -> None:
    odd = choose.random() < 0.3
    if fault == "absent" or (fault == "in part" and odd):
        return
    scores = context.feature["predictions"]
    if odd and fault == "integers":
        scores.int64_list.value.extend([1] * CLASSES)
        return
    scores.float_list.value.extend([0.5] * (CLASSES + (odd and fault == "uneven")))
    if odd and fault == "values":
        scores.float_list.value[1] = choose.choice([float("nan"), float("inf"), -1.0, 2.0])


def _records(choose: random.Random) -> list[bytes]:
    """Up to 14 records of up to three features, in which some kinds of things are now and then odd."""
    of_frames, odd = choose.random() < 0.5, choose.choice([0.0, 0.0, 0.2])
    names = choose.sample(NAMES, choose.randint(1, 3))
    features = [(name, choose.choice(KINDS), choose.choice([1, 4, 8, 16])) for name in names]
    labels = choose.choice(["", "", "absent", "empty", "in part", "negative", "beyond", "twice", "floats"])
    predictions = choose.choice(["", "absent", "absent", "in part", "uneven", "values", "integers"])
    records = []
    for number in range(choose.randint(1, 14)):
        message, frames = SequenceExample(), choose.randint(1, 3)
        if choose.random() >= odd / 3:
            message.context.feature[choose.choice(["id", "video_id"])].bytes_list.value.append(b"v%d" % number)
        for name, kind, width in features:
            kind = choose.choice(KINDS) if choose.random() < odd else kind
            width = choose.choice([0, 4, 24]) if choose.random() < odd else width
            if choose.random() < odd / 3:
                continue
            if not of_frames:
                _fill(choose, message.context.feature[name], kind, width)
                continue
            rows = message.feature_lists.feature_list[name]
            rows.SetInParent()
            for _ in range(frames if choose.random() >= odd / 3 else choose.randint(0, 3)):
                _fill(choose, rows.feature.add(), kind, width if choose.random() >= odd / 5 else 3)
        _add_labels(choose, message.context, labels)
        _add_predictions(choose, message.context, predictions)
        records.append(message.SerializeToString())
    return records


def _read(path: str, found: Inspection, targets: Targets) -> int:
    assert found.suggested_spec is not None
    dataset = open_dataset(path, found.suggested_spec, found.suggested_classes or CLASSES, 300, targets=targets)
    check_bytes(dataset)
    return sum(len(batch) for batch in evaluation_batches(dataset, 3))


@pytest.mark.parametrize("first", range(0, SETS * EACH, EACH))
def test_what_inspect_says_is_what_is_done(tmp_path, first):
    for seed in range(first, first + EACH):
        records = _records(random.Random(seed))
        path = str(_written(tmp_path / "a.tfrecord", records))
        verified, found = verify_shards(path), inspect_shards(path)
        reasons = [error.reason for error in verified.unusable]
        assert all(text.isprintable() for text in (*reasons, *found.obstacles)), seed
        told = found.unusable or found.bad_labels or any("cannot be used" in one for one in found.obstacles)
        assert bool(reasons) == bool(told), seed
        if found.suggested_spec is None:
            assert found.obstacles or found.label_fault, seed
            continue
        assert _read(path, found, Targets()) == len(records), seed
        if any("predictions" in obstacle for obstacle in found.obstacles):
            with pytest.raises(InputError):
                _read(path, found, Targets(teacher="records"))
        elif any(feature.name == "predictions" for feature in found.other):
            assert _read(path, found, Targets(teacher="records")) == len(records), seed


def _written(path: Path, records: list[bytes]) -> Path:
    path.write_bytes(b"".join(map(frame_record, records)))
    return path
