"""Settings that would spoil a model without an error: they are refused, or named when the run begins."""

from collections.abc import Iterator

import numpy as np
from torch import nn

from topgb.errors import InputError
from topgb.models.batchnorm import BatchNorm
from topgb.records.dataset import Dataset
from topgb.records.order import piece
from topgb.records.sampling import parse_sampling
from topgb.records.training_batches import TrainingBatches
from topgb.training.recipe import Recipe
from topgb.training.schedule import learning_rate

# The fewest videos for the statistics of batch norm: fewer lower the score, and a single one ruins the model.
LEAST_TOGETHER = 4
# The learning rate counts as nothing below this share of its start.
NOTHING = 0.01
# At the end, a moving average should hold no more than this share of its random start.
START_LEFT = 0.1
# Adam moves every weight by about the learning rate in each step; recipes have 0.002 at most.
GREATEST_RATE = 0.1
# Gradients of a smaller norm disappear beside Adam's epsilon of 1e-8.
LEAST_NORM = 1e-5
# The greatest share of a weight that a step may take off.
MOST_DECAY = 0.1
# The schedule is sampled at this many steps.
LOOKS = 1000


def uses_batch_norm(model: nn.Module) -> bool:
    """Whether a layer of `model` normalises by the statistics of a batch."""
    kinds = BatchNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm
    return any(isinstance(module, kinds) for module in model.modules())


def fewest_together(batches: TrainingBatches, accumulate: int) -> int:
    """The fewest videos of all ranks that go through the model at once in any step."""
    ranks, steps, records = batches.ranks, batches.steps_per_epoch, batches.dataset.num_records
    fewest = []
    for videos in {records // steps, -(-records // steps)}:
        own = [stop - start for start, stop in (piece(videos, ranks, rank) for rank in range(ranks))]
        # As in `Learner.update`.
        pieces = min(accumulate, videos) if ranks == 1 else accumulate
        for number in range(pieces):
            spans = [piece(count, pieces, number) for count in own]
            fewest.append(sum(stop - start for start, stop in spans))
    # A piece without videos changes no statistics.
    return min(filter(None, fewest))


def check_batch_norm(model: nn.Module, batches: TrainingBatches, accumulate: int) -> str | None:
    """Return a caution where batch norm sees few videos at once, or None.

    Raises `InputError` where it sees one: its mean, which is then the video itself, would be subtracted from it.
    """
    if not uses_batch_norm(model):
        return None
    together = fewest_together(batches, accumulate)
    if together >= LEAST_TOGETHER:
        return None
    remedy = "raise training.batch_size"
    if accumulate > 1:
        remedy = f"lower training.accumulate ({accumulate}) or {remedy}"
    if batches.dataset.num_records < LEAST_TOGETHER * batches.ranks:
        remedy = "give more records"
    wanted = f"{remedy}, so that {LEAST_TOGETHER} or more go through the model at once"
    if together == 1:
        raise InputError(
            f"batch norm would normalise one video by itself, which leaves nothing of it to learn from; {wanted}, or "
            "choose a model without batch norm"
        )
    return f"batch norm normalises by only {together} videos at once, which costs score; {wanted}"


def cautions(
    recipe: Recipe, batches: TrainingBatches, validation: Dataset | None, fresh: bool, normalises: bool
) -> Iterator[str]:
    """Sentences on settings that are likely mistakes for a run on these records.

    `fresh` says whether training starts from random weights, `normalises` whether the model has batch norm.
    """
    steps = recipe.training.epochs * batches.steps_per_epoch
    yield from _of_the_rate(recipe, batches.dataset.num_records, steps)
    yield from _of_averages(recipe, steps, fresh, normalises)
    yield from _of_early_stop(recipe)
    yield from _of_frames(recipe, batches.dataset)
    if batches.dataset.teacher is not None and recipe.training.distill_weight == 0.0:
        yield "training.distill_weight is 0, so the teacher's scores are not learned"
    if validation is not None:
        trained = {tuple(shard[1:]) for shard in batches.dataset.fingerprint()}
        same = [shard[0] for shard in validation.fingerprint() if tuple(shard[1:]) in trained]
        if same:
            yield (
                f"{len(same):,} of the {len(validation.shards):,} shards to validate on ({same[0]} the first) are "
                "trained on too, so the validation GAP says little of other videos"
            )


def _of_the_rate(recipe: Recipe, videos: int, steps: int) -> Iterator[str]:
    optimizer, total = recipe.optimizer, recipe.training.epochs * videos
    rates = np.array([learning_rate(optimizer, total * look // LOOKS, total) for look in range(LOOKS)])
    start, asleep = optimizer.learning_rate, float((rates < NOTHING * optimizer.learning_rate).mean())
    if asleep > 0.5:
        yield (
            f"the learning rate is below a hundredth of its start ({start:g}) for {asleep:.0%} of the run; raise "
            "optimizer.decay or optimizer.decay_examples, or choose optimizer.schedule=cosine"
        )
    if optimizer.warmup > 0.5:
        yield f"the learning rate rises over {optimizer.warmup:.0%} of the run; lower optimizer.warmup"
    if start > GREATEST_RATE:
        yield (
            f"each step may move every weight by about {start:g}, which forgets what was learned; lower "
            "optimizer.learning_rate"
        )
    if optimizer.weight_decay * start > MOST_DECAY:
        yield (
            f"each step takes {min(1.0, optimizer.weight_decay * start):.0%} off every weight; lower "
            f"optimizer.weight_decay ({optimizer.weight_decay:g})"
        )
    if optimizer.clip_norm is not None and optimizer.clip_norm < LEAST_NORM:
        yield f"gradients of a norm of {optimizer.clip_norm:g} hardly move a weight; raise optimizer.clip_norm"
    if recipe.training.batch_size > videos:
        yield (
            f"training.batch_size={recipe.training.batch_size} is more than the {videos:,} videos, so each of the "
            f"{recipe.training.epochs} epochs is a single step; lower it"
        )
    # Adam moves a weight by about the rate in a step.
    reach = float(rates.mean()) * steps
    if reach < 1e-3:
        yield (
            f"no weight can move by more than about {reach:.2g} in all {steps:,} steps; raise optimizer.learning_rate "
            "or training.epochs"
        )


def _of_averages(recipe: Recipe, steps: int, fresh: bool, normalises: bool) -> Iterator[str]:
    # Shares of the start that are left in a moving average after all steps.
    momentum = recipe.training.batch_norm_momentum
    left = momentum**steps
    if fresh and normalises and left > START_LEFT:
        yield (
            f"batch norm's moving statistics, which evaluation uses, still hold {left:.0%} of their start after all "
            f"{steps:,} steps; lower training.batch_norm_momentum ({momentum:g}) or raise training.epochs"
        )
    if recipe.ema is None:
        return
    keeps = np.full(steps, 1.0 - 1.0 / recipe.ema.halflife)
    if recipe.ema.warmup:
        done = np.arange(1, steps + 1)
        keeps = np.minimum(keeps, (1 + done) / (10 + done))
    left = float(np.exp(np.log(keeps).sum()))
    if left > (START_LEFT if fresh else 0.5):
        start = "random start" if fresh else "model that training starts from"
        yield (
            f"the average of the weights still holds {left:.0%} of the {start} after all {steps:,} steps; lower the "
            f"EMA half-life ({recipe.ema.halflife:g} steps) or raise training.epochs"
        )


def _of_early_stop(recipe: Recipe) -> Iterator[str]:
    patience, epochs = recipe.training.early_stop, recipe.training.epochs
    if patience is None:
        return
    if patience >= epochs:
        yield f"training.early_stop={patience} cannot stop a run of {epochs} epochs; lower it, or leave it out"
    warmup = recipe.optimizer.warmup * epochs
    if patience < warmup:
        yield (
            f"training.early_stop={patience} may stop the run while its learning rate still rises, over {warmup:g} "
            "epochs; raise it, or lower optimizer.warmup"
        )


def _of_frames(recipe: Recipe, dataset: Dataset) -> Iterator[str]:
    sampling = parse_sampling(recipe.training.frames)
    if sampling.mode == "sequence" and sampling.count > dataset.most_frames:
        yield (
            f"training.frames={recipe.training.frames} takes more frames than any video has (at most "
            f"{dataset.most_frames}): each repeats its last frame; lower it"
        )
