"""The bounds of tied scores hold for every order of the tied, and some order reaches them."""

import numpy as np
import pytest
import torch

from golden.ties import bounds
from topgb.evaluation.metrics import Metrics

pytestmark = pytest.mark.numeric

LEVELS, NOISE, ROUNDING = 8, 0.4, 1e-9


def _tied(videos: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(videos)
    scores = random.integers(1, LEVELS, (videos, classes))
    return scores, random.random((videos, classes)) < scores / (2 * LEVELS)


def _figures(scores: np.ndarray, labels: np.ndarray) -> dict[str, float | np.ndarray]:
    metrics = Metrics(labels.shape[1])
    metrics.add(torch.from_numpy(scores / LEVELS).float(), torch.from_numpy(labels))
    return {**metrics.compute().to_json(), "aps": metrics.average_precisions()}


@pytest.mark.parametrize(("videos", "classes"), [(1, 3), (30, 12), (40, 60)])
def test_every_order_of_the_tied_lies_between(videos, classes):
    scores, labels = _tied(videos, classes)
    held = bounds(scores, labels)
    random = np.random.default_rng(0)
    for _ in range(50):
        found = _figures(scores + NOISE * random.random(scores.shape), labels)
        for name, bound in held.items():
            bound.assert_holds(found[name], name, ROUNDING)


@pytest.mark.parametrize(("videos", "classes"), [(1, 3), (30, 12), (40, 60)])
def test_the_bounds_are_reached(videos, classes):
    scores, labels = _tied(videos, classes)
    held = bounds(scores, labels)
    # Hits a little higher than the misses of their score, or a little lower.
    worst, best = (_figures(scores + NOISE * (labels == first), labels) for first in (False, True))
    for name in ("hit_at_1", "perr", "gap", *(["aps", "map"] if classes <= 20 else [])):
        np.testing.assert_allclose(held[name].low, worst[name], atol=ROUNDING, err_msg=name)
        np.testing.assert_allclose(held[name].high, best[name], atol=ROUNDING, err_msg=name)
    assert videos == 1 or held["gap"].low < held["gap"].high - 0.02


def test_scores_that_differ_have_one_value():
    random = np.random.default_rng(1)
    scores, labels = random.random((50, 30)), random.random((50, 30)) < 0.1
    for name, bound in bounds(scores, labels).items():
        np.testing.assert_array_equal(bound.low, bound.high, err_msg=name)
