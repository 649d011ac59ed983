"""`evaluate` and `predict` with `segments=True`; imported only for that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topgb.api.arguments import (
    Data,
    Opening,
    PathLike,
    Size,
    check_least,
    open_given,
    refuse_input,
    to_path,
    to_pattern,
    to_progress,
)
from topgb.errors import DamagedRecordError, InputError, option
from topgb.evaluation.opening import open_segments_for
from topgb.evaluation.segments import RankingLimits, best_segments, classes_of, cut_for, score_segments
from topgb.files import refuse_existing
from topgb.records.segment_dataset import SegmentDataset
from topgb.results import Result
from topgb.unpacked_size import parse_size
from topgb.youtube8m.segment_submission import read_classes, write_segments
from topgb.youtube8m.segments import CHALLENGE_K, SegmentScores

if TYPE_CHECKING:
    from topgb.api.model import Model
    from topgb.modelfile import Header
    from topgb.records.folders import Part
    from topgb.records.on_damaged import OnDamaged


@dataclass(frozen=True, repr=False)
class SegmentEvaluation(Result):
    """Figures on rated segments, as `topgb.youtube8m.segments.SegmentScores` explains them."""

    scores: SegmentScores
    damaged: list[DamagedRecordError] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """`segments`, `rated`, `k`, `map_at_k`, `map_at_k_submitted` and `classes`."""
        return self.scores.to_json()


def refuse_with_segments(given: Mapping[str, Any]) -> None:
    """Raise `InputError` with the first option of `given`, in a message's words, that has a value.

    These options say nothing about segments.
    """
    for words, value in given.items():
        if value:
            raise InputError(f"{words} is about whole videos; leave it out, or leave out {option('segments', True)}")


def evaluate_segments(
    model: "PathLike | Model",
    data: Data,
    k: int | None,
    on_damaged: "OnDamaged",
    how: Opening,
    progress: bool,
) -> SegmentEvaluation:
    """Score the classes that the model predicts on rated segments."""
    check_least(k=(k, 1))
    opened, shown = open_given(model, how), to_progress(progress)
    header = opened.here.header
    dataset = _open(header, to_pattern(data), on_damaged, "rated", shown)
    scores = score_segments(
        opened.model, dataset, opened.device, k or CHALLENGE_K, classes_of(header), shown, opened.engine
    )
    return SegmentEvaluation(scores, dataset.damaged)


@dataclass(frozen=True)
class SegmentFile:
    """A CSV of segments to write: at most `k` segments for each class in the CSV `classes`, ranked in `memory`."""

    path: Path
    k: int | None = None
    classes: PathLike | None = None
    memory: Size | None = None
    force: bool = False


def predict_segments(
    model: "PathLike | Model",
    data: Data,
    out: SegmentFile,
    on_damaged: "OnDamaged",
    how: Opening,
    progress: bool,
) -> tuple[SegmentDataset, "Header"]:
    """Write each class's best segments; returns the segments that were predicted, and the model's header."""
    check_least(k=(out.k, 1))
    refuse_existing(out.path, out.force)
    refuse_input(out.path, out.classes)
    opened, shown = open_given(model, how), to_progress(progress)
    header = opened.here.header
    given = None if out.classes is None else read_classes(to_path(out.classes), header.classes)
    memory = None if out.memory is None else parse_size(str(out.memory))
    dataset = _open(header, to_pattern(data), on_damaged, "every", shown)
    rows = best_segments(
        opened.model, dataset, opened.device, classes_of(header, given),
        RankingLimits(out.k or CHALLENGE_K, memory, out.path.absolute().parent), shown, opened.engine,
    )  # fmt: skip
    write_segments(out.path, rows)
    return dataset, header


def _open(
    header: "Header", pattern: str | Sequence[str], on_damaged: "OnDamaged", rows: Any, shown: Any
) -> SegmentDataset:
    part: Part = "validate" if rows == "rated" else "all"
    dataset = open_segments_for(header, pattern, cut_for(header, rows), on_damaged, part, shown)
    assert isinstance(dataset, SegmentDataset)
    return dataset
