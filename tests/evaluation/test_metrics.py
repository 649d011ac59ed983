"""Metrics against their definitions, written out the slow way."""

import numpy as np
import pytest
import torch

from topgb.evaluation.metrics import TOP_K, Metrics, _top_k, cross_entropy, descending_order

pytestmark = pytest.mark.numeric


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


@pytest.mark.parametrize(("videos", "classes"), [(1, 3), (40, 12), (60, 50), (9, 1500)])
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
    # The right ones among the n best classes: 1 of 2, 1 of 2, no label, and 1 of 2, as probability 0 does not count.
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


@pytest.mark.parametrize("levels", [2, 30, 10**6])
@pytest.mark.parametrize("classes", [20, 1279, 1280, 3862])
def test_the_best_classes_are_those_of_topk(classes, levels):
    generator = torch.Generator().manual_seed(levels)
    probabilities = torch.randint(0, levels, (70, classes), generator=generator).float() / levels
    scores, found = _top_k(probabilities, TOP_K)
    assert torch.equal(scores, probabilities.topk(TOP_K, dim=1).values)
    assert torch.equal(probabilities.gather(1, found), scores)
    assert all(len(set(row)) == TOP_K for row in found.tolist())


def test_a_score_that_is_not_a_number_is_among_the_best():
    probabilities = torch.rand(3, 3862, generator=torch.Generator().manual_seed(0))
    probabilities[1, 7] = torch.nan
    probabilities[2] = torch.nan
    scores, found = _top_k(probabilities, TOP_K)
    assert found[1, 0] == 7
    assert scores.isnan().sum(1).tolist() == [0, 1, TOP_K]


def test_ranking_is_a_stable_sort():
    generator = np.random.default_rng(0)
    scores = generator.integers(-5, 5, 1000).astype(np.float32) / 7
    scores[:3] = -0.0, 0.0, -0.0
    assert descending_order(scores).tolist() == np.argsort(-scores, kind="stable").tolist()


def test_loss_is_cross_entropy_and_any_number_of_labels_counts():
    probabilities, labels = _random(300, 1500)
    labels[0] = True
    metrics = Metrics(1500)
    metrics.add(probabilities, labels)
    assert metrics.compute().loss == pytest.approx(float(cross_entropy(probabilities, labels)), rel=1e-6)
    expected = np.mean([
        y[np.argsort(-p, kind="stable")[: y.sum()]].mean()
        for p, y in zip(probabilities.numpy(), labels.numpy(), strict=True)
    ])  # fmt: skip
    assert metrics.compute().perr == pytest.approx(expected, rel=1e-6)


def test_an_empty_batch_changes_nothing():
    metrics = Metrics(3862)
    metrics.add(*_random(5, 3862))
    before = metrics.compute()
    metrics.add(*_random(0, 3862))
    assert metrics.compute() == before
