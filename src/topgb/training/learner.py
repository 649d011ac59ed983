"""The model, its optimiser and its average on a rank's device, changed one update at a time."""

from dataclasses import dataclass

import torch
from lightning_fabric import Fabric

from topgb.batch import Batch
from topgb.errors import InputError, option
from topgb.evaluation.predictions import of_known_pairs
from topgb.models import Tagger
from topgb.models.factored import keep_factors
from topgb.records.labels import or_teacher_alone
from topgb.records.order import piece
from topgb.tensors import all_finite
from topgb.training.checkpoint import Checkpoint
from topgb.training.ema import Shadows
from topgb.training.losses import LOSSES, mixed_labels, outcome, weighted_cross_entropy
from topgb.training.optimizer import TF1Adam
from topgb.training.recipe import Recipe


@dataclass(frozen=True)
class Update:
    """One update's share of the loss on this rank (scalar), and this rank's probabilities and labels [B, V]."""

    loss: torch.Tensor
    probabilities: torch.Tensor
    labels: torch.Tensor | None


class Learner:
    """The state that training changes.

    tagger    the model
    shadows   the average of its weights, if the recipe keeps one
    updates   number of updates made
    """

    def __init__(self, recipe: Recipe, tagger: Tagger, fabric: Fabric):
        self.tagger = tagger
        self._recipe, self._fabric = recipe, fabric
        self._loss = LOSSES[recipe.training.loss]
        # Several ranks sum gradients, and so need them whole.
        factored = keep_factors(tagger) if fabric.world_size == 1 and fabric.device.type == "cpu" else []
        options = recipe.optimizer
        self._adam = TF1Adam(
            tagger.parameters(), options.learning_rate, options.weight_decay, options.clip_norm, factored
        )
        self._model, self._optimizer = fabric.setup(tagger, self._adam)
        self.shadows = None if recipe.ema is None else Shadows(tagger, recipe.ema)

    @property
    def updates(self) -> int:
        return self._adam.steps

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore the state in `checkpoint`. Raises `InputError` where an average is needed and it has none."""
        self.tagger.load_state_dict(checkpoint.weights)
        parameters = dict(self.tagger.named_parameters())
        self._adam.load_moments(parameters, checkpoint.optimizer, checkpoint.progress["updates"])
        if self.shadows is not None:
            if checkpoint.ema is None:
                raise InputError(
                    "the run's last checkpoint has lost its ema.safetensors, which its recipe keeps; put that back, or "
                    f"start anew with {option('force', True)}"
                )
            for name, value in self.shadows.values.items():
                value.copy_(checkpoint.ema[name])

    def checkpoint(self, progress: dict) -> Checkpoint:
        """The state on the CPU, with the JSON values of `progress`."""
        return Checkpoint(
            weights=_on_cpu(self.tagger.state_dict()),
            optimizer=_on_cpu(self._adam.moments(dict(self.tagger.named_parameters()))),
            ema=None if self.shadows is None else _on_cpu(self.shadows.values),
            progress={**progress, "updates": self.updates},
        )

    def is_finite(self) -> bool:
        """Whether every weight and statistic is finite."""
        return all(all_finite(tensor) for tensor in self.tagger.state_dict().values())

    def update(self, batch: Batch, step: int, rate: float, videos: torch.Tensor) -> Update:
        """Train on one batch at step `step` (the first is 0) with the learning rate `rate`.

        `videos` is the number of videos in all ranks' batches, at least 1; this rank's batch may have none. Raises
        `InputError` where a needed label is missing.
        """
        training, ranks = self._recipe.training, self._fabric.world_size
        # Seed by step and rank, so that resuming needs no generator state for dropout.
        torch.manual_seed((training.seed << 32) + step * ranks + self._fabric.global_rank)
        self._adam.set_learning_rate(rate)
        batch = batch.to(self._fabric.device, non_blocking=True)
        target = _target(batch, training.distill_weight)
        # Batch norms sum over the ranks in each piece: all ranks have as many, some without videos if need be.
        pieces = min(training.accumulate, len(batch)) if ranks == 1 else training.accumulate
        total = len(batch) if ranks == 1 else videos
        losses, outputs = [], []
        for number in range(pieces):
            part = slice(*piece(len(batch), pieces, number))
            with self._fabric.no_backward_sync(self._model, enabled=number < pieces - 1):
                features, num_frames = batch.features[part], batch.num_frames[part]
                loss = self._loss if batch.weights is None else weighted_cross_entropy(batch.weights[part])
                found = outcome(self.tagger, self._model, loss, features, num_frames, target[part])
                share = len(found.probabilities) / total
                # Times ranks, because DDP averages the ranks' gradients.
                self._fabric.backward((found.loss + found.extra) * (share * ranks))
            losses.append(found.loss.detach() * share)
            outputs.append(found.probabilities.detach())
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self.shadows is not None:
            self.shadows.update(self.tagger, step + 1)
        return Update(torch.stack(losses).sum(), of_known_pairs(torch.cat(outputs), batch), batch.labels)


def _target(batch: Batch, weight: float) -> torch.Tensor:
    """The target of the batch's probabilities, [B, V]: labels (bool), or labels mixed with the teacher (float32)."""
    if batch.labels is None and (batch.teacher is None or weight < 1.0):
        advice = f"train on labelled records{or_teacher_alone(batch.teacher)}"
        raise InputError(f"video {batch.ids[0]!r} has no labels; {advice}")
    if batch.teacher is not None:
        return mixed_labels(batch.labels, batch.teacher, weight)
    assert batch.labels is not None
    return batch.labels


def _on_cpu(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
