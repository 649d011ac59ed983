"""Exponential moving average of a model's weights and batch-norm statistics."""

import math

import torch
from torch import nn

from topgb.errors import InputError, option
from topgb.training.recipe import Ema, Recipe

# 2018's rule of thumb for continuing a trained model: a half-life of 1500 steps for each device's batch of 512.
RULE_STEPS, RULE_BATCH = 1500, 512
CONTINUED_RATE_FACTOR = 0.2
CONTINUED_EPOCHS = 2


def continued_recipe(recipe: Recipe, halflife: float | None, overridden: set[str], devices: int = 1) -> Recipe:
    """The recipe for continuing a trained model while averaging it, as in 2018 (`--ema_source`, `--ema_halflife`).

    With `halflife` None the half-life is 1500 · devices · batch / 512 steps. The learning rate is a fifth of the
    recipe's, and there are two epochs. The values of `ema.halflife`, `optimizer.learning_rate` and `training.epochs`
    stay as they are if their keys are in `overridden`. Raises `InputError` where the half-life is not above 1.
    """
    training, optimizer = recipe.training, recipe.optimizer
    if halflife is None and recipe.ema is not None and "ema.halflife" in overridden:
        halflife = recipe.ema.halflife
    if halflife is None:
        halflife = RULE_STEPS * devices * training.batch_size / RULE_BATCH
    if "training.epochs" not in overridden:
        training = training.model_copy(update={"epochs": CONTINUED_EPOCHS})
    if "optimizer.learning_rate" not in overridden:
        optimizer = optimizer.model_copy(update={"learning_rate": optimizer.learning_rate * CONTINUED_RATE_FACTOR})
    if not 1 < halflife < math.inf:
        given = option("ema_halflife")
        raise InputError(f"an EMA half-life of {halflife:g} steps averages nothing; give {given} more than 1")
    ema = Ema(halflife=float(halflife), warmup=False)
    return recipe.model_copy(update={"training": training, "optimizer": optimizer, "ema": ema})


class Shadows:
    """shadow ← d · shadow + (1 - d) · value after each step, d = 1 - 1/halflife, from the values at the start.

    The average covers every tensor of the model's state: weights, biases, batch-norm scales *and moving statistics*, as
    in 2018.
    """

    def __init__(self, model: nn.Module, settings: Ema):
        self.settings = settings
        self.values = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the shadows towards the model's state after training step `step` (the first is 1)."""
        decay = 1.0 - 1.0 / self.settings.halflife
        if self.settings.warmup:
            decay = min(decay, (1 + step) / (10 + step))
        state = model.state_dict()
        torch._foreach_lerp_(list(self.values.values()), [state[name] for name in self.values], 1.0 - decay)
