"""K-means in one dimension, where every cluster is a contiguous range of the sorted values.

Prefix sums give the mean and the squared error of any range in constant time. Dynamic programming finds the best ranges
that end on a few thousand boundaries (Fisher 1958; Wu 1991 for the monotone divide and conquer). Lloyd's algorithm
(1982) then moves the centres until they come to rest.
"""

from dataclasses import dataclass

import numpy as np

# Dynamic programming chooses among this many boundaries, plus one; a power of two.
PIECES = 1 << 12
MOST_STEPS = 200
# The most values that have prefix sums of their own, and how many of them are computed at once.
MOST, BLOCK = 1 << 20, 1 << 15
# Lloyd's algorithm ends when no centre moves by more than this share of the mean distance between centres.
STILL = 1e-4


def kmeans_levels(weights: np.ndarray, levels: int) -> np.ndarray:
    """The centres that k-means finds for float32 weights [N]: float64 [up to `levels`], ascending."""
    values = np.sort(weights.reshape(-1))
    if np.count_nonzero(values[1:] != values[:-1]) < levels:
        return np.unique(values).astype(np.float64)
    # Subtract the median first, so that differences of sums of squares lose no digits.
    middle = float(values[len(values) // 2])
    sums = _prefix_sums(values, middle)
    line = sums.means()
    return _lloyd(line, sums, _best_ranges(sums.at(_boundaries(line)), levels)) + middle


@dataclass(frozen=True)
class _PrefixSums:
    """Prefix sums of the counts, the values and the squares of n sorted values: float64 [n + 1] each."""

    counts: np.ndarray
    values: np.ndarray
    squares: np.ndarray

    def at(self, places: np.ndarray) -> "_PrefixSums":
        """The prefix sums at these indices (int [m]), float64 [m] each."""
        return _PrefixSums(self.counts[places], self.values[places], self.squares[places])

    def error(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Squared error about their mean, float64 [m], of the values in each range [start, end) (int [m] each)."""
        count = np.maximum(self.counts[end] - self.counts[start], 1)
        return self.squares[end] - self.squares[start] - (self.values[end] - self.values[start]) ** 2 / count

    def means(self) -> np.ndarray:
        """The mean of the values between each prefix and the next, float64 [n]."""
        return np.diff(self.values) / np.maximum(np.diff(self.counts), 1)


def _prefix_sums(values: np.ndarray, middle: float) -> _PrefixSums:
    """Prefix sums of the sorted float32 values [N] minus `middle`; beyond MOST values, neighbours are grouped."""
    step = -(-len(values) // MOST)
    parts: list[list[np.ndarray]] = [[], [], []]
    for start in range(0, len(values), step * BLOCK):
        block = values[start : start + step * BLOCK].astype(np.float64) - middle
        firsts = np.arange(0, len(block), step)
        parts[0].append(np.diff(firsts, append=len(block)))
        parts[1].append(np.add.reduceat(block, firsts))
        parts[2].append(np.add.reduceat(np.square(block, out=block), firsts))
    return _PrefixSums(*(_cumulative(np.concatenate(part)) for part in parts))


def _cumulative(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(values)])


def _boundaries(values: np.ndarray) -> np.ndarray:
    """Ascending indices int [PIECES + 1] into the sorted values, dense where many centres will lie.

    The best density of centres is the cube root of the density of the values (Panter and Dite 1951). Half of the
    boundaries follow this cube root. The other half follow the density itself, because the estimated density is rough
    where values are few.
    """
    even = np.linspace(0, len(values), PIECES + 1).astype(int)
    ends = values[np.minimum(even, len(values) - 1)]
    share = _cumulative(np.diff(ends) ** (2 / 3))
    companded = np.interp(np.linspace(0, share[-1], PIECES // 2 + 1), share, ends)
    places = np.sort(np.concatenate([np.searchsorted(values, companded[1:]), even[::2]]))
    places[0], places[-1] = 0, len(values)
    return places


def _best_ranges(sums: _PrefixSums, levels: int) -> np.ndarray:
    """Means, float64 [levels], of the `levels` ranges between boundaries that have the least squared error together.

    `sums` are the prefix sums at the boundaries, [PIECES + 1] each.
    """
    ends = np.arange(PIECES + 1)
    error = sums.error(np.zeros_like(ends), ends)
    choices = []
    for _ in range(levels - 1):
        error, chosen = _one_more_range(sums, error)
        choices.append(chosen)
    edges = [PIECES]
    for chosen in reversed(choices):
        edges.append(int(chosen[edges[-1]]))
    return sums.at(np.array([0, *reversed(edges)])).means()


def _one_more_range(sums: _PrefixSums, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One step of the dynamic programme: the least error up to each boundary when one more range may be used.

    `before` is that error without the additional range, float64 [PIECES + 1]. Returns the new error, and the boundary
    at which the additional range starts, int [PIECES + 1]. The best start never moves back when the end moves on, so
    the starts for two ends bound the start for every end between them: log2 PIECES rounds of about PIECES comparisons.
    """
    error, start = np.zeros(PIECES + 1), np.zeros(PIECES + 1, int)
    last = np.array([PIECES])
    error[last], start[last] = _best_starts(sums, before, last, np.array([0]), last)
    stride = PIECES
    while stride > 1:
        ends = np.arange(stride // 2, PIECES, stride)
        low, high = start[ends - stride // 2], np.minimum(start[ends + stride // 2], ends)
        error[ends], start[ends] = _best_starts(sums, before, ends, low, high)
        stride //= 2
    return error, start


def _best_starts(
    sums: _PrefixSums, before: np.ndarray, ends: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each of `ends` (int [m]): the least of before[i] + error(i, end) over low <= i <= high, and the i of it."""
    lengths = high - low + 1
    firsts = np.cumsum(lengths) - lengths
    starts = np.arange(lengths.sum()) + np.repeat(low - firsts, lengths)
    totals = before[starts] + sums.error(starts, np.repeat(ends, lengths))
    least = np.minimum.reduceat(totals, firsts)
    found = np.flatnonzero(totals == np.repeat(least, lengths))
    return least, starts[found[np.searchsorted(found, firsts)]]


def _lloyd(values: np.ndarray, sums: _PrefixSums, centres: np.ndarray) -> np.ndarray:
    """Move ascending `centres` [K] to the means of the values nearest to them, again and again, until they rest.

    `values` [n] are sorted and `sums` their prefix sums. A centre without values stays where it is.
    """
    still = STILL * (values[-1] - values[0]) / len(centres)
    for _ in range(MOST_STEPS):
        inner = np.searchsorted(values, (centres[1:] + centres[:-1]) / 2, side="right")
        parts = sums.at(np.concatenate([[0], inner, [len(values)]]))
        moved = np.where(np.diff(parts.counts) > 0, parts.means(), centres)
        done = np.abs(moved - centres).max() <= still
        centres = moved
        if done:
            break
    return centres
