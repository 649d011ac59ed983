"""The training loop: recipe and records in, a run with checkpoints and a model file out."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from topgb.devices import choose_device, computes_in_bfloat16
from topgb.errors import DamagedRecordError, InputError, TopgbError, option
from topgb.evaluation.metrics import Metrics, Scores
from topgb.models import Tagger
from topgb.progress import SILENT, Progress
from topgb.records.dataset import Dataset, TeacherSource, open_dataset
from topgb.records.label_statistics import check_teacher_knows, label_counts
from topgb.records.sampling import parse_sampling
from topgb.records.teacher import Teacher
from topgb.records.training_batches import TrainingBatches, load_batches
from topgb.training import run_folder as runs
from topgb.training.build import build_model_file
from topgb.training.checkpoint import (
    Checkpoint,
    clear_partial_checkpoints,
    latest_checkpoint,
    save_checkpoint,
)
from topgb.training.class_names import job_names, rename_classes
from topgb.training.curves import Curves, diverged
from topgb.training.initial_weights import fresh_tagger, parent_hash, teacher_identity
from topgb.training.job import TrainingJob, TrainingResult
from topgb.training.learner import Learner, Update
from topgb.training.memory import check_memory
from topgb.training.ranks import agree, check_alike, gather, launch, losing_a_peer, together
from topgb.training.recipe import Recipe
from topgb.training.schedule import learning_rate
from topgb.training.sigterm import StoppedError, asked_to_stop
from topgb.training.validation import validate
from topgb.vocabulary import check_names

# Fabric's name for it.
FLOAT32 = "32-true"

# Fabric announces its precision at every start; the run's settings hold it.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def train(job: TrainingJob, progress: Progress = SILENT) -> TrainingResult:
    """Train to the end and write `model.safetensors` into the run.

    Interrupted at any moment and called again with `resume`, it ends in the same weights (bit for bit on a CPU with the
    same number of threads). With several ranks (see `topgb.training.ranks.launch`) every one of them runs this, and all
    end with the same weights. SIGTERM writes a checkpoint and raises `StoppedError`.

    Raises `InputError` for wrong input or changed settings and `TopgbError` where training diverges or the run cannot
    be written.
    """
    device = choose_device(job.device)
    precision = _precision(job.recipe, device)
    fabric = launch(device, job.devices, job.num_nodes, precision)
    if not fabric.is_global_zero:
        progress = SILENT
    if job.recipe.training.precision != "float32" and precision == FLOAT32:
        progress.say("this device does not compute in bfloat16; training in float32")
    with asked_to_stop() as stop, losing_a_peer(fabric):
        with together(fabric):
            trainer, settings = _prepare(job, fabric, progress)
            going_on = job.resume and runs.is_run(job.out)
        with together(fabric):
            if fabric.is_global_zero:
                _begin(job, settings, going_on)
        with together(fabric):
            checkpoint = latest_checkpoint(job.out)
        check_alike(fabric, settings, 0 if checkpoint is None else checkpoint.step)
        trainer.set_up(checkpoint)
        trainer.run(stop)
        with together(fabric):
            if fabric.is_global_zero:
                build_model_file(job.out, job.out / runs.MODEL_FILE, force=True)
    model = job.out / runs.MODEL_FILE
    return TrainingResult(model, trainer.best_scores, trainer.batches.dataset.damaged, fabric.is_global_zero)


def _prepare(job: TrainingJob, fabric: Fabric, progress: Progress) -> tuple["_Trainer", dict[str, Any]]:
    """The trainer, and what its weights depend on beside the recipe. Nothing is written yet, and no old run cleared."""
    recipe = job.recipe
    if job.class_names is not None:
        check_names(job.class_names, recipe.data.classes)
    teacher = Teacher(job.teacher) if isinstance(job.teacher, Path) else job.teacher
    # Records without labels can be learned from too, where nothing is asked of labels.
    data = _open(job, job.data, teacher, with_labels=teacher is None or recipe.training.distill_weight < 1.0)
    validation = None if job.validate is None else _open(job, job.validate)
    settings = {
        "records": data.fingerprint(),
        "validation": None if validation is None else validation.fingerprint(),
        "init_from": parent_hash(job.init_from),
        "ema_source": parent_hash(job.ema_source),
        "new_head": job.new_head,
        "teacher": teacher_identity(teacher),
        "arithmetic": fabric._precision.precision,
        "ranks": fabric.world_size if fabric.world_size > 1 else None,
        runs.NAMES: job_names(job, progress),
    }
    return _Trainer(job, fabric, data, validation, progress), settings


def _begin(job: TrainingJob, settings: dict[str, Any], going_on: bool) -> None:
    """Make the run's directory what it must be before the first step."""
    if not going_on:
        runs.start_run(job.out, job.recipe, settings, job.force, keep=[job.init_from, job.ema_source])
        return
    runs.check_resumable(job.out, job.recipe, settings)
    clear_partial_checkpoints(job.out)
    if job.class_names is not None:
        rename_classes(job.out, job.class_names)


class _Trainer:
    """One training run: where it is, and what comes next."""

    def __init__(self, job: TrainingJob, fabric: Fabric, data: Dataset, validation: Dataset | None, progress: Progress):
        self.job, self.recipe, self.fabric, self.progress = job, job.recipe, fabric, progress
        self.validation = validation
        options = job.recipe.training
        if options.early_stop is not None and validation is None:
            raise InputError(f"'training.early_stop' needs records to validate on; give {option('validate')}")
        if options.distill_weight < 1.0 or data.teacher is None:
            _require_labels(data, job.data)
        if data.teacher is not None and options.loss != "cross_entropy":
            raise InputError(f"a teacher's scores are learned by cross entropy; leave out training.loss={options.loss}")
        check_teacher_knows(data)
        if validation is not None:
            _require_labels(validation, str(job.validate))
        ranks = fabric.world_size
        if data.num_records < ranks:
            raise InputError(f"{job.data} holds {data.num_records} records, too few for {ranks} processes; use fewer")
        self.batches = TrainingBatches(
            data, options.batch_size, options.seed, parse_sampling(options.frames), fabric.global_rank, ranks
        )
        videos, frames = min(options.batch_size, data.num_records), self.batches.sampling.count or data.most_frames
        check_memory(job.recipe, videos, frames, fabric.device, progress, data.teacher is not None)
        self.total_steps = options.epochs * self.batches.steps_per_epoch
        self.total_examples = options.epochs * data.num_records
        self.tagger: Tagger = fresh_tagger(job.recipe, data, progress, job.init_from, job.ema_source, job.new_head)
        self.tagger.set_batch_norm_momentum(options.batch_norm_momentum)
        self.step = 0
        self.best_scores: Scores | None = None
        self.epochs_since_best = 0

    def set_up(self, checkpoint: Checkpoint | None) -> None:
        """Bring the model to its device, and on to where `checkpoint` was taken (None: the beginning)."""
        self.learner = Learner(self.recipe, self.tagger, self.fabric)
        if checkpoint is None:
            return
        self.learner.restore(checkpoint)
        self.step = checkpoint.step
        best = checkpoint.progress["validation"]
        self.best_scores = None if best is None else Scores(**best)
        self.epochs_since_best = checkpoint.progress["epochs_since_best"]
        self.batches.dataset.note_damage([DamagedRecordError(*found) for found in checkpoint.progress["damaged"]])
        self.progress.say(f"resuming after step {self.step} of {self.total_steps}")

    def run(self, stop: Callable[[], bool]) -> None:
        """Train from the current step to the end, or until validation or `stop` ends it early."""
        curves = None
        with together(self.fabric):
            if self.fabric.is_global_zero:
                curves = Curves(self.job.out, self.step)
        try:
            self._run(curves, stop)
        finally:
            self.progress.end()
            if curves is not None:
                curves.close()
        if self.learner.updates == 0:
            raise TopgbError(f"no record of {self.job.data} could be trained on; every one is damaged")

    def _run(self, curves: Curves | None, stop: Callable[[], bool]) -> None:
        saved = time.monotonic()
        self.tagger.train()
        self.progress.begin("training", self.total_examples, "videos", self.batches.examples_before(self.step))
        loader = load_batches(
            self.batches, range(self.step, self.total_steps), self.job.workers, self.fabric.device.type == "cuda"
        )
        for batch, _ in loader:
            if self._stopped_early():
                break
            examples = self.batches.examples_before(self.step)
            rate = learning_rate(self.recipe.optimizer, examples, self.total_examples)
            due = curves is not None and curves.due(last=self.step + 1 == self.total_steps)
            # All ranks must do the same things, and only one keeps the time; each may be the one that is asked to stop.
            agreed = agree(self.fabric, [len(batch), not len(batch), due, stop()])
            missing = self.batches.dataset.on_damaged == "skip" and bool(agreed[1])
            update = None if missing else self.learner.update(batch, self.step, rate, agreed[0])
            self.step += 1
            seen = self.batches.examples_before(self.step)
            _, _, due, stopping = agreed.tolist()
            note = self._log(curves, seen, rate, update) if update is not None and due else ""
            self.progress.advance(seen - examples, note)
            if self.step % self.batches.steps_per_epoch == 0:
                self._end_epoch(curves)
                saved = time.monotonic()
            elif stopping or time.monotonic() - saved > 60 * self.job.checkpoint_minutes:
                self._require_finite()
                self._save("step")
                saved = time.monotonic()
            if stopping and self.step < self.total_steps:
                with together(self.fabric):
                    raise StoppedError(
                        f"stopped after step {self.step} of {self.total_steps}, as SIGTERM asked; the same command "
                        f"with {option('resume', True)} goes on"
                    )

    def _log(self, curves: Curves | None, seen: int, rate: float, update: Update) -> str:
        """Log all ranks' step; the figures in words."""
        metrics = None
        if update.labels is not None:
            metrics = Metrics(update.labels.shape[1])
            metrics.add(update.probabilities, update.labels)
        parts = gather(self.fabric, (float(update.loss), metrics))
        note = ""
        with together(self.fabric):
            if curves is not None:
                note = curves.write_step(self.step, seen, rate, parts)
        return note

    def _require_finite(self) -> None:
        if not self.learner.is_finite():
            raise diverged(self.step)

    def _end_epoch(self, curves: Curves | None) -> None:
        self._require_finite()
        for found in gather(self.fabric, self.batches.dataset.damaged):
            self.batches.dataset.note_damage(found)
        if self.validation is not None:
            scores = validate(self.tagger, self.learner.shadows, self.validation, self.fabric, self.progress).compute()
            if curves is not None:
                curves.write_validation(self.step, scores)
            best = self.best_scores is None or scores.gap > self.best_scores.gap
            self.epochs_since_best = 0 if best else self.epochs_since_best + 1
            if best:
                self.best_scores = scores
                self._save("best")
            epoch = self.step // self.batches.steps_per_epoch
            self.progress.say(
                f"epoch {epoch}: validation GAP {scores.gap:.4f}, MAP {scores.map:.4f}, loss {scores.loss:.3f}"
                + (" (best so far)" if best else "")
            )
            done = self.batches.examples_before(self.step)
            if done < self.total_examples:
                self.progress.begin("training", self.total_examples, "videos", done)
        self._save("step")

    def _save(self, kind: str) -> None:
        if self.fabric.is_global_zero:
            save_checkpoint(self.job.out, self._checkpoint(), kind)

    def _stopped_early(self) -> bool:
        patience = self.recipe.training.early_stop
        if patience is None or self.epochs_since_best < patience:
            return False
        self.progress.say(f"stopping early: no better validation GAP for {patience} epochs")
        return True

    def _checkpoint(self) -> Checkpoint:
        return self.learner.checkpoint(
            {
                "step": self.step,
                "examples": self.batches.examples_before(self.step),
                "validation": None if self.best_scores is None else self.best_scores.to_json(),
                "epochs_since_best": self.epochs_since_best,
                "damaged": [[e.path, e.record, e.offset, e.reason] for e in self.batches.dataset.damaged],
            }
        )


def _open(job: TrainingJob, pattern: str, teacher: TeacherSource | None = None, with_labels: bool = True) -> Dataset:
    data, max_frames = job.recipe.data, job.recipe.model_section().max_frames
    return open_dataset(pattern, data.spec(), data.classes, max_frames, job.on_damaged, with_labels, teacher)


def _require_labels(dataset: Dataset, pattern: str) -> None:
    # A few records tell; one in the middle without labels is found when its batch is read.
    if label_counts(dataset, limit=50)[1] == 0:
        raise InputError(f"the records of {pattern} hold no labels; training and validation need labelled ones")


def _precision(recipe: Recipe, device: torch.device) -> Any:
    in_bfloat16 = recipe.training.precision != "float32" and computes_in_bfloat16(device)
    return "bf16-mixed" if in_bfloat16 else FLOAT32
