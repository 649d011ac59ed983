"""The least probability at which each class is given: found on labelled records, and kept in the model's file."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch

from topgb.errors import InputError, option
from topgb.evaluation.predictions import Predictor, predictions
from topgb.modelfile import Header, StoredModel, write_model_file
from topgb.modelfile.header import THRESHOLDS
from topgb.progress import SILENT, Progress
from topgb.records.dataset import Dataset
from topgb.version import __version__

PURPOSE = "find thresholds with"
# Weights of F1 of all pairs and of the mean F1 of the classes, by goal.
F1 = {"f1": (1.0, 1.0), "f1_micro": (1.0, 0.0), "f1_macro": (0.0, 1.0)}
# The thresholds to choose from: their log odds lie at equal distances.
STEPS = 512
LEAST = 1e-4
_LAST = np.log(1 / LEAST - 1)
GRID = 1 / (1 + np.exp(-np.linspace(-_LAST, _LAST, STEPS)))
# With this many labels, a class's labels count as much as its calibrated probabilities. This constant and the next were
# chosen on halves of `validate`, with the models of one seed (docs/thresholds.md).
ENOUGH = 100.0
# The counts over all classes together weigh as much as this many labels of a class, by goal.
COMMON = {"f1": 1.0, "f1_micro": 30.0, "f1_macro": 0.0, "precision": 10.0, "recall": 0.0}
# Classes whose curves are computed at a time.
_BLOCK = 1024


@dataclass(frozen=True)
class Goal:
    """The purpose of thresholds: the most F1, or a `precision` or `recall` of `least`, and then the most of the other.

    `f1_micro` is F1 of all pairs, `f1_macro` the mean over the classes, `f1` the mean of the two.
    """

    measure: str = "f1"
    least: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Goal":
        """The goal in `f1`, `precision=0.9` or `recall=0.8`. Raises `InputError` for anything else."""
        if text in F1:
            return cls(text)
        match = re.fullmatch(r"(precision|recall)=(\d*\.?\d+)", text)
        if match is None or not 0 < float(match[2]) <= 1:
            raise InputError(
                f"{option('for_', text)} is none of {', '.join(F1)}, precision=P and recall=R, with P and R above 0 "
                "and up to 1"
            )
        return cls(match[1], float(match[2]))

    def __str__(self) -> str:
        return self.measure if self.measure in F1 else f"{self.measure}={self.least:g}"

    def reached(self, right: np.ndarray, given: np.ndarray, positives: np.ndarray) -> np.ndarray:
        """int64 [...]: the place of `GRID` with the wanted precision or recall, from counts [..., STEPS] at each."""
        figure = right / np.maximum(given if self.measure == "precision" else positives, 1e-9)
        reached = figure >= self.least
        if self.measure == "recall":
            # Recall falls, so the last place that reaches it is the one of most precision.
            return np.maximum(reached.sum(-1) - 1, 0)
        return np.where(reached.any(-1), reached.argmax(-1), STEPS - 1)


class Curves:
    """How many pairs of each class lie at each place of `GRID`, and how many of these are labels: int32 [V, STEPS].

    A pair lies at the greatest threshold that its probability reaches. Memory is bounded by the classes, however many
    videos there are.
    """

    def __init__(self, classes: int):
        self.right, self.given = np.zeros((2, classes, STEPS), np.int32)
        self.positives = np.zeros(classes, np.int64)
        self.videos = 0

    def add(self, probabilities: torch.Tensor, labels: torch.Tensor) -> None:
        """Count a batch: probabilities float32 [B, V] and labels bool [B, V]."""
        hits, values = labels.cpu().numpy(), probabilities.cpu().numpy()
        self.videos += len(values)
        self.positives += hits.sum(0)
        # Pairs below the first place are given by no threshold.
        videos, classes = np.nonzero(values >= np.float32(GRID[0]))
        places = np.maximum(np.searchsorted(GRID, values[videos, classes].astype(np.float64), "right") - 1, 0)
        right = hits[videos, classes]
        np.add.at(self.given, (classes, places), 1)
        np.add.at(self.right, (classes[right], places[right]), 1)


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the V classes for a goal: `values` float64 [V], and the best `common` one for all classes."""

    goal: Goal
    common: float
    values: np.ndarray


def find_thresholds(curves: Curves, goal: Goal, shrink: bool = True) -> Thresholds:
    """The thresholds at which `curves` reach the goal best.

    If a class has few labels, labels are estimated from its probabilities, calibrated over all classes, and a share of
    the counts over all classes is added. So a single chance label moves no threshold far. Without `shrink` each class's
    threshold depends on its own labels alone.
    """
    amounts = (ENOUGH, COMMON[goal.measure]) if shrink else (0.0, 0.0)
    right, given = _reaching(curves.right.sum(0, np.int64)), _reaching(curves.given.sum(0, np.int64))
    positives = max(int(curves.positives.sum()), 1)
    micro = 2 * right / np.maximum(given + positives, 1)
    common = _middle(micro >= micro.max()) if goal.measure in F1 else goal.reached(right, given, np.array(positives))
    pool = _Pool(right, given, positives, float(micro.max()), _calibration(curves))
    places = []
    for first in range(0, len(curves.positives), _BLOCK):
        block = slice(first, first + _BLOCK)
        own = curves.right[block], curves.given[block], curves.positives[block]
        places.append(_places(own, pool, goal, max(int((curves.positives > 0).sum()), 1), amounts))
    values = np.array([_rounded(value) for value in GRID[np.concatenate(places)]])
    return Thresholds(goal, _rounded(GRID[int(common)]), values)


@dataclass(frozen=True)
class _Pool:
    """All classes together: pairs that reach each threshold, labels, the best F1, and labels per pair at each place."""

    right: np.ndarray
    given: np.ndarray
    positives: int
    f1: float
    calibration: np.ndarray


def _places(
    own: tuple[np.ndarray, np.ndarray, np.ndarray], pool: _Pool, goal: Goal, present: int, amounts: tuple[float, float]
) -> np.ndarray:
    """int64 [C]: the best places of `GRID` for C classes, given the counts of `Curves` for these."""
    (enough, pull), labels = amounts, own[2].astype(np.float64)
    given, expected = _reaching(own[1]), _reaching(own[1] * pool.calibration)
    share = np.divide(labels, labels + enough, out=np.ones_like(labels), where=labels + enough > 0)[:, None]
    right = share * _reaching(own[0]) + (1 - share) * expected
    positives = share * labels[:, None] + (1 - share) * expected[:, :1]
    added = pull / pool.positives
    if goal.measure not in F1:
        return goal.reached(right + added * pool.right, given + added * pool.given, positives + pull)
    micro_share, macro_share = F1[goal.measure]
    # Near the best F1 of all pairs, a change of F1 is proportional to the change of 2 · right - F1 · given.
    micro = 2 * (right + added * pool.right) - pool.f1 * (given + added * pool.given)
    macro = 2 * right / np.maximum(given + positives, 1e-9)
    best = pool.given[int(np.argmax(2 * pool.right / (pool.given + pool.positives)))] + pool.positives
    value = micro_share * micro / best + macro_share * macro / present
    return _middle(value >= value.max(-1, keepdims=True) - 1e-12)


def _calibration(curves: Curves) -> np.ndarray:
    """float64 [STEPS]: the share of labels among all classes' pairs at each place, made to rise by pooling."""
    blocks: list[tuple[float, float, int]] = []
    for right, given in zip(curves.right.sum(0).tolist(), curves.given.sum(0).tolist(), strict=True):
        blocks.append((right, given, 1))
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            last = blocks.pop()
            blocks[-1] = (blocks[-1][0] + last[0], blocks[-1][1] + last[1], blocks[-1][2] + last[2])
    return np.repeat([right / max(given, 1) for right, given, _ in blocks], [places for *_, places in blocks])


def _reaching(counts: np.ndarray) -> np.ndarray:
    """Pairs at each place or a later one, from those at each: [..., STEPS]."""
    return np.cumsum(counts[..., ::-1], -1, np.float64)[..., ::-1]


def collect_curves(model: Predictor, dataset: Dataset, device: torch.device, progress: Progress = SILENT) -> Curves:
    """The curves of every labelled video of `dataset`. Raises as `predictions` does."""
    curves = Curves(dataset.classes)
    progress.begin("predicting", dataset.num_records, "videos")
    for batch, probabilities in predictions(model, dataset, device, progress, PURPOSE):
        curves.add(probabilities, cast(torch.Tensor, batch.labels))
    progress.end()
    return curves


def write_thresholds(path: Path, model: StoredModel, found: Thresholds, force: bool = False) -> Header:
    """Write the model with these thresholds in its header's `extras`. Raises as `write_model_file` does."""
    entry = {"goal": str(found.goal), "common": found.common, "values": found.values.tolist()}
    header = replace(
        model.header,
        extras={**model.header.extras, THRESHOLDS: entry},
        origin={
            "software": f"topgb {__version__}",
            "operation": "thresholds",
            "parents": [{"sha256": model.sha256}],
        },
    )
    write_model_file(path, header, model.tensors, force)
    return header


def _middle(marked: np.ndarray) -> np.ndarray:
    """int64 [...]: the middle of the first run of true values in `marked` bool [..., STEPS]."""
    first = marked.argmax(-1)
    behind = ~marked & (np.arange(marked.shape[-1]) > first[..., None])
    end = np.where(behind.any(-1), behind.argmax(-1), marked.shape[-1])
    return np.asarray((first + end - 1) // 2)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
