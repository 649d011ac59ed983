"""A teacher's probabilities for every video of a data set, shard by shard, for students to learn from."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from topgb.batch import Batch
from topgb.devices import Precision, Resident
from topgb.errors import DamagedRecordError, InputError
from topgb.evaluation.opening import open_for
from topgb.evaluation.predictions import Predictor, damage_in, predictions, shard_pieces, shared_files
from topgb.evaluation.score_folder import (
    VIDEOS_PER_FILE,
    copy_path,
    files_of,
    is_finished,
    prepare_folder,
    put_in_place,
    shard_label,
    wait_for,
)
from topgb.features import FeatureSpec
from topgb.file_sets import growing_set
from topgb.files import atomic_write
from topgb.folder_lock import writing_alone
from topgb.jobs.dispatch import dispatch, in_order
from topgb.jobs.engine import LOCAL, Engine
from topgb.modelfile import LoadedModel, StoredModel, load, stored_model
from topgb.modelfile.loaded import default_resident
from topgb.progress import SILENT, Progress
from topgb.records.codec import encode_example, encode_sequence_example
from topgb.records.dataset import Dataset
from topgb.records.framing import write_record
from topgb.records.label_statistics import check_label_lists
from topgb.records.on_damaged import OnDamaged
from topgb.records.teacher import DESCRIPTION_FILE, ScoreFormat, TeacherDescription, scores_path
from topgb.records.teacher_scores import write_scores
from topgb.results import Result
from topgb.vocabulary import names_digest


@dataclass(frozen=True, repr=False)
class Distilled(Result):
    """Number of videos in a folder of teacher scores, and bytes of its files; shards of earlier calls are included."""

    videos: int
    bytes: int


@dataclass(frozen=True)
class DistillOptions:
    """Options of `distill`.

    top_k         keep only this many of each video's best classes; None: every class
    score_format  `safetensors`: scores beside the records; `tfrecord`: copies of the records with the scores inside
    force         replace scores of another teacher or of other records
    engine        where the work runs: in this process or on a cluster
    class_names   the names of the teacher's classes
    """

    top_k: int | None = None
    score_format: ScoreFormat = "safetensors"
    force: bool = False
    engine: Engine = LOCAL
    class_names: Sequence[str] | None = None


DEFAULT_OPTIONS = DistillOptions()


def open_teacher(
    path: Path, device: torch.device, resident: Resident | None = None
) -> tuple[LoadedModel, dict[str, Any]]:
    """Load the teacher from a model file; returns it with its identity (see `teacher_identity`).

    `resident` is as for `topgb.load`. Raises `InputError` if there is no such model.
    """
    return load(path, device, resident), teacher_identity(stored_model(path), device, resident)


def teacher_identity(
    model: StoredModel, device: torch.device, resident: Resident | None = None, precision: Precision = "float32"
) -> dict[str, Any]:
    """JSON values that identify a teacher: the hash of its file, the form of its weights on `device`, the arithmetic.

    Float32 arithmetic is not named, as before there was a choice.
    """
    # Packed layers round differently: their scores must not mix with others in one folder.
    own = {"sha256": model.sha256, "resident": resident or default_resident(device)}
    return own if precision == "float32" else own | {"precision": precision}


def open_records(
    teacher: LoadedModel,
    pattern: str | Sequence[str],
    on_damaged: OnDamaged = "stop",
    score_format: ScoreFormat = "safetensors",
) -> Dataset:
    """Open the records to distill; `tfrecord` copies them, with their labels and every frame.

    Raises as `open_for`, and `InputError` for labels that are no class numbers: no student could learn beside them.
    """
    copied = score_format == "tfrecord"
    dataset = open_for(teacher, pattern, on_damaged, with_labels=copied or "check", every_frame=copied, part="all")
    check_label_lists(dataset)
    return dataset


def distill(
    teacher: Predictor,
    dataset: Dataset,
    out: Path,
    device: torch.device,
    identity: dict[str, Any],
    options: DistillOptions = DEFAULT_OPTIONS,
    progress: Progress = SILENT,
) -> Distilled:
    """Fill the folder `out` with the teacher's probabilities for `dataset` (2018: `prepare_distill_dataset.py`).

    The format `safetensors` writes one file per shard: ids and float16 probabilities in the shard's order, either of
    every class, or of each video's `top_k` best classes with the sum of the others. `tfrecord` copies the records, 512
    per file, with `video_id`, `labels` and `predictions` inside, as in 2018. `dataset` comes from `open_records`.

    `identity` holds JSON values that identify the teacher (see `teacher_identity`). The folder stores it beside the
    data set's fingerprint, so that scores of another teacher or of other records are detected.

    A shard's file appears when the shard is finished, and finished shards are not computed again: a stopped call goes
    on when repeated. Readers of records refuse copies until all are there. On a cluster each worker takes one shard at
    a time and writes into `out` itself; `teacher` must be picklable (see `opened_there`).

    Raises `InputError` if `out` holds scores of another teacher or of other records (`force` replaces them, once all
    new ones are there), if it holds anything else, or if the workers' files do not appear in it; and as `predictions`
    and `dispatch` do.
    """
    top_k, score_format, digest = options.top_k, options.score_format, names_digest(options.class_names)
    names = [shard_label(shard.name, score_format) for shard in dataset.shards]
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise InputError(f"{times} of the shards are named {name}, and scores are filed by name; distill them apart")
    if top_k is not None and (score_format == "tfrecord" or not 1 <= top_k <= dataset.classes):
        raise InputError(
            f"the best {top_k} classes cannot be kept: safetensors files take from 1 to {dataset.classes} here, and "
            "TFRecord files all classes"
        )
    description = TeacherDescription(identity, dataset.fingerprint(), dataset.classes, top_k, score_format, digest)
    with writing_alone(out):
        target = prepare_folder(out, description, options.force)
        pieces = [p for p in shard_pieces(dataset) if not is_finished(target, dataset, p.number, score_format)]
        written: list[Path] = []

        def note(_: int, result: tuple[list[Path], list[DamagedRecordError]]) -> None:
            written.extend(result[0])
            dataset.note_damage(result[1])

        done = dataset.num_records - sum(piece.size for piece in pieces)
        progress.begin("distilling", dataset.num_records, "videos", done)
        # Absolute, because nodes may work in other directories.
        work = _Distilling(teacher, dataset, target.absolute(), device, options)
        shared = [*shared_files(dataset), str(target / DESCRIPTION_FILE)]
        # Scores that are not all there are refused by `Teacher`; nothing in copies of records says how many there are.
        with growing_set(out) if score_format == "tfrecord" and target == out else nullcontext():
            dispatch(work, pieces, in_order(pieces, note), options.engine, progress, shared)
            progress.end()
            wait_for(written)
        if target != out:
            put_in_place(out)
        files = [path for shard in dataset.shards for path in files_of(out, shard.name, score_format)]
        return Distilled(dataset.num_records - len(dataset.damaged), sum(path.stat().st_size for path in files))


def distill_shard(
    teacher: Predictor,
    dataset: Dataset,
    shard: int,
    out: Path,
    device: torch.device,
    options: DistillOptions = DEFAULT_OPTIONS,
    progress: Progress = SILENT,
) -> list[Path]:
    """Write the scores of shard number `shard` into a folder that `distill` has prepared; returns the files.

    Raises as `distill` does.
    """
    name = dataset.shards[shard].name
    found = ((batch, scores.cpu()) for batch, scores in predictions(teacher, dataset, device, progress, shard=shard))
    if options.score_format == "safetensors":
        scores = ((batch.ids, probabilities) for batch, probabilities in found)
        write_scores(scores_path(out, name), scores, dataset.classes, options.top_k)
        return [scores_path(out, name)]
    written = []
    records = (record for batch, scores in found for record in _encoded(dataset.spec, batch, scores))
    for number, first in enumerate(records):
        written.append(copy_path(out, name, number))
        with atomic_write(written[-1]) as file:
            write_record(file, first)
            for record in islice(records, VIDEOS_PER_FILE - 1):
                write_record(file, record)
    return written


@dataclass(frozen=True)
class _Distilling:
    """The work on a piece; piece n is shard n."""

    teacher: Predictor
    dataset: Dataset
    out: Path
    device: torch.device
    options: DistillOptions

    def __call__(self, shard: int, progress: Progress) -> tuple[list[Path], list[DamagedRecordError]]:
        written = distill_shard(self.teacher, self.dataset, shard, self.out, self.device, self.options, progress)
        return written, damage_in(self.dataset, shard)


def _encoded(spec: FeatureSpec, batch: Batch, probabilities: torch.Tensor) -> Iterator[bytes]:
    """Encode a batch's videos as records, with the probabilities float [B, V] inside."""
    for row, (video, frames) in enumerate(zip(batch.ids, batch.num_frames.tolist(), strict=True)):
        stored = batch.features[row, :frames].numpy()
        values = {f.name: stored[:, spec.columns(f.name)].astype(f.dtype) for f in spec.features}
        labels = None if batch.labels is None else batch.labels[row].nonzero()[:, 0].tolist()
        scores = probabilities[row].numpy()
        if spec.level == "frame":
            yield encode_sequence_example(video, values, labels, "video_id", scores)
        else:
            yield encode_example(video, {name: one[0] for name, one in values.items()}, labels, "video_id", scores)
