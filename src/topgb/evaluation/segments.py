"""Score and predict segments with any model: the same loop, over a data set whose rows are segments."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from topgb.errors import DamagedRecordError, InputError
from topgb.evaluation.predictions import Predictor, damage_in, predictions, shard_pieces, shared_files
from topgb.jobs.dispatch import dispatch, in_order
from topgb.jobs.engine import LOCAL, Engine
from topgb.modelfile.header import SEGMENTS, Header
from topgb.progress import SILENT, Progress
from topgb.records.segment_dataset import SegmentCut, SegmentDataset
from topgb.youtube8m.best_segments import BestSegments
from topgb.youtube8m.segments import RatedPairs, SegmentScores, map_at_k


class SegmentBatch(NamedTuple):
    """Predicted segments: their names, probabilities float32 [n, C] of some classes, and rated pairs, if any."""

    names: list[str]
    probabilities: np.ndarray
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None


def cut_for(header: Header, rows: Any) -> SegmentCut:
    """The segments with the context that the model was trained with; a model of whole videos gets none."""
    entry = header.extras.get(SEGMENTS) or {}
    cut = SegmentCut(rows, entry.get("context", 0), entry.get("whole", 0))
    if cut.frames > header.max_frames:
        raise InputError(
            f"a segment with its context has {cut.frames} frames, and the model looks at {header.max_frames}; train "
            "one with a greater model.max_frames"
        )
    return cut


def classes_of(header: Header, given: list[int] | None = None) -> np.ndarray:
    """The classes to predict, int64 [C]: those `given`, else those rated in the model's training, else all."""
    entry = header.extras.get(SEGMENTS) or {}
    known = given if given is not None else entry.get("classes")
    return np.arange(header.classes) if known is None else np.array(sorted(known), np.int64)


def score_segments(
    model: Predictor,
    dataset: SegmentDataset,
    device: torch.device,
    k: int,
    predicted: np.ndarray,
    progress: Progress = SILENT,
    engine: Engine = LOCAL,
) -> SegmentScores:
    """MAP@K on the rated segments of `dataset`, of the classes `predicted`, int64 [C]. Raises as `predictions` does."""
    pairs, total = RatedPairs(), 0
    # With no more segments than K, every one is among the first K.
    ranked = dataset.rated_classes if dataset.num_records > k else np.zeros(0, np.int64)
    best = BestSegments(len(ranked), k, dataset.num_records)

    def take(found: SegmentBatch) -> None:
        nonlocal total
        assert found.pairs is not None
        segments, classes, positive, scores = found.pairs
        pairs.segments.append(segments + total)
        pairs.classes.append(classes)
        pairs.positive.append(positive)
        pairs.scores.append(scores)
        best.add(found.probabilities)
        total += len(found.names)

    _each(_Segments(model, dataset, device, ranked, rated=True), "evaluating", take, progress, engine)
    first = {int(number): best.of(place)[0] for place, number in enumerate(ranked)} if len(ranked) else None
    given = np.zeros(dataset.classes, np.bool_)
    given[predicted] = True
    return map_at_k(pairs, total, k, given, first)


@dataclass(frozen=True)
class RankingLimits:
    """`k` segments of a class are kept, in `memory` bytes at most; `folder` has the temporary files beyond that."""

    k: int
    memory: int | None = None
    folder: Path | None = None


def best_segments(
    model: Predictor,
    dataset: SegmentDataset,
    device: torch.device,
    classes: np.ndarray,
    limits: RankingLimits,
    progress: Progress = SILENT,
    engine: Engine = LOCAL,
) -> Iterator[tuple[int, list[str]]]:
    """Each of `classes`, int64 [C], with the names of its best segments, within `limits`, best first."""
    names: list[np.ndarray] = []
    best = BestSegments(len(classes), limits.k, dataset.num_records, limits.memory, limits.folder)

    def take(found: SegmentBatch) -> None:
        # An array of bytes takes a fraction of the memory of a list of `str`.
        names.append(np.array([name.encode() for name in found.names]))
        best.add(found.probabilities)

    _each(_Segments(model, dataset, device, classes, rated=False), "predicting", take, progress, engine)
    joined = np.concatenate(names) if names else np.zeros(0, "S1")
    for place, number in enumerate(classes.tolist()):
        yield number, [name.decode() for name in joined[best.of(place)[0]].tolist()]


@dataclass(frozen=True)
class _Segments:
    """The work on a piece; piece n is shard n."""

    model: Predictor
    dataset: SegmentDataset
    device: torch.device
    classes: np.ndarray
    rated: bool

    def batches(self, shard: int | None, progress: Progress) -> Iterator[SegmentBatch]:
        for batch, probabilities in predictions(self.model, self.dataset, self.device, progress, shard=shard):
            scores = probabilities.float().cpu().numpy()
            pairs = None
            if self.rated:
                found = RatedPairs()
                labels, weights = cast(torch.Tensor, batch.labels), cast(torch.Tensor, batch.weights)
                found.add(0, labels.numpy(), weights.numpy() > 0, scores)
                pairs = found.joined()
            yield SegmentBatch(batch.ids, scores[:, self.classes], pairs)

    def __call__(self, shard: int, progress: Progress) -> tuple[list[SegmentBatch], list[DamagedRecordError]]:
        return list(self.batches(shard, progress)), damage_in(self.dataset, shard)


def _each(
    work: _Segments, purpose: str, take: Callable[[SegmentBatch], None], progress: Progress, engine: Engine
) -> None:
    """Hand on the batches in the order of the records."""
    progress.begin(purpose, work.dataset.num_records, "segments")
    if engine.kind == "local":
        for found in work.batches(None, progress):
            take(found)
    else:
        pieces = shard_pieces(work.dataset)

        def merge(number: int, result: tuple[list[SegmentBatch], list[DamagedRecordError]]) -> None:
            work.dataset.note_damage(result[1])
            for found in result[0]:
                take(found)

        dispatch(work, pieces, in_order(pieces, merge), engine, progress, shared_files(work.dataset))
    progress.end()
