"""The training loop: recipe and records in, a run with checkpoints and a model file out."""

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric

from topgb.batch import Batch
from topgb.devices import choose_device, computes_in_bfloat16
from topgb.errors import DamagedRecordError, InputError, TopgbError
from topgb.evaluation.metrics import Scores
from topgb.evaluation.score import evaluate
from topgb.models import Tagger
from topgb.progress import SILENT, Progress
from topgb.records.dataset import TrainingBatches, check_teacher_knows, label_counts, load_batches, open_dataset
from topgb.records.reading import Dataset, OnDamaged, TeacherSource
from topgb.records.sampling import parse_sampling
from topgb.records.teacher import Teacher
from topgb.training import run as runs
from topgb.training.build import build_model_file
from topgb.training.checkpoint import (
    Checkpoint,
    clear_partial_checkpoints,
    latest_checkpoint,
    save_checkpoint,
)
from topgb.training.curves import Curves, diverged
from topgb.training.ema import Shadows
from topgb.training.losses import LOSSES, mixed_labels, outcome
from topgb.training.memory import check_memory
from topgb.training.names import inherited_names, rename_classes
from topgb.training.optimizer import TF1Adam, clip_each
from topgb.training.recipe import Recipe
from topgb.training.schedule import learning_rate
from topgb.training.start import fresh_tagger, parent_hash, teacher_identity
from topgb.vocabulary import check_names

# Fabric announces its precision at every start; the run's settings hold it.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


@dataclass(frozen=True)
class TrainingJob:
    """What to train, on what, and where to put it.

    recipe          everything that determines the model but the records
    data            training records: path, glob or URL
    out             directory of the run
    validate        records to score after each epoch; the best checkpoint by GAP becomes the model
    init_from       model file to start from; a head for another number of classes starts anew
    new_head        start the head anew in any case: other classes, although as many
    ema_source      model file to continue with its weights averaged; must be of the recipe's architecture
    teacher         folder of `topgb distill` whose scores the model learns from beside the labels, by the recipe's
                    `training.distill_weight`; or "records", which then hold them themselves
    class_names     V names for the model file; None takes those of the model file that training starts from, if the
                    classes are the same. A run that is resumed gets them in place of its earlier ones
    resume          go on from the last checkpoint in `out`, if there is one
    force           overwrite a run in `out`
    on_damaged      `stop` at a damaged record, or `skip` it
    workers         processes that read ahead (0: read in this one)
    device          where to compute: `auto`, `cpu`, `cuda`, `cuda:1` …
    checkpoint_minutes   most minutes between checkpoints; every epoch ends with one too
    """

    recipe: Recipe
    data: str
    out: Path
    validate: str | None = None
    init_from: Path | None = None
    new_head: bool = False
    ema_source: Path | None = None
    teacher: Path | Literal["records"] | None = None
    class_names: tuple[str, ...] | None = None
    resume: bool = False
    force: bool = False
    on_damaged: OnDamaged = "stop"
    workers: int = 0
    device: str = "auto"
    checkpoint_minutes: float = 10.0


@dataclass
class TrainingResult:
    """The model file, its scores on the validation records if there were any, and the records left out."""

    model: Path
    validation: Scores | None
    damaged: list[DamagedRecordError] = field(default_factory=list)


def train(job: TrainingJob, progress: Progress = SILENT) -> TrainingResult:
    """Train to the end and write `model.safetensors` into the run.

    Interrupted at any moment and called again with `resume`, it ends in the same weights (bit for bit on a CPU with the
    same number of threads). Raises `InputError` for wrong input or changed settings and `TopgbError` where training
    diverges or the run cannot be written.
    """
    recipe = job.recipe
    if job.class_names is not None:
        check_names(job.class_names, recipe.data.classes)
    teacher = Teacher(job.teacher) if isinstance(job.teacher, Path) else job.teacher
    # Records without labels can be learned from too, where nothing is asked of labels.
    data = _open(job, job.data, teacher, with_labels=teacher is None or recipe.training.distill_weight < 1.0)
    validation = None if job.validate is None else _open(job, job.validate)
    device = choose_device(job.device)
    fabric = Fabric(
        accelerator=device.type,
        devices=1 if device.index is None else [device.index],
        precision=_precision(recipe, device, progress),
    )
    settings = {
        "records": data.fingerprint(),
        "validation": None if validation is None else validation.fingerprint(),
        "init_from": parent_hash(job.init_from),
        "ema_source": parent_hash(job.ema_source),
        "new_head": job.new_head,
        "teacher": teacher_identity(teacher),
        "arithmetic": fabric._precision.precision,
        runs.NAMES: job.class_names or inherited_names(job.init_from or job.ema_source, recipe, job.new_head),
    }
    # Everything that can be wrong with the input is found before a directory is made, or an old run in it is cleared.
    trainer = _Trainer(job, fabric, data, validation, progress)
    if job.resume and runs.is_run(job.out):
        runs.check_resumable(job.out, recipe, settings)
        clear_partial_checkpoints(job.out)
        if job.class_names is not None:
            rename_classes(job.out, job.class_names)
    else:
        runs.start_run(job.out, recipe, settings, job.force, keep=[job.init_from, job.ema_source])
    trainer.restore(latest_checkpoint(job.out))
    trainer.run()
    build_model_file(job.out, job.out / runs.MODEL_FILE, force=True)
    return TrainingResult(job.out / runs.MODEL_FILE, trainer.best_scores, data.damaged)


class _Trainer:
    """The state of one training run on this process's device."""

    def __init__(self, job: TrainingJob, fabric: Fabric, data: Dataset, validation: Dataset | None, progress: Progress):
        self.job, self.recipe, self.fabric, self.progress = job, job.recipe, fabric, progress
        self.validation = validation
        options = job.recipe.training
        if options.early_stop is not None and validation is None:
            raise InputError("'training.early_stop' needs records to validate on; give --validate")
        if options.distill_weight < 1.0 or data.teacher is None:
            _require_labels(data, job.data)
        if data.teacher is not None and options.loss != "cross_entropy":
            raise InputError(f"a teacher's scores are learned by cross entropy; leave out training.loss={options.loss}")
        check_teacher_knows(data)
        if validation is not None:
            _require_labels(validation, str(job.validate))
        self.batches = TrainingBatches(data, options.batch_size, options.seed, parse_sampling(options.frames))
        videos, frames = min(options.batch_size, data.num_records), self.batches.sampling.count or data.most_frames
        check_memory(job.recipe, videos, frames, fabric.device, progress, data.teacher is not None)
        self.loss = LOSSES[options.loss]
        self.total_steps = options.epochs * self.batches.steps_per_epoch
        self.total_examples = options.epochs * data.num_records
        self.tagger: Tagger = fresh_tagger(job.recipe, data, progress, job.init_from, job.ema_source, job.new_head)
        self.tagger.set_batch_norm_momentum(options.batch_norm_momentum)
        optimizer = TF1Adam(
            self.tagger.parameters(), job.recipe.optimizer.learning_rate, job.recipe.optimizer.weight_decay
        )
        self.model, self.optimizer = fabric.setup(self.tagger, optimizer)
        self.adam = optimizer
        self.shadows = None if job.recipe.ema is None else Shadows(self.tagger, job.recipe.ema)
        self.step = 0
        self.best_scores: Scores | None = None
        self.epochs_since_best = 0

    def restore(self, checkpoint: Checkpoint | None) -> None:
        """Continue where `checkpoint` was taken; None begins at the beginning."""
        if checkpoint is None:
            return
        self.tagger.load_state_dict(checkpoint.weights)
        self.adam.load_moments(
            dict(self.tagger.named_parameters()), checkpoint.optimizer, checkpoint.progress["updates"]
        )
        if self.shadows is not None:
            if checkpoint.ema is None:
                raise InputError(f"the last checkpoint of {self.job.out} lacks its EMA weights; remove that checkpoint")
            for name, value in self.shadows.values.items():
                value.copy_(checkpoint.ema[name])
        self.step = checkpoint.step
        best = checkpoint.progress["validation"]
        self.best_scores = None if best is None else Scores(**best)
        self.epochs_since_best = checkpoint.progress["epochs_since_best"]
        self.batches.dataset.note_damage([DamagedRecordError(*found) for found in checkpoint.progress["damaged"]])
        self.progress.say(f"resuming after step {self.step} of {self.total_steps}")

    def run(self) -> None:
        """Train from the current step to the end, or until validation stops it early."""
        curves = Curves(self.job.out, self.step)
        try:
            self._run(curves)
        finally:
            self.progress.end()
            curves.close()
        if self.adam.steps == 0:
            raise TopgbError(f"no record of {self.job.data} could be trained on; every one is damaged")

    def _run(self, curves: Curves) -> None:
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
            outcome = self._train_step(batch, rate) if len(batch) else None
            self.step += 1
            seen = self.batches.examples_before(self.step)
            note = ""
            if outcome is not None and curves.due(last=self.step == self.total_steps):
                note = curves.write_step(self.step, seen, rate, *outcome)
            self.progress.advance(seen - examples, note)
            if self.step % self.batches.steps_per_epoch == 0:
                self._end_epoch(curves)
                saved = time.monotonic()
            elif time.monotonic() - saved > 60 * self.job.checkpoint_minutes:
                self._require_finite()
                save_checkpoint(self.job.out, self._checkpoint())
                saved = time.monotonic()

    def _train_step(self, batch: Batch, rate: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """One update; returns the batch's loss, probabilities, and labels if it has any."""
        # Dropout depends on the step alone, so resuming needs no generator's state.
        torch.manual_seed((self.recipe.training.seed << 32) + self.step)
        self.adam.set_learning_rate(rate)
        batch = batch.to(self.fabric.device, non_blocking=True)
        target = self._target(batch)
        pieces = min(self.recipe.training.accumulate, len(batch))
        losses, outputs = [], []
        for rows in torch.arange(len(batch), device=self.fabric.device).tensor_split(pieces):
            part = slice(int(rows[0]), int(rows[-1]) + 1) if pieces > 1 else slice(None)
            found = outcome(
                self.tagger, self.model, self.loss, batch.features[part], batch.num_frames[part], target[part]
            )
            share = len(found.probabilities) / len(batch)
            self.fabric.backward((found.loss + found.extra) * share)
            losses.append(found.loss.detach() * share)
            outputs.append(found.probabilities.detach())
        if self.recipe.optimizer.clip_norm is not None:
            clip_each(self.tagger.parameters(), self.recipe.optimizer.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.shadows is not None:
            self.shadows.update(self.tagger, self.step + 1)
        return torch.stack(losses).sum(), torch.cat(outputs), batch.labels

    def _target(self, batch: Batch) -> torch.Tensor:
        """What the batch's probabilities are compared with, [B, V]: labels, or floats with the teacher's share."""
        weight = self.recipe.training.distill_weight
        if batch.labels is None and (batch.teacher is None or weight < 1.0):
            raise InputError(f"video {batch.ids[0]} has no labels; train on labelled records")
        if batch.teacher is not None:
            return mixed_labels(batch.labels, batch.teacher, weight)
        assert batch.labels is not None
        return batch.labels

    def _require_finite(self) -> None:
        if not all(bool(tensor.isfinite().all()) for tensor in self.tagger.state_dict().values()):
            raise diverged(self.step)

    def _end_epoch(self, curves: Curves) -> None:
        self._require_finite()
        if self.validation is not None:
            scores = self._validate()
            curves.write_validation(self.step, scores)
            best = self.best_scores is None or scores.gap > self.best_scores.gap
            self.epochs_since_best = 0 if best else self.epochs_since_best + 1
            if best:
                self.best_scores = scores
                save_checkpoint(self.job.out, self._checkpoint(), "best")
            epoch = self.step // self.batches.steps_per_epoch
            self.progress.say(
                f"epoch {epoch}: validation GAP {scores.gap:.4f}, MAP {scores.map:.4f}, loss {scores.loss:.3f}"
                + (" (best so far)" if best else "")
            )
            done = self.batches.examples_before(self.step)
            if done < self.total_examples:
                self.progress.begin("training", self.total_examples, "videos", done)
        save_checkpoint(self.job.out, self._checkpoint())

    def _validate(self) -> Scores:
        assert self.validation is not None
        raw = {name: value.clone() for name, value in self.tagger.state_dict().items()}
        if self.shadows is not None:
            self.tagger.load_state_dict(self.shadows.values)
        self.tagger.eval()
        try:
            return evaluate(self.tagger, self.validation, self.fabric.device, self.progress).compute()
        finally:
            self.tagger.load_state_dict(raw)
            self.tagger.train()

    def _stopped_early(self) -> bool:
        patience = self.recipe.training.early_stop
        if patience is None or self.epochs_since_best < patience:
            return False
        self.progress.say(f"stopping early: no better validation GAP for {patience} epochs")
        return True

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(
            weights=_on_cpu(self.tagger.state_dict()),
            optimizer=_on_cpu(self.adam.moments(dict(self.tagger.named_parameters()))),
            ema=None if self.shadows is None else _on_cpu(self.shadows.values),
            progress={
                "step": self.step,
                "updates": self.adam.steps,
                "examples": self.batches.examples_before(self.step),
                "validation": None if self.best_scores is None else self.best_scores.to_json(),
                "epochs_since_best": self.epochs_since_best,
                "damaged": [[e.path, e.record, e.offset, e.reason] for e in self.batches.dataset.damaged],
            },
        )


def _open(job: TrainingJob, pattern: str, teacher: TeacherSource | None = None, with_labels: bool = True) -> Dataset:
    data, max_frames = job.recipe.data, job.recipe.model_section().max_frames
    return open_dataset(pattern, data.spec(), data.classes, max_frames, job.on_damaged, with_labels, teacher)


def _require_labels(dataset: Dataset, pattern: str) -> None:
    # A few records tell; one in the middle without labels is found when its batch is read.
    if label_counts(dataset, limit=50)[1] == 0:
        raise InputError(f"the records of {pattern} hold no labels; training and validation need labelled ones")


def _precision(recipe: Recipe, device: torch.device, progress: Progress) -> Any:
    if recipe.training.precision == "float32":
        return "32-true"
    if computes_in_bfloat16(device):
        return "bf16-mixed"
    progress.say("this device does not compute in bfloat16; training in float32")
    return "32-true"


def _on_cpu(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
