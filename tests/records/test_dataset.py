"""Data sets: what is in their batches, and what is known of them without reading."""

import json
import shutil

import numpy as np
import pytest
import torch

from records.batches import CLASSES, check_batch
from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.label_statistics import label_counts
from topgb.records.labels import Targets
from topgb.records.synth import SynthOptions, write_synthetic


def test_evaluation_order(shards, spec):
    dataset = open_dataset(shards(5, 1, 4), spec, CLASSES, 300)
    assert dataset.num_records == 10
    batches = list(evaluation_batches(dataset, 3))
    for batch, numbers in zip(batches, [[0, 1, 2], [3, 4], [5], [6, 7, 8], [9]], strict=True):
        check_batch(batch, numbers)
    assert [batch.ids for batch in evaluation_batches(dataset, 3, shards=[2, 0])] == [
        batches[index].ids for index in (3, 4, 0, 1)
    ]


def test_fingerprint(shards, spec, tmp_path):
    pattern = shards(2, 3)
    (tmp_path / "more").mkdir()
    shutil.copy(tmp_path / "part001.tfrecord", tmp_path / "more" / "part000.tfrecord")
    found = open_dataset(f"{pattern},{tmp_path}/more/*", spec, CLASSES, 300).fingerprint()
    assert json.loads(json.dumps(found)) == found
    # Framing takes 16 bytes of each record.
    sizes = [(tmp_path / f"part00{n}.tfrecord").stat().st_size - 16 * count for n, count in enumerate((2, 3))]
    digests = [row.pop() for row in found]
    assert digests[0] == digests[2] != digests[1]
    assert found == [
        ["part000.tfrecord", 3, sizes[1]],
        ["part000.tfrecord", 2, sizes[0]],
        ["part001.tfrecord", 3, sizes[1]],
    ]


def test_long_videos_are_cut(shards, spec):
    dataset = open_dataset(shards(8), spec, CLASSES, max_frames=4)
    check_batch(dataset.read_batch([(0, 6), (0, 1), (0, 7)]), [6, 1, 7], max_frames=4)


def test_most_frames_are_known_without_reading(shards, spec, tmp_path):
    pattern = shards(3, 5, 2)
    dataset = open_dataset(pattern, spec, CLASSES, 300)
    # Video 6 has 7 frames; what else is in its record might have been two more.
    assert 7 <= dataset.most_frames <= 9
    assert open_dataset(pattern, spec, CLASSES, 4).most_frames == 4
    video = FeatureSpec("video", (Feature("mean_rgb", 7, "float32"),))
    write_synthetic(tmp_path / "video", video, CLASSES, 6)
    assert open_dataset(f"{tmp_path}/video/*", video, CLASSES, 300).most_frames == 1


def test_floats_and_bytes_joined(tmp_path):
    spec = FeatureSpec("frame", (Feature("a", 3, "float32"), Feature("b", 2)))
    write_synthetic(tmp_path, spec, CLASSES, 4, SynthOptions(frames=(2, 5)))
    batch = next(evaluation_batches(open_dataset(f"{tmp_path}/*", spec, CLASSES, 300), 4))
    assert batch.features.dtype == torch.float32
    assert batch.features.shape == (4, int(batch.num_frames.max()), 5)
    stored = batch.features[0, : batch.num_frames[0], 3:]
    assert (stored == stored.round()).all()


def test_video_level(tmp_path):
    spec = FeatureSpec("video", (Feature("mean_rgb", 7, "float32"), Feature("mean_audio", 2, "float32")))
    write_synthetic(tmp_path, spec, CLASSES, 6)
    batches = list(evaluation_batches(open_dataset(f"{tmp_path}/*", spec, CLASSES, 300), 4))
    assert [tuple(batch.features.shape) for batch in batches] == [(4, 1, 9), (2, 1, 9)]
    assert all((batch.num_frames == 1).all() for batch in batches)


def test_unlabelled(shards, spec, tmp_path):
    dataset = open_dataset(shards(3, labelled=False), spec, CLASSES, 300)
    assert next(evaluation_batches(dataset, 3)).labels is None
    assert label_counts(dataset)[1] == 0
    shutil.copy(tmp_path / "part000.tfrecord", tmp_path / "test.tfrecord")
    shards(3)
    mixed = open_dataset(f"{tmp_path}/*.tfrecord", spec, CLASSES, 300)
    with pytest.raises(InputError, match=r"test\.tfrecord: video 'v1' has no labels, but .*part000\.tfrecord has"):
        mixed.read_batch([(0, 0), (1, 1)])


def test_labels_are_not_looked_at(shards, spec, tmp_path):
    shards(3, labelled=False)
    (tmp_path / "part000.tfrecord").rename(tmp_path / "test.tfrecord")
    pattern = shards(7).replace("part*", "*")
    # Label 4 is outside the classes, and the last shard has no labels.
    dataset = open_dataset(pattern, spec, 4, 300, targets=Targets(False))
    batch = dataset.read_batch([(0, 4), (1, 0), (0, 0)])
    assert (batch.ids, batch.labels) == (["v4", "v0", "v0"], None)
    assert dataset.read_batch([]).labels is None
    assert label_counts(dataset)[1] == 0


def test_label_counts(shards, spec):
    dataset = open_dataset(shards(7, 6), spec, CLASSES, 300)
    counts, videos = label_counts(dataset)
    assert (counts.tolist(), counts.dtype, videos) == ([3, 3, 3, 2, 2], np.int64, 13)
    assert label_counts(dataset, limit=6)[1] == 6
    assert label_counts(dataset, limit=100)[1] == 13
