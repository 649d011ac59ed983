"""Estimate the memory of a training run before it starts."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from topgb.devices import free_memory
from topgb.errors import InputError, option
from topgb.models import Tagger, build_tagger
from topgb.models.activations import Living
from topgb.models.initial_values import unfilled
from topgb.progress import Progress
from topgb.training.cautions import LEAST_TOGETHER, uses_batch_norm
from topgb.training.losses import LOSSES, outcome
from topgb.training.recipe import Recipe, Training

ADAM_MOMENTS = 2


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that training takes on its device.

    weights    the model's tensors
    optimizer  gradients, Adam's moments, EMA shadows
    batch      a batch as stored, and the peak of one training step on it beyond the above
    complete   whether the step could be computed to its end; if not, `batch` is a lower bound
    together   the fewest videos that the model should see at once: more than one with batch norm
    """

    weights: int
    optimizer: int
    batch: int
    complete: bool
    together: int = 1

    @property
    def total(self) -> int:
        return self.weights + self.optimizer + self.batch


def estimate_memory(recipe: Recipe, videos: int, frames: int, taught: bool = False) -> MemoryEstimate:
    """The memory of `recipe` with batches of `videos` videos padded to `frames` frames, `taught` by a teacher or not.

    One step, forward and backward, runs on the meta device, where tensors have sizes but no memory, and its tensors are
    counted while they live. The estimate leaves out memory inside one operation (packed matrices, a sort's scratch; a
    third of the whole with oneDNN's LSTM), PyTorch's and its allocator's own, batches that loader workers read ahead, a
    parent's weights, and validation. It counts everything as float32, which is too much for bfloat16. An architecture
    whose code depends on values cannot run without them; then `complete` is false.

    Raises `InputError` where the sizes make no model.
    """
    spec, training = recipe.data.spec(), recipe.training
    tagger = unfilled(
        lambda: build_tagger(spec, recipe.data.classes, recipe.model_section()),
        "the sizes in the recipe's 'model' section make no model; lower them",
    )
    with torch.device("meta"):
        dtype = torch.uint8 if spec.all_bytes else torch.float32
        features = torch.empty(videos, frames, spec.width, dtype=dtype)
        labels = torch.empty(videos, recipe.data.classes, dtype=torch.float32 if taught else torch.bool)
        most, complete = _most_of_a_step(tagger.train(), training, features, labels)
    weights, gradients = _bytes(tagger.state_dict().values()), _bytes(tagger.parameters())
    shadows = 0 if recipe.ema is None else weights
    together = LEAST_TOGETHER if uses_batch_norm(tagger) else 1
    # The peak of the step includes the gradients, which are counted with the optimiser.
    batch = _bytes([features, labels]) + max(0, most - gradients)
    return MemoryEstimate(weights, (1 + ADAM_MOMENTS) * gradients + shadows, batch, complete, together)


def check_memory(
    recipe: Recipe, videos: int, frames: int, device: torch.device, progress: Progress, taught: bool = False
) -> None:
    """Show the result of `estimate_memory`, and raise `InputError` where `device` has less memory free.

    Comes before batches are read, whose labels take a byte for each class. If the free memory is unknown, nothing is
    refused. `frames` may exceed the frames of actual batches (the records give only an upper bound); the estimate is
    then too high.
    """
    needed, free = estimate_memory(recipe, videos, frames, taught), free_memory(device)
    parts = (
        f"weights {_gigabytes(needed.weights)}, gradients and optimiser {_gigabytes(needed.optimizer)}, "
        f"a batch of {videos} {'about' if needed.complete else 'at least'} "
        f"{_gigabytes(needed.batch)}"
    )
    if free is None:
        progress.say(f"memory: {parts}")
        return
    if needed.total > free:
        lowered, pieces = ["the model's sizes"], None
        if needed.weights + needed.optimizer < free:
            pieces = _pieces_that_fit(recipe, (videos, frames), needed.together, free, taught)
            lowered = ["training.batch_size", *(["training.frames"] if frames > 1 else []), *lowered]
        remedy = f"lower {', '.join(lowered[:-1])}{' or ' if lowered[1:] else ''}{lowered[-1]}"
        cause, few = "", recipe.model_copy(update={"data": recipe.data.model_copy(update={"classes": 1})})
        if estimate_memory(few, videos, frames, taught).total < needed.total / 2:
            cause = f", most of it for data.classes={recipe.data.classes}"
            remedy += ", or data.classes if the records hold fewer"
        if pieces is not None:
            remedy = f"compute a step in pieces with {option('set', {'training.accumulate': pieces})}"
        raise InputError(
            f"training needs about {_gigabytes(needed.total)} of memory ({parts}){cause}, but {_gigabytes(free)} are "
            f"free on {device}; {remedy}"
        )
    progress.say(f"memory: {parts}; {_gigabytes(free)} are free")


def _pieces_that_fit(recipe: Recipe, batch: tuple[int, int], together: int, free: int, taught: bool) -> int | None:
    """The fewest pieces, a power of two, in which a step on (videos, frames) fits into `free` bytes, or None.

    No piece has fewer videos than `together`.
    """
    pieces = [2**n for n in range(1, 32) if recipe.training.accumulate < 2**n <= batch[0] // together]

    def fits(count: int) -> bool:
        training = recipe.training.model_copy(update={"accumulate": count})
        return estimate_memory(recipe.model_copy(update={"training": training}), *batch, taught).total <= free

    # The smallest pieces first: where they do not fit, none do.
    return next(filter(fits, pieces)) if pieces and fits(pieces[-1]) else None


def _most_of_a_step(
    tagger: Tagger, training: Training, features: torch.Tensor, labels: torch.Tensor
) -> tuple[int, bool]:
    """Peak bytes of a step's tensors, gradients included, and whether the step could be computed to its end."""
    rows = -(-len(features) // training.accumulate)
    with Living([*tagger.parameters(), *tagger.buffers(), features, labels]) as living:
        try:
            # The second piece runs beside the gradients of the first; further pieces take the same memory.
            for start in range(0, min(2 * rows, len(features)), rows):
                piece = slice(start, start + rows)
                num_frames = torch.empty(len(features[piece]), dtype=torch.int32)
                found = outcome(tagger, tagger, LOSSES[training.loss], features[piece], num_frames, labels[piece])
                (found.loss + found.extra).backward()
        except RuntimeError:
            return living.most, False
    return living.most, True


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e9:.2g} GB"
