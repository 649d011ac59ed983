"""Fit the weights of a mixture to labelled videos."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from topgb.combining.prediction_matrix import collect
from topgb.combining.shortlist import LISTED, Shortlist
from topgb.errors import InputError
from topgb.evaluation.metrics import LOSS_EPSILON, TOP_K, pooled_average_precision
from topgb.evaluation.predictions import Predictor
from topgb.progress import SILENT, Progress
from topgb.records.dataset import Dataset

# Random divisions of the videos into halves, to cross-validate the gain.
DIVISIONS = 2
# Exponentiated gradient on the cross entropy, which converges after far fewer steps.
STEPS, RATE = 300, 1.0
# Steps of the coordinate search on GAP, as shares of the mixture, and the least gain that makes it move.
MOVES, LEAST_GAIN = (0.2, 0.1, 0.05, 0.02), 1e-5
# A smaller share is set to 0: it gains nothing, and costs the member's bytes and time.
LEAST_WEIGHT = 0.01
# Videos that are mixed and ranked at a time.
ROWS = 4096


@dataclass(frozen=True)
class FittedWeights:
    """Weights float64 [M] that sum to 1, none negative, and the figures that they reach.

    gaps                  GAP@20 of each model alone
    gap_equal             GAP@20 of the mixture with equal weights
    gap_fitted            GAP@20 of the mixture with `weights`, on the videos that they were fitted to
    cross_validated_gain  gain over equal weights on one half of the videos, of weights fitted to the other half; mean
    """

    weights: np.ndarray
    gaps: tuple[float, ...]
    gap_equal: float
    gap_fitted: float
    cross_validated_gain: float
    videos: int

    @property
    def gain(self) -> float:
        """The gain of `weights` over equal ones, on the videos that they were fitted to; never negative."""
        return self.gap_fitted - self.gap_equal

    def to_json(self) -> dict[str, Any]:
        return {
            "videos": self.videos,
            "weights": self.weights.tolist(),
            "gaps": list(self.gaps),
            "gap_equal": self.gap_equal,
            "gap_fitted": self.gap_fitted,
            "gain": self.gain,
            "cross_validated_gain": self.cross_validated_gain,
        }


def fit_models(
    models: Iterable[Predictor], dataset: Dataset, device: torch.device, seed: int = 0, progress: Progress = SILENT
) -> FittedWeights:
    """`fit_weights` for models, which predict one after the other; the result of each takes float32 [N, V].

    Raises as `collect` and `fit_weights` do.
    """
    predictions = []
    labels = np.zeros((0, 0), np.bool_)
    for model in models:
        found = collect(model, dataset, device, progress)
        predictions.append(found.probabilities)
        labels = found.labels
    return fit_weights(predictions, labels, seed, progress)


def fit_weights(
    predictions: Sequence[np.ndarray], labels: np.ndarray, seed: int = 0, progress: Progress = SILENT
) -> FittedWeights:
    """Weights for the predictions of M models, each float32 [N, V], fitted to the labels bool [N, V] of the videos.

    The weights are the mean of two answers. One has the least cross entropy: a convex problem, solved by Kivinen and
    Warmuth's exponentiated gradient (1997). The other comes from a search on GAP itself. The first overfits less, the
    second optimises the figure that counts, and their mean was better on other videos than either. Weights are equal
    instead if they are no worse on these videos, or if the cross-validated gain (`seed` draws the halves) is not
    positive.

    Raises `InputError` if there are fewer than two models or two videos.
    """
    models, videos = len(predictions), len(labels)
    if models < 2 or videos < 2:
        raise InputError(f"weights cannot be fitted to {models} models and {videos} videos; name two of each at least")
    equal = np.full(models, 1.0 / models)
    fitted, gain = fit_listed(*_list_classes(predictions, labels), seed, progress)
    gap_equal, gap_fitted = (mixture_gap(predictions, weights, labels) for weights in (equal, fitted))
    if gap_fitted <= gap_equal:
        fitted, gap_fitted = equal, gap_equal
    return FittedWeights(
        weights=fitted,
        gaps=tuple(mixture_gap([probabilities], np.ones(1), labels) for probabilities in predictions),
        gap_equal=gap_equal,
        gap_fitted=gap_fitted,
        cross_validated_gain=gain,
        videos=videos,
    )


def fit_listed(
    scores: torch.Tensor, listed: Shortlist, seed: int = 0, progress: Progress = SILENT
) -> tuple[np.ndarray, float]:
    """Weights float64 [M] for scores float32 [M, N, K] of listed classes, and their cross-validated gain.

    The weights are equal if the gain is not positive; see `fit_weights`.
    """
    progress.begin("fitting", 2 * DIVISIONS + 1, "fits")
    gain = float(np.mean(_cross_validated(scores, listed, seed, lambda: progress.advance(1))))
    fitted = _fit(scores, listed) if gain > 0 else np.full(len(scores), 1.0 / len(scores))
    progress.advance(1)
    progress.end()
    return fitted, gain


def mixture_gap(predictions: Sequence[np.ndarray], weights: np.ndarray, labels: np.ndarray) -> float:
    """GAP@20 of Σ weight · predictions, each float32 [N, V]; needs no further matrix of that size."""
    scores, hits = [], []
    for start in range(0, len(labels), ROWS):
        rows = slice(start, start + ROWS)
        best, classes = _mix(predictions, weights, rows).topk(min(TOP_K, labels.shape[1]), dim=1)
        scores.append(best)
        hits.append(torch.from_numpy(labels[rows]).gather(1, classes))
    return pooled_average_precision(torch.cat(scores), torch.cat(hits), int(np.count_nonzero(labels)))


def _mix(predictions: Sequence[np.ndarray], weights: np.ndarray, rows: slice) -> torch.Tensor:
    """Σ weight · predictions for some rows: float32 [rows, V]."""
    mixture = torch.zeros(predictions[0][rows].shape)
    for weight, probabilities in zip(weights, predictions, strict=True):
        mixture.add_(torch.from_numpy(probabilities[rows]), alpha=float(weight))
    return mixture


def _list_classes(predictions: Sequence[np.ndarray], labels: np.ndarray) -> tuple[torch.Tensor, Shortlist]:
    """Scores float32 [M, N, K] of each video's K likeliest classes by the models' mean, and these as a shortlist."""
    equal = np.full(len(predictions), 1.0 / len(predictions))
    scores, classes, hits = [], [], []
    positives = torch.from_numpy(np.count_nonzero(labels, axis=1))
    for start in range(0, len(labels), ROWS):
        rows = slice(start, start + ROWS)
        best = _mix(predictions, equal, rows).topk(min(LISTED, labels.shape[1]), dim=1).indices
        classes.append(best)
        hits.append(torch.from_numpy(labels[rows]).gather(1, best))
        scores.append(torch.stack([torch.from_numpy(part[rows]).gather(1, best) for part in predictions]))
    listed = Shortlist(torch.cat(classes), torch.cat(hits), positives)
    return torch.cat(scores, dim=1), listed


def _cross_validated(scores: torch.Tensor, listed: Shortlist, seed: int, on_fit: Callable[[], None]) -> list[float]:
    """The gain over equal weights on each half of each division, with weights fitted to the other half."""
    generator = np.random.default_rng(seed)
    videos = len(listed.classes)
    equal = np.full(len(scores), 1.0 / len(scores))
    gains = []
    for _ in range(DIVISIONS):
        order = torch.from_numpy(generator.permutation(videos))
        first, second = ((scores[:, half], listed.of(half)) for half in (order[: videos // 2], order[videos // 2 :]))
        for seen, unseen in ((first, second), (second, first)):
            gains.append(_gap(*unseen, _fit(*seen)) - _gap(*unseen, equal))
            on_fit()
    return gains


def _fit(scores: torch.Tensor, listed: Shortlist) -> np.ndarray:
    """Weights float64 [M]: the mean of both answers (see `fit_weights`), without tiny shares."""
    weights = (_least_cross_entropy(scores, listed.hits) + _best_gap(scores, listed)) / 2
    weights[weights < min(LEAST_WEIGHT, weights.max())] = 0.0
    return weights / weights.sum()


def _least_cross_entropy(scores: torch.Tensor, hits: torch.Tensor) -> np.ndarray:
    """Weights float64 [M] with the least cross entropy of the mixture: `scores` [M, N, K], `hits` bool [N, K].

    Exponentiated gradient: each step multiplies weight m by exp(-RATE · gradient of m), then scales the sum to 1.
    """
    pairs, labels = scores.flatten(1), hits.flatten()
    # Most listed classes are unlikely to every model and hardly affect the weights: keep the other L, [M, L] and [L].
    likely = pairs.amax(0) > 1e-4
    pairs, labels = pairs[:, likely], labels[likely].float()
    positives = max(float(labels.sum()), 1.0)
    weights = torch.full((len(scores),), 1.0 / len(scores), dtype=torch.float64)
    for _ in range(STEPS):
        mixture = (weights.float() @ pairs).clamp(LOSS_EPSILON, 1 - LOSS_EPSILON)
        gradient = (pairs @ ((1 - labels) / (1 - mixture) - labels / mixture)).double() / positives
        # Subtracting the weighted mean gradient changes nothing after scaling, and keeps the exponents small.
        weights = weights * torch.exp(-RATE * (gradient - weights @ gradient).clamp(-5, 5))
        weights = weights / weights.sum()
    return weights.numpy()


def _best_gap(scores: torch.Tensor, listed: Shortlist) -> np.ndarray:
    """Weights float64 [M] by coordinate search from equal ones: raise or lower one weight while that raises GAP."""
    weights = np.full(len(scores), 1.0 / len(scores))
    best = _gap(scores, listed, weights)
    for move in MOVES:
        improved = True
        while improved:
            improved = False
            for member in range(len(scores)):
                for step in (move, -move):
                    moved = weights.copy()
                    moved[member] = max(moved[member] + step, 0.0)
                    if not moved.any():
                        continue
                    moved /= moved.sum()
                    gap = _gap(scores, listed, moved)
                    if gap > best + LEAST_GAIN:
                        weights, best, improved = moved, gap, True
    return weights


def _gap(scores: torch.Tensor, listed: Shortlist, weights: np.ndarray) -> float:
    """GAP@20 of the mixture of `scores` float32 [M, N, K] with `weights` [M]."""
    return listed.gap(torch.einsum("m,mnk->nk", torch.from_numpy(weights).float(), scores))
