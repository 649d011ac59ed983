"""The paired bootstrap against records that are really repeated."""

import numpy as np
import pytest
import torch

from conftest import SMALL_CLASSES, SMALL_SPEC
from topgb.batch import Batch
from topgb.errors import InputError
from topgb.evaluation.compare import Bootstrap, RankedPairs, compare, compare_pairs
from topgb.evaluation.metrics import TOP_K, Metrics
from topgb.evaluation.score import evaluate
from topgb.records.dataset import open_dataset

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")


def _random(videos: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(videos, classes, generator=generator)
    return probabilities, torch.rand(videos, classes, generator=generator) < 0.1


def _pairs(probabilities: torch.Tensor, labels: torch.Tensor) -> RankedPairs:
    best, classes = probabilities.topk(min(TOP_K, probabilities.shape[1]), dim=1)
    ids = [str(index) for index in range(len(labels))]
    return RankedPairs(ids, best.numpy(), labels.gather(1, classes).numpy(), labels.sum(1).numpy())


def _gap_of_repeated(probabilities: torch.Tensor, labels: torch.Tensor, counts: np.ndarray) -> float:
    repeated = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    metrics = Metrics(labels.shape[1])
    metrics.add(probabilities[repeated], labels[repeated])
    return metrics.compute().gap


@pytest.mark.parametrize(("videos", "classes"), [(1, 3), (30, 12), (80, 60)])
def test_a_video_that_counts_k_times_is_like_k_copies_of_it(videos, classes):
    probabilities, labels = _random(videos, classes, 1)
    pairs, generator = _pairs(probabilities, labels), np.random.default_rng(2)
    for _ in range(10):
        counts = np.bincount(generator.integers(0, videos, videos), minlength=videos)
        assert pairs.gap(counts) == pytest.approx(_gap_of_repeated(probabilities, labels, counts), abs=1e-12)
    once = np.ones(videos, np.int64)
    assert pairs.gap(once) == pytest.approx(_gap_of_repeated(probabilities, labels, once), abs=1e-12)


def test_copies_in_a_tie_follow_each_other():
    # Both pairs of the video are tied; the label's comes first and then all copies of the other one.
    pairs = RankedPairs(
        ["a", "b"], np.full((2, 2), 0.5, np.float32), np.array([[1, 0], [0, 0]], bool), np.array([1, 0])
    )
    assert pairs.gap(np.array([2, 0])) == pytest.approx(1.0)
    assert pairs.gap(np.array([1, 1])) == pytest.approx(1.0)
    assert pairs.gap(np.array([0, 2])) == 0.0


def test_ties_between_videos_are_as_in_repeated_records():
    _, labels = _random(40, 12, 3)
    # A video's scores differ, and are the same in all videos.
    probabilities = torch.linspace(0.9, 0.1, 12).expand(40, -1).contiguous()
    pairs, counts = _pairs(probabilities, labels), np.bincount(np.random.default_rng(0).integers(0, 40, 40))
    counts = np.pad(counts, (0, 40 - len(counts)))
    assert pairs.gap(counts) == pytest.approx(_gap_of_repeated(probabilities, labels, counts), abs=1e-12)


def test_the_interval_is_that_of_a_bootstrap_of_repeated_records():
    probabilities, labels = _random(60, 20, 4)
    better = (probabilities + 0.3 * labels).clamp_max(1.0)
    a, b = _pairs(probabilities, labels), _pairs(better, labels)
    found = compare_pairs(a, b, Bootstrap(resamples=50, seed=6, confidence=0.8))
    generator = np.random.default_rng(6)
    differences = []
    for _ in range(50):
        counts = np.bincount(generator.integers(0, 60, 60), minlength=60)
        differences.append(_gap_of_repeated(better, labels, counts) - _gap_of_repeated(probabilities, labels, counts))
    assert [found.low, found.high] == pytest.approx(list(np.quantile(differences, [0.1, 0.9])))
    assert found.standard_error == pytest.approx(np.std(differences, ddof=1))
    assert found.share_below_zero == np.mean(np.array(differences) < 0)
    assert found.difference == found.gap_b - found.gap_a > 0
    assert compare_pairs(b, a, Bootstrap(50, 6, 0.8)).high == pytest.approx(-found.low)
    assert compare_pairs(a, b, Bootstrap(50, 6, 0.8)) == found
    assert compare_pairs(a, b, Bootstrap(50, 7, 0.8)).low != found.low


def test_a_model_differs_from_itself_by_nothing():
    pairs = _pairs(*_random(50, 20, 5))
    found = compare_pairs(pairs, pairs, Bootstrap(20))
    assert (found.difference, found.low, found.high, found.standard_error, found.share_below_zero) == (0, 0, 0, 0, 0)


class Shifted:
    """Probabilities from a video's first frame, mixed with a little of its labels."""

    def __init__(self, share: float):
        self.share = share

    def predict_batch(self, batch: Batch) -> torch.Tensor:
        base = batch.features[:, 0, :SMALL_CLASSES].float() / 255
        return base if batch.labels is None else (1 - self.share) * base + self.share * batch.labels


def test_figures_are_those_of_evaluation(small_records):
    data = open_dataset(small_records["validate"], SMALL_SPEC, SMALL_CLASSES, 300)
    found = compare(Shifted(0.0), data, Shifted(0.1), data, CPU, Bootstrap(resamples=100))
    assert found.videos == 90
    assert found.gap_a == pytest.approx(evaluate(Shifted(0.0), data, CPU).compute().gap, abs=1e-12)
    assert found.gap_b == pytest.approx(evaluate(Shifted(0.1), data, CPU).compute().gap, abs=1e-12)
    assert 0 < found.low < found.difference < found.high
    assert found.to_json()["resamples"] == 100


def test_different_videos_or_classes_and_no_labels_are_refused(small_records):
    data = {name: open_dataset(pattern, SMALL_SPEC, SMALL_CLASSES, 300) for name, pattern in small_records.items()}
    with pytest.raises(InputError, match="different videos"):
        compare(Shifted(0), data["train"], Shifted(0), data["validate"], CPU)
    with pytest.raises(InputError, match="hold no labels"):
        compare(Shifted(0), data["unlabelled"], Shifted(0), data["unlabelled"], CPU)
    more = open_dataset(small_records["validate"], SMALL_SPEC, SMALL_CLASSES + 1, 300)
    with pytest.raises(InputError, match="12 and 13 classes"):
        compare(Shifted(0), data["validate"], Shifted(0), more, CPU)
    pairs = _pairs(*_random(5, 5, 0))
    with pytest.raises(InputError, match="1 resamples"):
        compare_pairs(pairs, pairs, Bootstrap(resamples=1))
