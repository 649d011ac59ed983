"""The training loop: recipe and records in, a run with checkpoints and a model file out."""

import logging
import time
from contextlib import ExitStack, closing
from typing import Any

import torch
from lightning_fabric import Fabric

from topgb.batch import Batch
from topgb.devices import choose_device, resolved_precision
from topgb.errors import DamagedRecordError, TopgbError
from topgb.evaluation.metrics import Metrics, Scores
from topgb.folder_lock import writing_alone
from topgb.matmul_library import in_use, use
from topgb.progress import SILENT, Progress
from topgb.records.training_batches import load_batches
from topgb.training import run_folder as runs
from topgb.training.build import build_model_file
from topgb.training.checkpoint import Checkpoint, clear_partial_checkpoints, latest_checkpoint, save_checkpoint
from topgb.training.class_names import rename_classes
from topgb.training.curves import Curves, diverged
from topgb.training.job import TrainingJob, TrainingResult
from topgb.training.learner import Learner, Update
from topgb.training.preparation import Preparation, prepare
from topgb.training.ranks import FabricPrecision, agree, check_alike, gather, launch, losing_a_peer, together
from topgb.training.replaced_run import drop_earlier, give_back, settle
from topgb.training.schedule import learning_rate
from topgb.training.stopping import Asked, asked_to_stop, interrupts_noted
from topgb.training.validation import validate

# Fabric announces its precision at every start; the run's settings hold it.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def train(job: TrainingJob, progress: Progress = SILENT) -> TrainingResult:
    """Train to the end and write `model.safetensors` into the run.

    Interrupted at any moment and called again with `resume`, it ends in the same weights (bit for bit under the
    conditions of docs/faults.md). With several ranks (see `topgb.training.ranks.launch`) every one of them runs this,
    and all end with the same weights. SIGTERM and SIGHUP write a checkpoint and raise `StoppedError`; the first Ctrl-C
    writes one and raises `InterruptError`.

    Raises `InputError` for wrong input or changed settings or where another process trains into the run, and
    `TopgbError` where training diverges or the run cannot be written.
    """
    device = choose_device(job.device)
    precision = _precision(job, device)
    fabric = launch(device, job.devices, job.num_nodes, precision)
    if not fabric.is_global_zero:
        progress = SILENT
    if job.recipe.training.precision == "bfloat16" and precision == "32-true":
        progress.say("this device does not compute in bfloat16; training in float32")
    with asked_to_stop() as stop, losing_a_peer(fabric), ExitStack() as alone:
        # All ranks round alike.
        use(gather(fabric, in_use())[0])
        with together(fabric):
            # Lock first: opening a large data set takes minutes.
            if fabric.is_global_zero:
                alone.enter_context(writing_alone(job.out))
        with together(fabric):
            prepared = prepare(job, fabric, precision, progress)
        with together(fabric):
            if fabric.is_global_zero:
                settle(job.out)
        with together(fabric):
            going_on = job.resume and runs.is_run(job.out)
        try:
            with together(fabric):
                if fabric.is_global_zero:
                    _begin(job, prepared.settings, going_on)
            with together(fabric):
                checkpoint = latest_checkpoint(job.out)
            check_alike(fabric, prepared.settings, 0 if checkpoint is None else checkpoint.step)
            trainer = _Trainer(prepared, fabric, checkpoint, progress)
            with interrupts_noted(stop, progress):
                trainer.run(stop)
        except Exception:
            if fabric.is_global_zero:
                give_back(job.out)
            raise
        with together(fabric):
            if fabric.is_global_zero:
                build_model_file(job.out, job.out / runs.MODEL_FILE, force=True)
    model = job.out / runs.MODEL_FILE
    return TrainingResult(model, trainer.best_scores, trainer.batches.dataset.damaged, fabric.is_global_zero)


def _begin(job: TrainingJob, settings: dict[str, Any], going_on: bool) -> None:
    """Prepare the run's directory for the first step."""
    if not going_on:
        runs.start_run(job.out, job.recipe, settings, job.force, keep=[job.init_from, job.ema_source])
        return
    runs.check_resumable(job.out, job.recipe, settings)
    clear_partial_checkpoints(job.out)
    if job.class_names is not None:
        rename_classes(job.out, job.class_names)


class _Trainer:
    """One training run: its state, and the steps still to do."""

    def __init__(self, prepared: Preparation, fabric: Fabric, checkpoint: Checkpoint | None, progress: Progress):
        """Move the model to its device, and restore the state in `checkpoint` (None: start at step 0)."""
        self.job, self.recipe, self.fabric, self.progress = prepared.job, prepared.job.recipe, fabric, progress
        self.batches, self.validation, self.tagger = prepared.batches, prepared.validation, prepared.tagger
        self.total_steps, self.total_examples = prepared.total_steps, prepared.total_examples
        self.learner = Learner(self.recipe, self.tagger, fabric)
        self.step, self.epochs_since_best = 0, 0
        self.best_scores: Scores | None = None
        if checkpoint is None:
            return
        self.learner.restore(checkpoint)
        self.step = checkpoint.step
        best = checkpoint.progress["validation"]
        self.best_scores = None if best is None else Scores(**best)
        self.epochs_since_best = checkpoint.progress["epochs_since_best"]
        self.batches.dataset.note_damage([DamagedRecordError(*found) for found in checkpoint.progress["damaged"]])
        progress.say(f"resuming after step {self.step} of {self.total_steps}")

    def run(self, stop: Asked) -> None:
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
            raise TopgbError(f"no record of {self.job.data} could be trained on; topgb data verify says why")

    def _run(self, curves: Curves | None, stop: Asked) -> None:
        saved = time.monotonic()
        self.tagger.train()
        self.progress.begin("training", self.total_examples, "videos", self.batches.examples_before(self.step))
        steps, pin_memory = range(self.step, self.total_steps), self.fabric.device.type == "cuda"
        with closing(load_batches(self.batches, steps, self.job.workers, pin_memory)) as loader:
            for batch, _ in loader:
                if self._stopped_early():
                    break
                stopping = self._take_step(batch, curves, bool(stop))
                if self.step % self.batches.steps_per_epoch == 0:
                    self._end_epoch(curves)
                    saved = time.monotonic()
                elif stopping or time.monotonic() - saved > 60 * self.job.checkpoint_minutes:
                    self._require_finite()
                    self._save("step")
                    saved = time.monotonic()
                if stopping and self.step < self.total_steps:
                    with together(self.fabric):
                        raise stop.error(f"after step {self.step} of {self.total_steps}")

    def _take_step(self, batch: Batch, curves: Curves | None, asked_to_stop: bool) -> bool:
        """Take one step with all ranks; return whether any rank was asked to stop."""
        before = self.batches.examples_before(self.step)
        rate = learning_rate(self.recipe.optimizer, before, self.total_examples)
        due = curves is not None and curves.due(last=self.step + 1 == self.total_steps)
        # All ranks must do the same, but only the first knows whether logging is due, and any may be asked to stop.
        ranks = agree(self.fabric, len(batch), due, asked_to_stop)
        # A step can only lack videos where damaged records are left out; otherwise don't look, since that waits for the
        # device.
        missing = self.batches.dataset.on_damaged == "skip" and not ranks.videos
        update = None if missing else self.learner.update(batch, self.step, rate, ranks.videos)
        self.step += 1
        seen = self.batches.examples_before(self.step)
        note = self._log(curves, seen, rate, update) if update is not None and ranks.due else ""
        self.progress.advance(seen - before, note)
        return bool(ranks.stopping)

    def _log(self, curves: Curves | None, seen: int, rate: float, update: Update) -> str:
        """Log all ranks' step; return the figures in words."""
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
            raise diverged(self.step, self.job.out)

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
            drop_earlier(self.job.out)

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


def _precision(job: TrainingJob, device: torch.device) -> FabricPrecision:
    """The arithmetic of the recipe on `device`; with `auto` a run that goes on keeps its own."""
    asked = job.recipe.training.precision
    if asked == "auto" and job.resume and runs.is_run(job.out):
        return "bf16-mixed" if runs.read_settings(job.out).get("arithmetic") == "bf16-mixed" else "32-true"
    return "bf16-mixed" if resolved_precision(asked, device) == "bfloat16" else "32-true"
