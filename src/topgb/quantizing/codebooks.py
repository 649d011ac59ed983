"""Codebooks of one tensor: the levels to choose from, and the nearest of them for each weight."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from topgb.quantizing.kmeans import kmeans_levels

# One byte a weight, as in 2018.
LEVELS = 256
# Weights compared at once: a few megabytes of float64.
BLOCK = 1 << 18


def uniform_levels(weights: np.ndarray) -> np.ndarray:
    """float64 [256] from the least to the greatest of float32 weights [N] (2018: `quant_uniform`)."""
    return np.linspace(float(weights.min()), float(weights.max()), num=LEVELS)


def quantile_levels(weights: np.ndarray) -> np.ndarray:
    """float64 [256]: quantiles of float32 weights [N], interpolated, both ends among them (2018: `quant_quantile`)."""
    return np.quantile(weights, np.linspace(0.0, 1.0, LEVELS)).astype(np.float64)


def nearest_codes(weights: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """uint8 in the shape of float32 `weights`: the nearest of ascending `levels` (float64 [256]), the first on ties.

    Distances are squares in float64, as SciPy's `vq` compares them for the 2018 code, so that codes are equal to its.
    """
    flat, codes = weights.reshape(-1), np.empty(weights.size, np.uint8)
    # Of equal levels the first is the nearest.
    first = np.searchsorted(levels, levels, side="left").astype(np.uint8)

    def fill(start: int) -> None:
        part = flat[start : start + BLOCK].astype(np.float64)
        above = np.searchsorted(levels, part, side="left").clip(1, len(levels) - 1)
        is_below = (part - levels[above - 1]) ** 2 <= (part - levels[above]) ** 2
        codes[start : start + BLOCK] = first[above - is_below]

    # NumPy lets go of the interpreter's lock in all of these.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fill, range(0, len(flat), BLOCK)))
    return codes.reshape(weights.shape)


def kmeans_256(weights: np.ndarray) -> np.ndarray:
    """float64 [256] of least squared error for float32 weights [N] (2018: `quant_kmeans`)."""
    return kmeans_levels(weights, LEVELS)


METHODS = {"uniform": uniform_levels, "quantile": quantile_levels, "kmeans": kmeans_256}
