"""A teacher's probabilities for every video of a data set, shard by shard, for students to learn from."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice, takewhile
from pathlib import Path
from typing import Any

import torch

from topgb.batch import Batch
from topgb.checksums import file_sha256
from topgb.errors import DamagedRecordError, InputError
from topgb.evaluation.score import EVALUATION_BATCH, Predictor, finite_predictions
from topgb.evaluation.shard_jobs import damage_in, shard_pieces, shared_files
from topgb.features import MOST_VALUES, FeatureSpec
from topgb.files import atomic_write, partials_of, write_failure
from topgb.jobs.dispatch import in_order, run_over
from topgb.jobs.engine import LOCAL, Engine
from topgb.modelfile import LoadedModel, load
from topgb.modelfile.loaded import default_resident
from topgb.modelfile.packed import Resident
from topgb.progress import SILENT, Progress
from topgb.records.codec import encode_example, encode_sequence_example
from topgb.records.damage import OnDamaged
from topgb.records.dataset import Dataset, evaluation_batches, open_dataset
from topgb.records.framing import write_record
from topgb.records.teacher import DESCRIPTION_FILE, ScoreFormat, TeacherDescription, scores_path
from topgb.records.teacher_scores import write_scores

RUN_MODEL_FILE = "model.safetensors"
# 2018: prepare_distill_dataset.py's videos a file.
VIDEOS_PER_FILE = 512
# NFS may take half a minute to show what another machine has written.
_SETTLING_SECONDS = 60.0


@dataclass(frozen=True)
class Distilled:
    """What a folder of teacher scores holds: videos, and bytes of all its files. Shards that were there are counted."""

    videos: int
    bytes: int


def open_teacher(
    path: Path, device: torch.device, resident: Resident | None = None
) -> tuple[LoadedModel, dict[str, Any]]:
    """The teacher in a model file or at the end of a run, and what names it (see `teacher_identity`).

    `resident` as for `topgb.load`. Raises `InputError` where there is no such model.
    """
    file = teacher_file(path)
    return load(file, device, resident), teacher_identity(file, device, resident)


def teacher_file(path: Path) -> Path:
    """The model file that `path` is, or that the run there ended with. Raises `InputError` where there is none."""
    file = path / RUN_MODEL_FILE if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise InputError(f"{path} holds no {RUN_MODEL_FILE}; topgb build makes it of a run's checkpoint")
    return file


def teacher_identity(file: Path, device: torch.device, resident: Resident | None = None) -> dict[str, Any]:
    """What names the teacher of a model file that can be read: its hash, and how it computes on `device`."""
    # What is packed rounds otherwise.
    return {"sha256": file_sha256(file), "resident": resident or default_resident(device)}


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
    engine: Engine = LOCAL,
) -> Distilled:
    """Fill the folder `out` with the teacher's probabilities for `dataset` (2018: `prepare_distill_dataset.py`).

    `model` says which teacher it is, as JSON values; it and the data set's fingerprint are what a folder's scores
    belong to (see `open_teacher`). As `safetensors` each shard gets a file of ids and float16 probabilities in the
    shard's order, of every class or of each video's best `top_k`, with what the others sum to. As `tfrecord` the
    records are copied, 512 a file, with `video_id`, `labels` and `predictions`, as in 2018. `dataset` is as
    `open_records` opens it.

    A shard's file appears when it is finished, and finished ones are left alone: called again, it goes on. With another
    `engine` its workers take a shard each and write into `out` themselves; `teacher` must be picklable (see
    `opened_there`).

    Raises `InputError` where `out` holds the scores of another teacher or of other records (`force` replaces them) or
    something else, or where the workers' files do not appear in it; and as `evaluation_batches`, `finite_predictions`
    and `run_over` do.
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
    pieces = [p for p in shard_pieces(dataset) if not _is_finished(out, dataset, p.number, score_format)]
    written: list[Path] = []

    def note(_: int, result: tuple[list[Path], list[DamagedRecordError]]) -> None:
        written.extend(result[0])
        dataset.note_damage(result[1])

    done = dataset.num_records - sum(piece.size for piece in pieces)
    progress.begin("distilling", dataset.num_records, "videos", done)
    # Nodes may work in other directories.
    work = _Distilling(teacher, dataset, out.absolute(), device, top_k, score_format)
    shared = [*shared_files(dataset), str(out / DESCRIPTION_FILE)]
    run_over(work, pieces, in_order(pieces, note), engine, progress, shared)
    progress.end()
    _wait_for(written)
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
) -> list[Path]:
    """Write the scores of shard number `shard` into a folder that `distill` has prepared, and return the files.

    Raises as `distill`.
    """
    name = dataset.shards[shard].name
    predictions = _predictions(teacher, dataset, shard, device, progress)
    if score_format == "safetensors":
        scores = ((batch.ids, probabilities) for batch, probabilities in predictions)
        write_scores(scores_path(out, name), scores, dataset.classes, top_k)
        return [scores_path(out, name)]
    written = []
    records = (record for batch, scores in predictions for record in _encoded(dataset.spec, batch, scores))
    for number, first in enumerate(records):
        written.append(_copy_path(out, name, number))
        with atomic_write(written[-1]) as file:
            write_record(file, first)
            for record in islice(records, VIDEOS_PER_FILE - 1):
                write_record(file, record)
    return written


@dataclass(frozen=True)
class _Distilling:
    """What a worker does: piece n is shard n."""

    teacher: Predictor
    dataset: Dataset
    out: Path
    device: torch.device
    top_k: int | None
    score_format: ScoreFormat

    def __call__(self, shard: int, progress: Progress) -> tuple[list[Path], list[DamagedRecordError]]:
        written = distill_shard(
            self.teacher, self.dataset, shard, self.out, self.device, self.top_k, self.score_format, progress
        )
        return written, damage_in(self.dataset, shard)


def _wait_for(written: list[Path]) -> None:
    """Return once the files that workers wrote can be seen here too. Raises `InputError` where they cannot."""
    until = time.monotonic() + _SETTLING_SECONDS
    for path in written:
        while not path.is_file():
            if time.monotonic() > until:
                raise InputError(
                    f"{path} was written on another node and is not here: its folder is not on a file system that "
                    "every node shares; choose an --out that is"
                )
            time.sleep(1.0)


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
    elif out.exists() and set(out.iterdir()) - set(partials_of(out / DESCRIPTION_FILE)):
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
