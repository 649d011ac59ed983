"""Calls that score models on labelled records: `evaluate` and `compare`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from topgb.api.arguments import (
    Data,
    Opening,
    PathLike,
    Size,
    check_choices,
    check_least,
    named,
    open_given,
    to_path,
    to_pattern,
    to_progress,
    unpacking,
)
from topgb.errors import DamagedRecordError, InputError, option
from topgb.results import Table

if TYPE_CHECKING:
    import torch

    from topgb.api.model import Model
    from topgb.api.segments import SegmentEvaluation
    from topgb.devices import PrecisionChoice, Resident
    from topgb.evaluation.bootstrap import Interval
    from topgb.evaluation.compare import Comparison
    from topgb.evaluation.score import Rounds
    from topgb.jobs.engine import EngineKind
    from topgb.modelfile import Header
    from topgb.records.on_damaged import OnDamaged
    from topgb.records.repeated import Repeated

# The greatest seed that a recipe may have.
MOST_SEED = 2**31 - 1


@dataclass(frozen=True, repr=False)
class Evaluation(Table):
    """Scores of a model, as `topgb.evaluation.metrics.Scores` explains them; the table has a row for each class.

    The figures are those of every frame, or with sampled frames the means over `rounds.scores`.
    """

    videos: int
    gap: float
    hit_at_1: float
    perr: float
    map: float
    map_present: float
    loss: float
    threshold: float | str
    precision_micro: float
    recall_micro: float
    f1_micro: float
    precision_macro: float
    recall_macro: float
    f1_macro: float
    rounds: "Rounds"
    header: "Header"
    intervals: "dict[str, Interval] | None" = None
    arithmetic: str = "float32"
    damaged: list[DamagedRecordError] = field(default_factory=list)
    repeated: "Repeated | None" = None

    def to_dict(self) -> dict[str, Any]:
        """The figures by name: videos, gap, hit_at_1, perr, map, map_present, loss; threshold, and the figures at it.

        And, if there is something to report: `rounds`, the figures of each of several rounds, `unlabelled`, the number
        of videos without labels, `repeated`, the number of those that occur more than once, `interval`, with [low,
        high] of each figure, and `arithmetic`, if it was bfloat16.
        """
        from topgb.evaluation.score import to_json

        arithmetic = {} if self.arithmetic == "float32" else {"arithmetic": self.arithmetic}
        return to_json(self.rounds, self.threshold, self.intervals, self.repeated) | arithmetic

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """`class`, `name`, `positives` and `average_precision`, which is NaN for a class without positives.

        Then the class's `threshold`, and `precision`, `recall` and `f1` at it.
        """
        metrics = self.rounds.metrics
        averages = [
            average if positives else float("nan")
            for positives, average in zip(
                metrics.positives.tolist(), metrics.average_precisions().tolist(), strict=True
            )
        ]
        return {
            "class": range(self.header.classes),
            "name": [self.header.class_name(index) for index in range(self.header.classes)],
            "positives": metrics.positives.tolist(),
            "average_precision": averages,
            "threshold": cast("torch.Tensor", metrics.thresholds).tolist(),
            **{name: values.tolist() for name, values in metrics.decided_classes().items()},
        }


@overload
def evaluate(
    model: "PathLike | Model", data: Data, *, segments: Literal[True], k: int | None = None,
    use_ema: bool | None = None, on_damaged: "OnDamaged" = "stop", device: str = "auto",
    resident: "Resident | None" = None, engine: "EngineKind" = "local", address: str | None = None,
    precision: "PrecisionChoice" = "float32", max_unpacked: Size | None = None, progress: bool = True,
) -> "SegmentEvaluation": ...  # fmt: skip
@overload
def evaluate(
    model: "PathLike | Model", data: Data, *, segments: Literal[False] = False, use_ema: bool | None = None,
    per_class: PathLike | None = None, threshold: float | str | None = None, interval: bool = False,
    vocabulary: PathLike | None = None, force: bool = False, frames: str = "all", rounds: int = 1,
    seed: int | None = None, on_damaged: "OnDamaged" = "stop", device: str = "auto",
    resident: "Resident | None" = None, engine: "EngineKind" = "local", address: str | None = None,
    precision: "PrecisionChoice" = "float32", max_unpacked: Size | None = None, progress: bool = True,
) -> Evaluation: ...  # fmt: skip
@unpacking
def evaluate(
    model: "PathLike | Model",
    data: Data,
    *,
    use_ema: bool | None = None,
    per_class: PathLike | None = None,
    threshold: float | str | None = None,
    interval: bool = False,
    vocabulary: PathLike | None = None,
    force: bool = False,
    frames: str = "all",
    rounds: int = 1,
    seed: int | None = None,
    on_damaged: "OnDamaged" = "stop",
    device: str = "auto",
    resident: "Resident | None" = None,
    engine: "EngineKind" = "local",
    address: str | None = None,
    precision: "PrecisionChoice" = "float32",
    segments: bool = False,
    k: int | None = None,
    max_unpacked: Size | None = None,
    progress: bool = True,
) -> "Evaluation | SegmentEvaluation":
    """Score a model on labelled records: GAP@20, Hit@1, PERR, MAP, loss, F1 (`topgb eval`; 2018: `eval.py`).

    `model` is a model file, a run's folder (`use_ema` chooses its weights) or a `topgb.Model`. Every frame is looked at
    once, unless `frames` samples them as 2018 did: random:N, sequence:N, sample_all or shuffle, in `rounds` draws keyed
    by `seed`. `per_class` is a CSV to write with every class's figures, with the names of `vocabulary`. Precision,
    recall and F1 are those of the classes that reach `threshold`: a probability, or "model" for the file's own (see
    `thresholds`); None takes these where there are some, else 0.5. `interval` adds 95% bootstrap intervals over videos.
    `precision` is the arithmetic of products: "auto" takes bfloat16 where the device has it and is faster for it.

    With `segments` the figures are those of rated segments, MAP@K with K = `k` (None: the challenge's 100,000).

    Raises `InputError` if records have no labels, do not fit the model, or are damaged (unless `on_damaged` is "skip").

    >>> found = topgb.evaluate("run", "records/validate*.tfrecord", progress=False)
    >>> list(found.to_dict())[:7]
    ['videos', 'gap', 'hit_at_1', 'perr', 'map', 'map_present', 'loss']
    >>> list(found.to_dict())[7:11]
    ['threshold', 'precision_micro', 'recall_micro', 'f1_micro']
    >>> found.videos, found.gap > 0.3
    (60, True)
    """
    from topgb.evaluation.opening import open_for, warn_of_videos
    from topgb.evaluation.predictions import FrameDraw
    from topgb.evaluation.score import Scoring, intervals_of, score, write_per_class
    from topgb.files import refuse_existing
    from topgb.records.on_damaged import OnDamaged
    from topgb.records.sampling import parse_sampling

    check_choices(on_damaged=(on_damaged, OnDamaged))
    if segments:
        from topgb.api.segments import evaluate_segments, refuse_with_segments

        sampled = None if frames == "all" else frames
        refuse_with_segments(
            {option("per_class"): per_class, option("threshold", threshold): threshold,
             option("interval", True): interval, option("vocabulary"): vocabulary, option("frames", frames): sampled,
             option("rounds", rounds): rounds if rounds > 1 else None, option("seed", seed): seed}
        )  # fmt: skip
        how_opened = Opening(use_ema, device, resident, engine, address, precision)
        return evaluate_segments(model, data, k, on_damaged, how_opened, progress)
    if k is not None:
        raise InputError(f"{option('k', k)} counts segments; add {option('segments', True)}, or leave it out")
    check_least(rounds=(rounds, 1), seed=(seed, 0))
    sampling = parse_sampling(frames)
    if sampling.mode == "all" and (rounds > 1 or seed is not None):
        raise InputError(
            f"{option('rounds')} and {option('seed')} go with sampled frames; add {option('frames', 'random:300')}, "
            "or leave them out"
        )
    if per_class is not None and rounds > 1:
        raise InputError(f"{option('per_class')} writes the figures of one round; leave out {option('rounds')}")
    if interval and rounds > 1:
        raise InputError(f"{option('interval', True)} is one of one round; leave out {option('rounds')}")
    table = None if per_class is None else to_path(per_class)
    if table is not None:
        refuse_existing(table, force)
    opened = open_given(model, Opening(use_ema, device, resident, engine, address, precision))
    header, shown = named(opened.here.header, vocabulary), to_progress(progress)
    least, at = header.thresholds_for(threshold)
    dataset = open_for(header, to_pattern(data), on_damaged, progress=shown)
    how = Scoring(FrameDraw(sampling, seed or 0), rounds, least, interval)
    found = score(opened.model, dataset, opened.device, how, shown, opened.engine)
    repeated = warn_of_videos(dataset)
    if table is not None:
        write_per_class(table, found.metrics, header, force)
    figures = found.mean().to_json() | found.mean_decisions()
    intervals = intervals_of(found.metrics, shown) if interval else None
    return Evaluation(
        **figures, threshold=at, rounds=found, header=header, intervals=intervals,
        arithmetic=opened.here.precision, damaged=dataset.damaged, repeated=repeated,
    )  # fmt: skip


@unpacking
def compare(
    a: "PathLike | Model",
    b: "PathLike | Model",
    data: Data,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    on_damaged: "OnDamaged" = "stop",
    device: str = "auto",
    precision: "PrecisionChoice" = "float32",
    max_unpacked: Size | None = None,
    progress: bool = True,
) -> "Comparison":
    """Say by how much the GAP@20 of `b` is above that of `a` on labelled records, and how sure that is.

    The command is `topgb compare`. Both models (files, runs' folders, or `topgb.Model`s) score the same videos; the
    interval is a paired bootstrap's over them, with `resamples` draws of as many videos, of which the share
    `confidence` lies inside. Raises `InputError` as `evaluate` does, and if the models have different classes.

    >>> topgb.compare("a.safetensors", "run", "records/validate*.tfrecord", progress=False).difference > 0
    True
    """
    from topgb.devices import choose_device
    from topgb.evaluation.compare import Bootstrap
    from topgb.evaluation.compare import compare as compare_models
    from topgb.evaluation.opening import open_for, warn_of_videos
    from topgb.records.on_damaged import OnDamaged
    from topgb.vocabulary import refuse_other_names

    check_choices(on_damaged=(on_damaged, OnDamaged))
    check_least(resamples=(resamples, 2), seed=(seed, 0))
    bootstrap = Bootstrap(resamples, seed, confidence)
    first, second = (open_given(model, Opening(device=device, precision=precision)) for model in (a, b))
    refuse_other_names(("a", first.here.header.class_names), ("b", second.here.header.class_names))
    pattern, shown = to_pattern(data), to_progress(progress)
    data_a, data_b = (
        open_for(first.here, pattern, on_damaged, progress=shown),
        open_for(second.here, pattern, on_damaged),
    )
    found = compare_models(first.here, data_a, second.here, data_b, choose_device(device), bootstrap, shown)
    warn_of_videos(data_a)
    warn_of_videos(data_b)
    return found
