"""Kept predictions, and the quick GAP of them."""

import errno
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import SMALL_CLASSES, SMALL_SPEC
from topgb.batch import Batch
from topgb.combining import prediction_matrix as predictions
from topgb.combining.prediction_matrix import collect, gap
from topgb.errors import InputError, TopgbError
from topgb.evaluation.metrics import Metrics
from topgb.evaluation.score import evaluate
from topgb.records.dataset import open_dataset

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")


class FirstFrame:
    """Probabilities from a video's first frame."""

    def predict_batch(self, batch: Batch) -> torch.Tensor:
        return batch.features[:, 0, :SMALL_CLASSES].float() / 255


@pytest.fixture(scope="module")
def dataset(small_records):
    return open_dataset(small_records["validate"], SMALL_SPEC, SMALL_CLASSES, 300)


@pytest.mark.parametrize("in_memory", [True, False])
def test_predictions_are_those_of_every_video_in_order(dataset, monkeypatch, in_memory):
    if not in_memory:
        monkeypatch.setattr(predictions, "MOST_BYTES_IN_MEMORY", 0)
    found = collect(FirstFrame(), dataset, CPU)
    assert isinstance(found.probabilities, np.memmap) is not in_memory
    assert (found.probabilities.shape, found.probabilities.dtype) == ((90, SMALL_CLASSES), np.float32)
    assert (found.labels.shape, found.labels.dtype) == ((90, SMALL_CLASSES), np.bool_)
    assert len(set(found.ids)) == 90
    place = 0
    for shard, count in enumerate(dataset.counts):
        batch = dataset.read_batch([(shard, record) for record in range(count)])
        rows = slice(place, place + len(batch))
        assert found.ids[rows] == batch.ids
        np.testing.assert_array_equal(found.probabilities[rows], FirstFrame().predict_batch(batch).numpy())
        np.testing.assert_array_equal(found.labels[rows], batch.labels.numpy())
        place += len(batch)
    expected = evaluate(FirstFrame(), dataset, CPU).compute().gap
    assert gap(found.probabilities, found.labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("videos", "classes"), [(1, 3), (200, 60), (50, 300)])
@pytest.mark.parametrize("levels", [None, 5])
def test_the_quick_gap_is_that_of_metrics(videos, classes, levels):
    generator = torch.Generator().manual_seed(videos)
    probabilities = torch.rand(videos, classes, generator=generator)
    if levels is not None:
        # Nearly all scores are tied.
        probabilities = (probabilities * levels).round() / levels
    labels = torch.rand(videos, classes, generator=generator) < 0.05
    metrics = Metrics(classes)
    for start in range(0, videos, 7):
        metrics.add(probabilities[start : start + 7], labels[start : start + 7])
    assert gap(probabilities, labels) == pytest.approx(metrics.compute().gap, abs=1e-12)
    assert gap(probabilities.numpy(), labels.numpy()) == gap(probabilities, labels)


def test_no_positives_score_zero():
    assert gap(np.zeros((3, 4), np.float32), np.zeros((3, 4), bool)) == 0.0


def test_skipped_records_leave_no_rows(tmp_path, dataset):
    shard = tmp_path / "shard.tfrecord"
    raw = bytearray(Path(dataset.shards[0].path).read_bytes())
    raw[-20] ^= 1
    shard.write_bytes(bytes(raw))
    found = collect(FirstFrame(), open_dataset(str(shard), SMALL_SPEC, SMALL_CLASSES, 300, "skip"), CPU)
    whole = collect(FirstFrame(), open_dataset(dataset.shards[0].path, SMALL_SPEC, SMALL_CLASSES, 300), CPU)
    assert found.ids == whole.ids[:-1]
    np.testing.assert_array_equal(found.probabilities, whole.probabilities[:-1])
    assert len(found.labels) == len(found.ids)


def test_records_without_labels_are_refused(small_records):
    unlabelled = open_dataset(small_records["unlabelled"], SMALL_SPEC, SMALL_CLASSES, 300)
    with pytest.raises(InputError, match=r"hold no labels \(video .*\), so there is nothing to score against"):
        collect(FirstFrame(), unlabelled, CPU)


def test_no_room_is_one_sentence(dataset, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(predictions, "MOST_BYTES_IN_MEMORY", 0)
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(TopgbError, match=r"no room for predictions of 4,320 bytes in .*: No space left .*TMPDIR"):
        collect(FirstFrame(), dataset, CPU)
