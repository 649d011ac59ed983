"""Helpers for tests of whole runs."""

from pathlib import Path

import torch

from topgb.modelfile import read_model_file
from topgb.progress import Progress
from topgb.training.recipe import Recipe


class Interrupting(Progress):
    """Interrupts training after about `videos` videos."""

    def __init__(self, videos: int):
        self.left = videos

    def advance(self, count, note=""):
        self.left -= count
        if self.left < 0:
            raise KeyboardInterrupt


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return read_model_file(path)[1]


def assert_same_bits(one: Path, two: Path) -> None:
    first, second = weights_of(one), weights_of(two)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def changed(recipe: Recipe, **training) -> Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=training)})
