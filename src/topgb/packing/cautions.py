"""Say what is likely to be a mistake in a user's features and labels, although records can be made of it."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from topgb.errors import TopgbWarning, option
from topgb.features import FeatureSpec
from topgb.packing.ranges import Cost
from topgb.packing.video import RawVideo

# So many videos with a label each and no class twice are taken for captions or ids.
_LEAST_LABELS = 10
# The share of a frame that a given range may cost; measured ranges cost a few per cent, heavy tails 9 %.
_MOST_ERROR = 0.2


@dataclass
class FixedValues:
    """Counts of a feature's videos that hold a single value, or the same values as the first video.

    flat, first_flat  number of videos with one value throughout, and the first one's place
    alike             whether all videos hold the same values as the first
    """

    first: np.ndarray
    videos: int = 0
    flat: int = 0
    first_flat: str = ""
    alike: bool = True

    def add(self, values: np.ndarray, where: str) -> None:
        self.videos += 1
        self.alike = self.alike and np.array_equal(values, self.first)
        # A single number says nothing. Nearly always the first frame shows that values differ.
        if values.size > 1 and all(part.min() == part.max() for part in (values[0], values)):
            self.flat += 1
            self.first_flat = self.first_flat or where

    def caution(self, name: str) -> str | None:
        if self.alike and self.videos > 1:
            return (
                f"the feature {name!r} holds the same values in all {self.videos:,} videos, so that a model learns "
                "nothing from it; leave it out, or make it anew"
            )
        if self.flat:
            return (
                f"the feature {name!r} holds one value throughout in {self.flat:,} of {self.videos:,} videos, first in "
                f"{self.first_flat}, as a failed extraction leaves it; leave such videos out, or make it anew"
            )
        return None


@dataclass
class Fixed:
    """`FixedValues` by feature."""

    features: dict[str, FixedValues] = field(default_factory=dict)

    def add(self, video: RawVideo) -> None:
        for name, values in video.features.items():
            self.features.setdefault(name, FixedValues(values)).add(values, video.where)


def caution_of_features(fixed: Fixed) -> None:
    """Warn of features without information."""
    _warn(words for name, found in fixed.features.items() if (words := found.caution(name)) is not None)


def caution_of_labels(counts: Mapping[str, int], total: int, train: int, videos: int) -> None:
    """Warn of labels that tell no videos apart, or all of them.

    `counts` are training videos by class, of `train`; `total` are the labels of all `videos`.
    """
    if 0 < train == min(counts.values(), default=0) and total == len(counts) * videos and videos >= _LEAST_LABELS:
        _warn(
            [f"all {videos:,} videos have the same labels, so that a model learns nothing from them; check the labels"]
        )
    if total == len(counts) == videos >= _LEAST_LABELS:
        _warn(
            [
                f"each of the {videos:,} videos has a label that no other has, as where captions or ids stand for "
                "labels; a model learns classes that several videos show"
            ]
        )


def caution_of_ranges(spec: FeatureSpec, costs: Mapping[str, Cost]) -> None:
    """Warn of ranges that lose much of the values."""
    _warn(
        f"the range {feature.range[0]:.10g} to {feature.range[1]:.10g} loses {cost.error:.0%} of the feature "
        f"{name!r}: {cost.clipped / cost.values:.0%} of its values lie beyond it, and a step is "
        f"{feature.scale:.3g}; leave {option('range')} out, or give one that fits the values"
        for name, cost in costs.items()
        for feature in spec.features
        if feature.name == name and cost.error > _MOST_ERROR
    )


def _warn(sentences: Iterator[str] | list[str]) -> None:
    for sentence in sentences:
        # The line that called `topgb.pack`.
        warnings.warn(sentence, TopgbWarning, stacklevel=7)
