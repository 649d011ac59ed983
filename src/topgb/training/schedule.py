"""The learning rate as a function of the number of videos seen."""

import math

from topgb.training.recipe import Optimizer


def learning_rate(optimizer: Optimizer, examples: int, total_examples: int) -> float:
    """The rate of the next step when `examples` of the run's `total_examples` videos have been seen."""
    warmup = optimizer.warmup * total_examples
    rate = optimizer.learning_rate
    if examples < warmup:
        return rate * (examples + 1) / (warmup + 1)
    if optimizer.schedule == "staircase":
        return rate * optimizer.decay ** (examples // optimizer.decay_examples)
    if optimizer.schedule == "cosine":
        return rate * 0.5 * (1 + math.cos(math.pi * (examples - warmup) / (total_examples - warmup)))
    return rate
