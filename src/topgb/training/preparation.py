"""Prepare a training run before anything is written: check the records, make the weights of step 0 and the settings."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from topgb.devices import cores
from topgb.errors import InputError, option
from topgb.evaluation.opening import RecordNeeds, open_needed
from topgb.evaluation.same_extractor import ANY, extractor_of_records
from topgb.extractor_identity import Identity
from topgb.files import refuse_undecodable
from topgb.matmul_library import in_use
from topgb.modelfile.header import EXTRACTOR
from topgb.models import Tagger
from topgb.progress import Progress
from topgb.records.dataset import Dataset
from topgb.records.description import find_descriptions
from topgb.records.folders import has_parts, part_of
from topgb.records.label_statistics import check_teacher_knows, monotony, require_labels
from topgb.records.labels import LABELS, Targets
from topgb.records.sampling import parse_sampling
from topgb.records.segment_dataset import SegmentCut
from topgb.records.teacher import Teacher
from topgb.records.training_batches import TrainingBatches
from topgb.training import run_folder as runs
from topgb.training.cautions import cautions, check_batch_norm, uses_batch_norm
from topgb.training.class_names import job_names
from topgb.training.copied_shards import copied_shards
from topgb.training.initial_weights import fresh_tagger, teacher_identity
from topgb.training.job import TrainingJob
from topgb.training.memory import check_memory
from topgb.training.opened import open_stored
from topgb.training.ranks import FabricPrecision, planned_ranks
from topgb.training.segments import RATED, rated_classes, training_cut, validation_cut
from topgb.vocabulary import check_names


@dataclass(frozen=True)
class Preparation:
    """A run that is ready to start or resume.

    job         what to train, and where
    batches     this rank's part of the training records
    validation  records to score after each epoch, or None
    tagger      the model at step 0, on the CPU
    settings    JSON values besides the recipe on which the weights depend; the same on every rank
    """

    job: TrainingJob
    batches: TrainingBatches
    validation: Dataset | None
    tagger: Tagger
    settings: dict[str, Any]

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.job.recipe.training.epochs * self.batches.steps_per_epoch

    @property
    def total_examples(self) -> int:
        """Videos that all ranks together see in the whole run."""
        return self.job.recipe.training.epochs * self.batches.dataset.num_records


def prepare(job: TrainingJob, fabric: Fabric, precision: FabricPrecision, progress: Progress) -> Preparation:
    """Open and check everything that `job` names; `fabric` computes in `precision`.

    Writes nothing and clears no earlier run. Raises `InputError` where anything does not fit the recipe, or the device
    has too little memory.
    """
    options = job.recipe.training
    refuse_undecodable(job.out)
    if job.class_names is not None:
        check_names(job.class_names, job.recipe.data.classes)
    teacher = Teacher(job.teacher) if isinstance(job.teacher, Path) else job.teacher
    # Records need no labels if the model learns only from the teacher.
    # A folder may hold a part to validate on, beside the one to train on.
    held_out = job.data if job.validate is None and has_parts(job.data) else job.validate
    training_files = part_of(job.data, "train", "training", progress)
    init_from, ema_source = (None if path is None else open_stored(path) for path in (job.init_from, job.ema_source))
    parent = init_from or ema_source
    known = ANY if parent is None else parent.header.extractor
    targets = Targets(teacher is None or options.distill_weight < 1.0, teacher)
    segments = None if job.recipe.segments is None else training_cut(job.recipe, teacher)
    if segments is not None:
        targets = Targets(segments.of_videos)
    data = _open(job, training_files, known, progress, targets, segments=segments)
    extractor = extractor_of_records(find_descriptions(training_files)) or known or None
    validation = None
    if held_out is not None:
        held_out_files = part_of(held_out, "validate", "validation", progress)
        validation = _open(
            job, held_out_files, extractor, progress, LABELS if segments is None else Targets(False), job.class_names,
            segments=None if segments is None else validation_cut(segments),
        )  # fmt: skip
    names = job_names(job, parent, progress)
    settings = {
        "records": data.fingerprint(),
        "validation": None if validation is None else validation.fingerprint(),
        "init_from": None if init_from is None else init_from.sha256,
        "ema_source": None if ema_source is None else ema_source.sha256,
        "new_head": job.new_head,
        "teacher": teacher_identity(teacher),
        "arithmetic": precision,
        # None for MKL, as in the settings of runs that are older than the choice.
        "matmul": None if in_use() == "mkl" else in_use(),
        "ranks": fabric.world_size if fabric.world_size > 1 else None,
        EXTRACTOR: extractor,
        RATED: rated_classes(data),
        runs.NAMES: names,
    }
    sampling = parse_sampling(options.frames)
    videos, frames = min(options.batch_size, data.num_records), sampling.count or data.most_frames
    check_memory(job.recipe, videos, frames, fabric.device, progress, taught=teacher is not None)
    _check_records(job, data, validation, fabric.world_size)
    _warn(_about_records(data, validation, names), progress)
    batches = TrainingBatches(data, options.batch_size, options.seed, sampling, fabric.global_rank, fabric.world_size)
    tagger = fresh_tagger(job.recipe, data, progress, init_from, ema_source, job.new_head)
    tagger.set_batch_norm_momentum(options.batch_norm_momentum)
    few = check_batch_norm(tagger, batches, options.accumulate)
    fresh, normalises = init_from is None and ema_source is None, uses_batch_norm(tagger)
    _warn((*([few] if few else []), *cautions(job.recipe, batches, validation, fresh, normalises)), progress)
    return Preparation(_within_cores(job, progress), batches, validation, tagger, settings)


def _warn(sentences: Iterable[str], progress: Progress) -> None:
    for sentence in sentences:
        progress.say(f"warning: {sentence}")


def _about_records(data: Dataset, validation: Dataset | None, names: Sequence[str] | None) -> Iterator[str]:
    """Sentences that warn of frames that are cut off, copied shards, targets that are alike, and other class names."""
    if isinstance(data.teacher, Teacher) and (caution := data.teacher.caution_of_names(names)) is not None:
        yield caution
    for purpose, records in (("train on", data), ("validate on", validation)):
        cut = None if records is None else records.cut.sentence(records.num_records)
        if cut is not None:
            yield f"of the records to {purpose}, {cut}; raise model.max_frames to look at more"
    yield from copied_shards(data, validation)
    yield from monotony(data)


def _open(
    job: TrainingJob,
    pattern: str | Sequence[str],
    extractor: Identity | None,
    progress: Progress,
    targets: Targets = LABELS,
    class_names: Sequence[str] | None = None,
    segments: SegmentCut | None = None,
) -> Dataset:
    data = job.recipe.data
    needs = RecordNeeds(data.spec(), data.classes, job.recipe.model_section().max_frames, class_names, extractor)

    def tell(sentence: str) -> None:
        progress.say(f"warning: {sentence}")

    return open_needed(needs, pattern, job.on_damaged, targets, progress, tell, segments)


def _check_records(job: TrainingJob, data: Dataset, validation: Dataset | None, ranks: int) -> None:
    """Raise `InputError` where the records do not have what the recipe needs."""
    options = job.recipe.training
    if options.early_stop is not None and validation is None:
        raise InputError(f"'training.early_stop' needs records to validate on; give {option('validate')}")
    if options.distill_weight < 1.0 or data.teacher is None:
        require_labels(data, f"the records of {job.data}", "learn from")
    if data.teacher is not None and options.loss != "cross_entropy":
        raise InputError(f"a teacher's scores are learned by cross entropy; leave out training.loss={options.loss}")
    check_teacher_knows(data)
    if validation is not None:
        require_labels(validation, f"the records of {job.validate or job.data}", "validate on")
    if data.num_records < ranks:
        raise InputError(f"{job.data} holds {data.num_records} records, too few for {ranks} processes; use fewer")


def _within_cores(job: TrainingJob, progress: Progress) -> TrainingJob:
    """The job with at most one worker for each core of this rank, unless it insists on more."""
    here, _ = planned_ranks(job.devices, job.num_nodes)
    found = cores()
    most = max(1, found // here)
    if job.oversubscribe or job.workers <= most:
        return job
    whose = f" for each of the {here} processes" if here > 1 else ""
    progress.say(
        f"warning: {option('workers', job.workers)} asks for more than the {found} cores here{whose}; {most} read "
        f"ahead, {option('oversubscribe', True)} starts them all"
    )
    return replace(job, workers=most)
