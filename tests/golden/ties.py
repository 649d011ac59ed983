"""Bounds of the challenge's metrics where scores are tied: of every order of the tied, the worst and the best.

Written out apart from the code that is tested. Without ties both bounds are the figure itself.
"""

from dataclasses import dataclass

import numpy as np

TOP_K = 20


@dataclass(frozen=True)
class Bounds:
    """A figure's worst and best value: two floats, or two float64 [V] where each class has one."""

    low: float | np.ndarray
    high: float | np.ndarray

    def assert_holds(self, figure: float | np.ndarray, name: str, rounding: float) -> None:
        np.testing.assert_array_less(self.low - rounding, figure, err_msg=name)
        np.testing.assert_array_less(figure, self.high + rounding, err_msg=name)


def bounds(scores: np.ndarray, labels: np.ndarray) -> dict[str, Bounds]:
    """Bounds of `hit_at_1`, `perr`, `gap`, `map` and, class by class, `aps` for scores and labels [B, V]."""
    worst, best = (_figures(scores, labels, hits_first) for hits_first in (False, True))
    return {name: Bounds(worst[name], best[name]) for name in best}


def _figures(scores: np.ndarray, labels: np.ndarray, hits_first: bool) -> dict[str, float | np.ndarray]:
    """Every figure with the hits before or behind the misses of the same score."""
    hit_at_1, precisions, kept_scores, kept_hits = [], [], [], []
    for p, y in zip(scores, labels, strict=True):
        order = _order(p, y, hits_first)
        count = y.sum()
        hit_at_1.append(y[order[0]])
        precisions.append((y & (p > 0))[order[:count]].sum() / max(count, 1))
        kept_scores.append(p[order[:TOP_K]])
        kept_hits.append(y[order[:TOP_K]])
    pooled = np.concatenate(kept_scores), np.concatenate(kept_hits)
    kept = _kept(scores, labels, hits_first)
    averages = np.array([
        _average_precision(p[k], y[k], y.sum(), hits_first) for p, y, k in zip(scores.T, labels.T, kept.T, strict=True)
    ])  # fmt: skip
    return {
        "hit_at_1": float(np.mean(hit_at_1)),
        "perr": float(np.mean(precisions)),
        "gap": _average_precision(*pooled, labels.sum(), hits_first),
        "aps": averages,
        "map": float(averages.mean()),
    }


def _order(scores: np.ndarray, hits: np.ndarray, hits_first: bool) -> np.ndarray:
    """Places of `scores` [P], the greatest first; of equal ones the hits, or the misses, first."""
    return np.lexsort((hits != hits_first, -scores))


def _average_precision(scores: np.ndarray, hits: np.ndarray, positives: int, hits_first: bool) -> float:
    ranked = hits[_order(scores, hits, hits_first)]
    return float((ranked * np.cumsum(ranked) / np.arange(1, len(ranked) + 1)).sum() / max(positives, 1))


def _kept(scores: np.ndarray, labels: np.ndarray, hits: bool) -> np.ndarray:
    """bool [B, V]: the pairs among a video's 20 best, and of those that may be the hits (or the misses).

    Where more classes share the 20th score than have room, any of them may be left out. A class's average precision
    grows with each hit that is kept and falls with each miss, so this is the best (or the worst) for each class alone.
    """
    last = -np.sort(-scores, axis=1)[:, min(TOP_K, scores.shape[1]) - 1, None]
    room = (scores >= last).sum(1, keepdims=True) <= TOP_K
    return (scores > last) | ((scores == last) & (room | (labels == hits)))
