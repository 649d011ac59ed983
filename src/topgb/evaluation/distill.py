"""A teacher's probabilities for every video of a data set, shard by shard, for students to learn from."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice, takewhile
from pathlib import Path
from typing import Any

import torch

from topgb.batch import Batch
from topgb.errors import InputError
from topgb.evaluation.score import EVALUATION_BATCH, Predictor, finite_predictions
from topgb.features import MOST_VALUES, FeatureSpec
from topgb.files import atomic_write, write_failure
from topgb.modelfile import LoadedModel, load
from topgb.modelfile.loaded import default_resident
from topgb.modelfile.packed import Resident
from topgb.modelfile.store import file_sha256
from topgb.progress import SILENT, Progress
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.example import encode_example, encode_sequence_example
from topgb.records.framing import write_record
from topgb.records.reading import Dataset, OnDamaged
from topgb.records.teacher import DESCRIPTION_FILE, ScoreFormat, TeacherDescription, scores_path
from topgb.records.teacher_scores import write_scores

RUN_MODEL_FILE = "model.safetensors"
# 2018: prepare_distill_dataset.py's videos a file.
VIDEOS_PER_FILE = 512


@dataclass(frozen=True)
class Distilled:
    """What a folder of teacher scores holds: videos, and bytes of all its files. Shards that were there are counted."""

    videos: int
    bytes: int


def open_teacher(
    path: Path, device: torch.device, resident: Resident | None = None
) -> tuple[LoadedModel, dict[str, Any]]:
    """The teacher in a model file or at the end of a run, and what names it: its hash, and how it computes.

    `resident` as for `topgb.load`. Raises `InputError` where there is no such model.
    """
    file = path / RUN_MODEL_FILE if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise InputError(f"{path} holds no {RUN_MODEL_FILE}; topgb build makes it of a run's checkpoint")
    model = load(file, device, resident)
    # What is packed rounds otherwise.
    return model, {"sha256": file_sha256(file), "resident": resident or default_resident(device)}


def open_records(
    teacher: LoadedModel, pattern: str, on_damaged: OnDamaged = "stop", score_format: ScoreFormat = "safetensors"
) -> Dataset:
    """The records to distill on: with their labels and every frame where they are copied. Raises as `open_dataset`."""
    copied = score_format == "tfrecord"
    header = teacher.header
    max_frames = MOST_VALUES if copied else teacher.max_frames
    return open_dataset(pattern, header.features, header.classes, max_frames, on_damaged, with_labels=copied)


def distill(
    teacher: Predictor,
    dataset: Dataset,
    out: Path,
    device: torch.device,
    model: dict[str, Any],
    top_k: int | None = None,
    score_format: ScoreFormat = "safetensors",
    force: bool = False,
    progress: Progress = SILENT,
) -> Distilled:
    """Fill the folder `out` with the teacher's probabilities for `dataset` (2018: `prepare_distill_dataset.py`).

    `model` says which teacher it is, as JSON values; it and the data set's fingerprint are what a folder's scores
    belong to (see `open_teacher`). As `safetensors` each shard gets a file of ids and float16 probabilities in the
    shard's order, of every class or of each video's best `top_k`, with what the others sum to. As `tfrecord` the
    records are copied, 512 a file, with `video_id`, `labels` and `predictions`, as in 2018. `dataset` is as
    `open_records` opens it.

    A shard's file appears when it is finished, and finished ones are left alone: called again, it goes on. Raises
    `InputError` where `out` holds the scores of another teacher or of other records (`force` replaces them) or
    something else, and as `evaluation_batches` and `finite_predictions` do.
    """
    names = [_label(shard.name, score_format) for shard in dataset.shards]
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise InputError(f"{times} of the shards are named {name}, and scores are filed by name; distill them apart")
    if top_k is not None and (score_format == "tfrecord" or not 1 <= top_k <= dataset.classes):
        raise InputError(
            f"the best {top_k} classes cannot be kept: safetensors files take from 1 to {dataset.classes} here, and "
            "TFRecord files all classes"
        )
    _prepare(out, TeacherDescription(model, dataset.fingerprint(), dataset.classes, top_k, score_format), force)
    open_shards = [shard for shard in range(len(names)) if not _is_finished(out, dataset, shard, score_format)]
    left = sum(int(dataset.counts[shard]) for shard in open_shards)
    progress.begin("distilling", dataset.num_records, "videos", dataset.num_records - left)
    for shard in open_shards:
        distill_shard(teacher, dataset, shard, out, device, top_k, score_format, progress)
    progress.end()
    files = [path for shard in dataset.shards for path in _files_of(out, shard.name, score_format)]
    return Distilled(dataset.num_records - len(dataset.damaged), sum(path.stat().st_size for path in files))


def distill_shard(
    teacher: Predictor,
    dataset: Dataset,
    shard: int,
    out: Path,
    device: torch.device,
    top_k: int | None = None,
    score_format: ScoreFormat = "safetensors",
    progress: Progress = SILENT,
) -> None:
    """Write the scores of shard number `shard` into a folder that `distill` has prepared; raises as `distill`."""
    name = dataset.shards[shard].name
    predictions = _predictions(teacher, dataset, shard, device, progress)
    if score_format == "safetensors":
        scores = ((batch.ids, probabilities) for batch, probabilities in predictions)
        write_scores(scores_path(out, name), scores, dataset.classes, top_k)
        return
    records = (record for batch, scores in predictions for record in _encoded(dataset.spec, batch, scores))
    for number, first in enumerate(records):
        with atomic_write(_copy_path(out, name, number)) as file:
            write_record(file, first)
            for record in islice(records, VIDEOS_PER_FILE - 1):
                write_record(file, record)


def _predictions(
    teacher: Predictor, dataset: Dataset, shard: int, device: torch.device, progress: Progress
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """Each batch of the shard with its probabilities float32 [B, V], on the CPU."""
    for batch in evaluation_batches(dataset, EVALUATION_BATCH, [shard]):
        yield batch, finite_predictions(teacher, batch, device).cpu()
        progress.advance(len(batch))


def _encoded(spec: FeatureSpec, batch: Batch, probabilities: torch.Tensor) -> Iterator[bytes]:
    """The batch's records with the probabilities inside."""
    for row, (video, frames) in enumerate(zip(batch.ids, batch.num_frames.tolist(), strict=True)):
        stored = batch.features[row, :frames].numpy()
        values = {f.name: stored[:, spec.columns(f.name)].astype(f.dtype) for f in spec.features}
        labels = None if batch.labels is None else batch.labels[row].nonzero()[:, 0].tolist()
        scores = probabilities[row].numpy()
        if spec.level == "frame":
            yield encode_sequence_example(video, values, labels, "video_id", scores)
        else:
            yield encode_example(video, {name: one[0] for name, one in values.items()}, labels, "video_id", scores)


def _prepare(out: Path, description: TeacherDescription, force: bool) -> None:
    """Make `out` a folder for scores of this description, or see that it is one."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; a teacher's scores need a folder")
    if (out / DESCRIPTION_FILE).exists():
        before = TeacherDescription.read(out)
        if not force:
            changed = before.differs_from(description)
            if changed is None:
                return
            raise InputError(
                f"{out} holds scores of {changed}; give back what there was, replace them with --force, or choose "
                "another --out"
            )
        for row in before.records:
            for path in _files_of(out, row[0], before.format):
                _remove(path)
    elif out.exists() and any(out.iterdir()):
        raise InputError(f"{out} holds files that topgb distill did not write; choose another --out")
    description.write(out)


def _is_finished(out: Path, dataset: Dataset, shard: int, score_format: ScoreFormat) -> bool:
    name = dataset.shards[shard].name
    if score_format == "safetensors":
        return scores_path(out, name).is_file()
    files = -(-int(dataset.counts[shard]) // VIDEOS_PER_FILE)
    return all(_copy_path(out, name, number).is_file() for number in range(files))


def _files_of(out: Path, name: str, score_format: ScoreFormat) -> list[Path]:
    """The files that there are of the shard of that name."""
    if score_format == "safetensors":
        return [path for path in [scores_path(out, name)] if path.is_file()]
    return list(takewhile(Path.is_file, (_copy_path(out, name, number) for number in count())))


def _copy_path(out: Path, name: str, number: int) -> Path:
    return out / f"{_label(name, 'tfrecord')}-{number:04d}.tfrecord"


def _label(name: str, score_format: ScoreFormat) -> str:
    return name if score_format == "safetensors" else name.removesuffix(".gz").removesuffix(".tfrecord")


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise write_failure(path, error) from error
