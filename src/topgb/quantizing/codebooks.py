"""Codebooks of one tensor: choose the levels, and find the nearest level for each weight."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from topgb.quantizing.kmeans import kmeans_levels

# One byte per weight, as in 2018.
LEVELS = 256
# Weights compared at once: a few megabytes of float64.
BLOCK = 1 << 18


def uniform_levels(weights: np.ndarray) -> np.ndarray:
    """Evenly spaced levels float64 [256] from least to greatest of float32 weights [N] (2018: `quant_uniform`)."""
    return np.linspace(float(weights.min()), float(weights.max()), num=LEVELS)


def quantile_levels(weights: np.ndarray) -> np.ndarray:
    """Interpolated quantiles float64 [256] of float32 weights [N], both ends included (2018: `quant_quantile`)."""
    # Halving is exact, and differences of halves cannot overflow.
    halves = weights * np.float32(0.5)
    return 2 * np.quantile(halves, np.linspace(0.0, 1.0, LEVELS), overwrite_input=True).astype(np.float64)


def nearest_codes(weights: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Index of the nearest of ascending `levels` (float64 [256]) for each of float32 `weights`: uint8, the same shape.

    Ties take the first level. Distances are squares in float64, as in SciPy's `vq`, so the codes equal those of 2018.
    """
    flat, codes = weights.reshape(-1), np.empty(weights.size, np.uint8)
    # Among equal levels the first counts as the nearest.
    first = np.searchsorted(levels, levels, side="left").astype(np.uint8)

    def fill(start: int) -> None:
        part = flat[start : start + BLOCK].astype(np.float64)
        above = np.searchsorted(levels, part, side="left").clip(1, len(levels) - 1)
        is_below = (part - levels[above - 1]) ** 2 <= (part - levels[above]) ** 2
        codes[start : start + BLOCK] = first[above - is_below]

    # Threads help, because NumPy releases the interpreter's lock in each of these operations.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fill, range(0, len(flat), BLOCK)))
    return codes.reshape(weights.shape)


def kmeans_256(weights: np.ndarray) -> np.ndarray:
    """Levels float64 [up to 256] of least squared error for float32 weights [N] (2018: `quant_kmeans`)."""
    return kmeans_levels(weights, LEVELS)


METHODS = {"uniform": uniform_levels, "quantile": quantile_levels, "kmeans": kmeans_256}
