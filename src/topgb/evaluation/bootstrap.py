"""Bootstrap intervals: figures of the same videos drawn again and again, with replacement."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from topgb.errors import InputError
from topgb.progress import SILENT, Progress

Interval = tuple[float, float]


@dataclass(frozen=True)
class Bootstrap:
    """A bootstrap over videos: `resamples` draws of as many videos as there are, with replacement, keyed by `seed`.

    `resamples` is at least 2; `confidence`, between 0 and 1, is the share of the draws inside the interval. Raises
    `InputError` for other numbers.
    """

    resamples: int = 1000
    seed: int = 0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.resamples < 2 or not 0 < self.confidence < 1:
            raise InputError(
                f"{self.resamples} resamples or confidence {self.confidence:g} give no interval; take 2 and 0.95 or so"
            )

    def interval(self, values: np.ndarray) -> Interval:
        """The percentile interval of a figure that has `values` float64 [resamples] in the draws."""
        low, high = np.quantile(values, [(1 - self.confidence) / 2, (1 + self.confidence) / 2])
        return float(low), float(high)


DEFAULT_BOOTSTRAP = Bootstrap()


class RankedLists:
    """Ranked (video, class) pairs of one list, or of several lists one behind the other, to be resampled.

    `videos` int32 [P] are the pairs' videos and `hits` bool [P] tell which are right; in each list the best pair is
    first. `starts` int64 [P] is where the pair's list begins; None: there is one list.
    """

    def __init__(self, videos: np.ndarray, hits: np.ndarray, starts: np.ndarray | None = None):
        self._videos = videos
        self.places = np.flatnonzero(hits)
        self._starts = None if starts is None else starts[self.places]
        # The number of hits in front of each hit's list.
        self._first_hits = None if starts is None else np.searchsorted(self.places, starts[self.places])
        # Entry n is 1/1 + 1/2 + … + 1/n.
        self._harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, len(videos) + 1))])

    def precisions(self, counts: np.ndarray) -> np.ndarray:
        """float64 [H]: for each hit (at `places`) the sum of the precisions at its copies.

        Video i occurs `counts[i]` times (int [N], sum at most N), and so does each of its pairs.
        """
        # One entry per hit: its copies (`weights`), the rank of its last copy (`above`), the pairs that rank before its
        # first copy (`ranks`), and the hits among those pairs (`hits`).
        weights = counts[self._videos]
        total = np.cumsum(weights)
        above, weights = total[self.places], weights[self.places]
        hits = np.cumsum(weights) - weights
        if self._starts is not None and self._first_hits is not None:
            above = above - np.concatenate([[0], total])[self._starts]
            hits = hits - np.concatenate([[0], np.cumsum(weights)])[self._first_hits]
        ranks = above - weights
        # Behind R pairs, T of them hits, copy c = 1 … w of a hit has the precision (T + c) / (R + c). The w precisions
        # sum to w - (R - T) Σ 1 / (R + c); the sum in it is a difference of two harmonic numbers (`inverse`).
        inverse = self._harmonic[above] - self._harmonic[ranks]
        return np.asarray(weights - (ranks - hits) * inverse)


class RankedPairs:
    """The 20 best classes of every video as (video, class) pairs, in one list, best score first; to be resampled.

    `ids` are the N videos in file order; `positives` int64 [N] counts the labels of each.
    """

    def __init__(self, ids: list[str], scores: np.ndarray, hits: np.ndarray, positives: np.ndarray):
        """Rank the K best classes of N videos by `scores` float32 [N, K]; `hits` bool [N, K] tells which are labels."""
        self.ids, self.positives = ids, positives
        order = np.argsort(-scores.ravel(), kind="stable")
        self._lists = RankedLists((order // scores.shape[1]).astype(np.int32), hits.ravel()[order])

    def gap(self, counts: np.ndarray) -> float:
        """GAP@20 of the data set in which video i occurs `counts[i]` times (int [N], sum at most N).

        Every pair and every label of video i counts `counts[i]` times; the copies of a pair are neighbours in the
        ranking. Really repeated records may give another GAP if different videos have pairs of the same score, because
        the order within such a tie can differ.
        """
        return float(self._lists.precisions(counts).sum() / max(int(counts @ self.positives), 1))


def resampled(
    figures: Callable[[np.ndarray], np.ndarray], videos: int, bootstrap: Bootstrap, progress: Progress = SILENT
) -> np.ndarray:
    """float64 [resamples, F]: the F `figures` of each draw, given how often each of the `videos` occurs in it."""
    generator = np.random.default_rng(bootstrap.seed)
    found = []
    progress.begin("resampling", bootstrap.resamples, "resamples")
    for _ in range(bootstrap.resamples):
        found.append(figures(np.bincount(generator.integers(0, videos, videos), minlength=videos)))
        progress.advance(1)
    progress.end()
    return np.array(found)
