"""Metrics against their definitions, written out the slow way."""

import numpy as np
import pytest
import torch

from topgb.evaluation.metrics import TOP_K, Metrics, cross_entropy


def _random(videos: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(videos, classes, generator=generator)
    labels = torch.rand(videos, classes, generator=generator) < 0.1
    return probabilities, labels


def _average_precision(pairs: list[tuple[float, bool]], positives: int) -> float:
    hits, total = 0, 0.0
    for rank, (_, hit) in enumerate(sorted(pairs, key=lambda pair: -pair[0]), start=1):
        if hit:
            hits += 1
            total += hits / rank
    return total / positives if positives else 0.0


@pytest.mark.parametrize(("videos", "classes"), [(1, 3), (40, 12), (60, 50)])
def test_gap_and_map_follow_their_definitions(videos, classes):
    probabilities, labels = _random(videos, classes)
    metrics = Metrics(classes)
    for start in range(0, videos, 7):
        metrics.add(probabilities[start : start + 7], labels[start : start + 7])
    kept, by_class = [], {index: [] for index in range(classes)}
    for p, y in zip(probabilities.tolist(), labels.tolist(), strict=True):
        for index in sorted(range(classes), key=lambda i: -p[i])[:TOP_K]:
            kept.append((p[index], y[index]))
            by_class[index].append((p[index], y[index]))
    scores = metrics.compute()
    assert scores.gap == pytest.approx(_average_precision(kept, int(labels.sum())))
    averages = [_average_precision(by_class[index], int(labels[:, index].sum())) for index in range(classes)]
    assert scores.map == pytest.approx(np.mean(averages))
    present = labels.any(0).numpy()
    assert scores.map_present == pytest.approx(np.mean(np.array(averages)[present]) if present.any() else 0.0)


def test_hit_and_perr_follow_their_definitions():
    probabilities = torch.tensor([[0.9, 0.5, 0.1], [0.2, 0.3, 0.8], [0.1, 0.2, 0.3], [0.5, 0.0, 0.0]])
    labels = torch.tensor([[1, 0, 1], [1, 1, 0], [0, 0, 0], [1, 1, 0]]).bool()
    metrics = Metrics(3)
    metrics.add(probabilities, labels)
    scores = metrics.compute()
    assert scores.hit_at_1 == pytest.approx((1 + 0 + 0 + 1) / 4)
    # Of n best classes: 1 of 2, 1 of 2, no label, and 1 of 2 since a class of probability 0 does not count.
    assert scores.perr == pytest.approx((0.5 + 0.5 + 0 + 0.5) / 4)


def test_any_division_into_parts_gives_the_same_figures():
    probabilities, labels = _random(50, 30)
    whole = Metrics(30)
    whole.add(probabilities, labels)
    parts = [Metrics(30) for _ in range(3)]
    for index, part in enumerate(parts):
        part.add(probabilities[index::3], labels[index::3])
    for part in parts[1:]:
        parts[0].merge(part)
    for name, value in whole.compute().to_json().items():
        assert getattr(parts[0].compute(), name) == pytest.approx(value, rel=1e-6), name


def test_memory_is_bounded_by_twenty_pairs_a_video():
    metrics = Metrics(3000)
    metrics.add(*_random(100, 3000))
    kept = sum(array.nbytes for part in metrics._parts for array in part)
    assert kept == 100 * TOP_K * (4 + 2 + 1)


def test_loss_is_finite_where_a_probability_is_0_or_1():
    loss = cross_entropy(torch.tensor([[0.0, 1.0]]), torch.tensor([[True, False]]))
    assert float(loss) == pytest.approx(-2 * np.log(1e-5), rel=1e-3)


def test_no_positives_at_all_score_zero():
    metrics = Metrics(5)
    metrics.add(torch.rand(4, 5), torch.zeros(4, 5, dtype=torch.bool))
    scores = metrics.compute()
    assert (scores.gap, scores.map, scores.map_present, scores.perr) == (0.0, 0.0, 0.0, 0.0)
