"""Several evaluations of one model on the same records, each with its own draw of frames."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from topgb.evaluation.metrics import Metrics, Scores

FIGURES = tuple(field.name for field in fields(Scores) if field.name != "videos")


@dataclass(frozen=True)
class Rounds:
    """The scores of every round, and the counts of the last one in full; there is at least one round."""

    scores: tuple[Scores, ...]
    metrics: Metrics

    def mean(self) -> Scores:
        """The mean of each figure over the rounds."""
        means = {name: float(np.mean([getattr(scores, name) for scores in self.scores])) for name in FIGURES}
        return Scores(videos=self.scores[0].videos, **means)

    def deviation(self) -> dict[str, float]:
        """The sample standard deviation (over rounds - 1) of each figure. There must be two rounds at least."""
        return {name: float(np.std([getattr(scores, name) for scores in self.scores], ddof=1)) for name in FIGURES}

    def to_json(self) -> dict[str, Any]:
        """The mean's figures, and each round's under `rounds` where there is more than one."""
        rounds = {"rounds": [scores.to_json() for scores in self.scores]} if len(self.scores) > 1 else {}
        return {**self.mean().to_json(), **rounds}
