"""K-means on a line: against the true optimum, and where there is nothing to cluster."""

import numpy as np
import pytest

from topgb.quantizing.codebooks import kmeans_256, nearest_codes, quantile_levels, uniform_levels
from topgb.quantizing.kmeans import kmeans_levels

pytestmark = pytest.mark.numeric

LEVELS = 24


def _least_error(values: np.ndarray, levels: int) -> float:
    """The squared error of the best division of sorted values into ranges, by trying all (dynamic programming)."""
    sums, squares = (np.concatenate([[0.0], np.cumsum(part)]) for part in (values, values**2))
    ends = np.arange(len(values) + 1)

    def error(start: np.ndarray, end: int) -> np.ndarray:
        return squares[end] - squares[start] - (sums[end] - sums[start]) ** 2 / np.maximum(end - start, 1)

    best = np.array([error(np.array(0), end) for end in ends])
    for _ in range(levels - 1):
        best = np.array([(best[: end + 1] + error(ends[: end + 1], end)).min() for end in ends])
    return float(best[-1])


@pytest.mark.parametrize("shape", ["normal", "laplace", "heavy tails", "rows of unequal scale", "two lumps"])
def test_the_error_is_within_a_thousandth_of_the_least(shape):
    random = np.random.default_rng(1)
    weights = {
        "normal": lambda: random.standard_normal(1500),
        "laplace": lambda: random.laplace(size=1500),
        "heavy tails": lambda: random.standard_t(2, size=1500),
        "rows of unequal scale": lambda: (
            random.standard_normal((50, 30)) * np.exp(2 * random.standard_normal((50, 1)))
        ).ravel(),
        "two lumps": lambda: np.concatenate([random.normal(-5, 0.1, 700), random.normal(1e3, 1, 800)]),
    }[shape]().astype(np.float32)
    centres = kmeans_levels(weights, LEVELS)
    assert (np.diff(centres) > 0).all()
    codes = nearest_codes(weights, centres)
    error = np.square(weights - centres[codes]).sum()
    assert error <= 1.001 * _least_error(np.sort(weights).astype(np.float64), LEVELS)


@pytest.mark.parametrize("distinct", [1, 2, 255, 256])
def test_few_different_weights_are_kept_exactly(distinct):
    weights = np.random.default_rng(0).choice(np.linspace(-1, 1, distinct).astype(np.float32), size=(100, 200))
    for levels in (kmeans_256(weights.ravel()), uniform_levels(weights)):
        codes = nearest_codes(weights, levels)
        np.testing.assert_allclose(levels.astype(np.float32)[codes], weights, atol=1 / 255)
    np.testing.assert_array_equal(
        kmeans_256(weights.ravel()).astype(np.float32)[nearest_codes(weights, kmeans_256(weights.ravel()))], weights
    )


def test_codes_are_the_nearest_and_the_first_on_ties():
    levels = np.array([-1.0, 0.0, 0.0, 0.0, 1.0, 4.0])
    weights = np.array([-9, -0.6, -0.5, -0.4, 0, 0.4, 0.5, 0.6, 2.5, 2.6, 9], np.float32)
    np.testing.assert_array_equal(nearest_codes(weights, levels), [0, 0, 0, 1, 1, 1, 1, 4, 4, 5, 5])
    dense = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    grid = quantile_levels(dense)
    np.testing.assert_array_equal(nearest_codes(dense, grid), np.square(dense[:, None].astype(float) - grid).argmin(1))
