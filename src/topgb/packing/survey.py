"""The first reading of a user's own features: check every video, and measure the values."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from topgb.errors import InputError, option
from topgb.features import Feature, FeatureSpec, Level
from topgb.packing.cautions import Fixed
from topgb.packing.label_faults import find_fault
from topgb.packing.label_rows import Unlabelled, no_labels_error, no_row_error
from topgb.packing.labels import SEPARATOR, KnownClasses, Labels, class_names, holds_bits, is_vector, split_labels
from topgb.packing.ranges import Cost, ValueHistogram
from topgb.packing.video import RawVideo, if_labels
from topgb.packing.writer import in_validation
from topgb.records.description import MOST_FRAMES
from topgb.records.labels import LEAST_VECTORS
from topgb.records.sampling import Cut

Store = Literal["bytes", "float32"]
Range = tuple[float, float]


@dataclass
class Survey:
    """The results of the first reading.

    labels, labels_file  the labels' CSV, by the ids of videos where rows have some, and its path; None without one
    known                the classes of a given vocabulary, None if classes are made from the labels
    separator            what separates the labels in a cell, None if the caller did not say
    share                share of the videos to validate on, or None
    on_unlabelled        what becomes of videos without labels where others have some
    first                place and level of the first video, and each feature's width and whether it is uint8
    labelled             whether the videos have labels
    unlabelled           (id, place) of each video without labels where others have some
    ids                  ids of all videos that are kept
    train                number of training videos
    counts               number of training videos of each class; a class of validation videos alone counts 0
    places               where each class was first seen
    total                number of labels of all videos
    max_frames           frames of the longest video, 0 without frames
    cut                  frames that recipes cut off by default
    histograms           values of each feature of floats, by name
    fixed                features that hold the same values everywhere
    """

    labels: Labels | None
    labels_file: Path | None
    known: KnownClasses | None
    share: float | None
    separator: str | None = None
    on_unlabelled: Unlabelled = "stop"
    first: tuple[str, Level, dict[str, tuple[int, bool]]] | None = None
    labelled: bool = False
    unlabelled: list[tuple[str, str]] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    train: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, str] = field(default_factory=dict)
    total: int = 0
    max_frames: int = 0
    cut: Cut = field(default_factory=lambda: Cut(MOST_FRAMES))
    histograms: dict[str, ValueHistogram] = field(default_factory=dict)
    fixed: Fixed = field(default_factory=Fixed)

    def add(self, video: RawVideo) -> None:
        """Check a video and count it. Raises `InputError` if it does not fit."""
        self.check_fits(video)
        if self._is_unlabelled(video):
            self.unlabelled.append((video.id, video.where))
        if self.leaves_out(video):
            return
        if video.id in self.ids:
            raise InputError(f"{video.where}: the id {video.id!r} occurs twice; give each video an id of its own")
        self.ids.add(video.id)
        if video.level == "frame":
            frames = len(next(iter(video.features.values())))
            self.max_frames = max(self.max_frames, frames)
            self.cut.add(frames)
        trains = not in_validation(video.id, self.share)
        self.train += trains
        names = self.labels_of(video) or ()
        self.total += len(names)
        for name in names:
            if name not in self.places:
                self.places[name] = video.where
                self._check_known(name)
            self.counts[name] += trains
        self.fixed.add(video)
        for name, values in video.features.items():
            if values.dtype != np.uint8:
                self.histograms.setdefault(name, ValueHistogram()).add(np.atleast_2d(values))

    def _check_known(self, name: str) -> None:
        """Raise `InputError` if a class is not in the vocabulary."""
        if self.known is None or name in self.known.numbers:
            return
        fault = find_fault({*self.known.numbers, name}, [name], self.separator)
        advice = "correct it, or add the class there" if fault is None else f"it {fault[1]}"
        if name.isdecimal():
            advice = "labels are the names of classes, not their numbers"
        raise InputError(f"{self.places[name]}: its label {name[:80]!r} is not in the vocabulary; {advice}")

    def _check_names(self) -> None:
        """Raise `InputError` if a class made from the labels is really a list of labels."""
        videos = len(self.ids)
        if len(self.counts) == 2 and holds_bits(self.counts) and self.total == 2 * videos >= LEAST_VECTORS:
            low, high = sorted(self.counts)
            raise InputError(
                f"the labels of all {videos:,} videos are {low} and {high}, a 0/1 vector of two classes; write the "
                "names of the classes that each shows"
            )
        fault = find_fault(self.counts, self.counts, self.separator) if self.known is None else None
        if fault is not None:
            name, words = fault
            raise InputError(
                f"{self.places[name]}: its label {name[:80]!r} {words}; if it is one class after all, name all classes "
                f"in a CSV and give it as {option('vocabulary')}"
            )

    def check_fits(self, video: RawVideo) -> None:
        """Raise `InputError` if a video is not like the first."""
        held = {name: (values.shape[-1], values.dtype == np.uint8) for name, values in video.features.items()}
        if self.first is None:
            self.first = video.where, video.level, held
            self.labelled = self.labels is not None or _has_labels(video)
        before, level, wanted = self.first
        if level != video.level:
            raise InputError(
                f"{video.where} has features of the {_owner(video.level)}, {before} those of the {_owner(level)}; "
                f"pack them into two folders{if_labels(video.where) or if_labels(before)}"
            )
        if wanted.keys() != held.keys():
            raise InputError(
                f"{video.where} has the features {', '.join(sorted(held))}, {before} has {', '.join(sorted(wanted))}; "
                "every video needs the same"
            )
        for name, (size, is_bytes) in held.items():
            if size != wanted[name][0]:
                raise InputError(
                    f"{video.where}: feature {name!r} is {size} wide, in {before} it is {wanted[name][0]}; "
                    f"every video needs the same{_advice(video, name, before, self.fixed.features[name].first)}"
                )
            if is_bytes != wanted[name][1]:
                kinds = ("uint8", "floats") if is_bytes else ("floats", "uint8")
                raise InputError(
                    f"{video.where}: feature {name!r} holds {kinds[0]}, in {before} it holds {kinds[1]}; "
                    "every video needs the same"
                )

    def leaves_out(self, video: RawVideo) -> bool:
        """Whether a video gets no record, because it has no labels."""
        return self.on_unlabelled == "skip" and self._is_unlabelled(video)

    def _is_unlabelled(self, video: RawVideo) -> bool:
        """Whether a video has no labels although others have some. Raises `InputError` if there are two kinds."""
        if self.labels is not None:
            if _has_labels(video):
                raise InputError(f"{video.where} has labels, and so has {self.labels_file}; leave one of them out")
            return video.id not in self.labels
        if _has_labels(video) != self.labelled:
            raise InputError(f"{video.where} has {'no' if self.labelled else 'a'} column labels, unlike the first")
        return video.unlabelled

    def labels_of(self, video: RawVideo) -> tuple[str, ...] | None:
        """The class names of a video, none for one that should have some, or None if the videos are unlabelled."""
        if not self.labelled:
            return None
        if self.labels is not None:
            return self._canonical(self.labels.get(video.id, ()))
        return () if video.labels is None else self._canonical(self._names_in(video.labels))

    def _names_in(self, labels: str | tuple[str, ...]) -> tuple[str, ...]:
        """The names in a video's labels; items of a list are taken apart only where a separator was given."""
        if isinstance(labels, str):
            return split_labels(labels, self.separator or SEPARATOR)
        if is_vector(labels):
            return (SEPARATOR.join(labels),)
        return tuple(name for item in labels for name in split_labels(item, self.separator))

    def _canonical(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The names, each once, with the vocabulary's names in place of its ids."""
        aliases = {} if self.known is None else self.known.aliases
        return tuple(dict.fromkeys(aliases.get(name, name) for name in names))

    def check(self) -> None:
        """Raise `InputError` if there is nothing to train on, or nothing to validate on."""
        if self.first is None:
            raise InputError("the tables hold no rows; pack some with at least one video")
        if self.unlabelled and self.on_unlabelled == "stop":
            if self.labels is None or self.labels_file is None:
                raise no_labels_error(self.unlabelled, len(self.ids))
            raise no_row_error(self.unlabelled, len(self.ids), self.labels, self.labels_file)
        if not self.ids:
            raise InputError(f"no video has labels, so {option('unlabelled', 'skip')} leaves none; label some")
        if self.share is not None and not 0 < self.train < len(self.ids):
            side = "all" if not self.train else "none"
            raise InputError(
                f"{option('validate')} {self.share:g} takes {side} of the {len(self.ids):,} videos; "
                "choose another share"
            )
        if self.labelled and self.known is None and not self.counts:
            raise InputError(
                f"no video has a label; label some, or leave {option('labels')} out to pack unlabelled records"
            )
        self._check_names()

    def spec(self, store: Store | None, ranges: Mapping[str | None, Range]) -> tuple[FeatureSpec, dict[str, Cost]]:
        """The spec of the records, and a new `Cost` for each feature whose floats become bytes."""
        assert self.first is not None
        _, level, held = self.first
        wanted: Store = store or ("bytes" if level == "frame" else "float32")
        features, costs = [], {}
        for name, (size, is_bytes) in held.items():
            given = ranges.get(name, ranges.get(None))
            if is_bytes:
                features.append(Feature(name, size, range=given or (-2.0, 2.0)))
            elif wanted == "bytes":
                features.append(Feature(name, size, range=given or self.histograms[name].best_range()))
                costs[name] = Cost(self.histograms[name].median_square)
            else:
                features.append(Feature(name, size, "float32"))
        for ranged in ranges:
            if ranged is not None and ranged not in held:
                raise InputError(
                    f"{option('range')} names {ranged!r}, and there is no such feature; there are: {', '.join(held)}"
                )
            if not any(f.dtype == "uint8" and ranged in (None, f.name) for f in features):
                which = "no feature" if ranged is None else f"no feature {ranged!r}"
                raise InputError(
                    f"{option('range')} is given, but {which} is stored as bytes; leave it out, or add "
                    f"{option('store', 'bytes')}"
                )
        return FeatureSpec(level, tuple(features)), costs

    def names(self) -> tuple[str, ...]:
        """The classes in their order; none if nothing is labelled and there is no vocabulary."""
        return tuple(self.known.numbers) if self.known is not None else class_names(self.counts)

    def absent(self) -> int:
        """The number of ids in the labels' CSV that have no features."""
        return 0 if self.labels is None else sum(video_id not in self.ids for video_id in self.labels)


def _advice(video: RawVideo, name: str, before: str, first: np.ndarray) -> str:
    """The advice for an array that is not as wide as the first video's: it may be [D, T], or hold labels."""
    values = video.features[name]
    if (advice := if_labels(video.where) or if_labels(before)) or values.ndim != 2 or len(values) not in first.shape:
        return advice
    return "; if these are [D, T], save them as [T, D]: a row for each frame"


def _has_labels(video: RawVideo) -> bool:
    """Whether the video's source has labels, even if it has none for this video."""
    return video.labels is not None or video.unlabelled


def _owner(level: Level) -> str:
    """The owner of a vector [D] at this level, in words."""
    return "frames" if level == "frame" else "whole video"
