"""K-means of numbers on a line: no general clustering, for there every cluster is a range of the sorted values.

Prefix sums give any range's mean and squared error at once. The best ranges that end on a few thousand boundaries are
found by dynamic programming (Fisher 1958; Wu 1991 for the monotone divide and conquer), and Lloyd's algorithm (1982)
moves them from there to where no value wants to change.
"""

from dataclasses import dataclass

import numpy as np

# Boundaries that the search by dynamic programming may choose from; a power of two.
PIECES = 1 << 12
MOST_STEPS = 200
# Values that sums are kept of, and how many of them are made at once.
MOST, BLOCK = 1 << 20, 1 << 15
# Moves, as a share of the mean distance between centres, that end Lloyd's algorithm.
STILL = 1e-4


def kmeans_levels(weights: np.ndarray, levels: int) -> np.ndarray:
    """float64 [up to `levels`], ascending: the centres that k-means finds for float32 weights [N]."""
    values = np.sort(weights.reshape(-1))
    if np.count_nonzero(values[1:] != values[:-1]) < levels:
        return np.unique(values).astype(np.float64)
    # About their middle, so that differences of sums of squares lose nothing.
    middle = float(values[len(values) // 2])
    sums = _summed(values, middle)
    line = sums.means()
    return _lloyd(line, sums, _best_ranges(sums.at(_boundaries(line)), levels)) + middle


@dataclass(frozen=True)
class _Sums:
    """Prefix sums, each float64 [n + 1], of n sorted values: of their number, of them, and of their squares."""

    counts: np.ndarray
    values: np.ndarray
    squares: np.ndarray

    def at(self, places: np.ndarray) -> "_Sums":
        return _Sums(self.counts[places], self.values[places], self.squares[places])

    def error(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """The squared error of the values from `start` up to `end` about their mean."""
        count = np.maximum(self.counts[end] - self.counts[start], 1)
        return self.squares[end] - self.squares[start] - (self.values[end] - self.values[start]) ** 2 / count

    def means(self) -> np.ndarray:
        """The mean between each prefix and the next."""
        return np.diff(self.values) / np.maximum(np.diff(self.counts), 1)


def _summed(values: np.ndarray, middle: float) -> _Sums:
    """Of sorted float32 values less `middle`; where there are many, of as many neighbours at a time as leave `MOST`."""
    step = -(-len(values) // MOST)
    parts: list[list[np.ndarray]] = [[], [], []]
    for start in range(0, len(values), step * BLOCK):
        block = values[start : start + step * BLOCK].astype(np.float64) - middle
        firsts = np.arange(0, len(block), step)
        parts[0].append(np.diff(firsts, append=len(block)))
        parts[1].append(np.add.reduceat(block, firsts))
        parts[2].append(np.add.reduceat(np.square(block, out=block), firsts))
    return _Sums(*(_prefix(np.concatenate(part)) for part in parts))


def _prefix(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(values)])


def _boundaries(values: np.ndarray) -> np.ndarray:
    """int [PIECES + 1] ascending places in sorted values, as dense as centres will be.

    Centres want the density's cube root (Panter and Dite 1951); half of the boundaries follow it, half the values'
    number, as a rough density misleads where values are few.
    """
    even = np.linspace(0, len(values), PIECES + 1).astype(int)
    ends = values[np.minimum(even, len(values) - 1)]
    share = _prefix(np.diff(ends) ** (2 / 3))
    companded = np.interp(np.linspace(0, share[-1], PIECES // 2 + 1), share, ends)
    places = np.sort(np.concatenate([np.searchsorted(values, companded[1:]), even[::2]]))
    places[0], places[-1] = 0, len(values)
    return places


def _best_ranges(sums: _Sums, levels: int) -> np.ndarray:
    """The means of the `levels` ranges between boundaries (prefix sums there, [PIECES + 1]) of least squared error."""
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


def _one_more_range(sums: _Sums, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least error up to each boundary with one range more than `before`, and where that range starts.

    The start moves on with the end, so those of every second end bound those between: log PIECES rounds, each of
    about PIECES comparisons.
    """
    error, start = np.zeros(PIECES + 1), np.zeros(PIECES + 1, int)
    last = np.array([PIECES])
    error[last], start[last] = _least(sums, before, last, np.array([0]), last)
    stride = PIECES
    while stride > 1:
        ends = np.arange(stride // 2, PIECES, stride)
        low, high = start[ends - stride // 2], np.minimum(start[ends + stride // 2], ends)
        error[ends], start[ends] = _least(sums, before, ends, low, high)
        stride //= 2
    return error, start


def _least(
    sums: _Sums, before: np.ndarray, ends: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each end the least of before[i] + error(i, end) over i from low to high, and its i."""
    lengths = high - low + 1
    firsts = np.cumsum(lengths) - lengths
    starts = np.arange(lengths.sum()) + np.repeat(low - firsts, lengths)
    totals = before[starts] + sums.error(starts, np.repeat(ends, lengths))
    least = np.minimum.reduceat(totals, firsts)
    found = np.flatnonzero(totals == np.repeat(least, lengths))
    return least, starts[found[np.searchsorted(found, firsts)]]


def _lloyd(values: np.ndarray, sums: _Sums, centres: np.ndarray) -> np.ndarray:
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
