"""Linear layers whose weights a model reads directly, and what modules keep that they compute of their weights."""

from typing import Any

import torch
from torch import nn


class Fixable(nn.Module):
    """A module that keeps what it computes of its weights once they are `fixed`, until it trains or loads a state.

    It comes before any other base class. A subclass drops what it keeps in `free`.
    """

    fixed = False

    def fix(self) -> None:
        """Take the weights as they are for those of every call to come."""
        self.fixed = True

    def free(self) -> None:
        """Look at the weights in every call again."""
        self.fixed = False

    def train(self, mode: bool = True) -> "Fixable":
        if mode:
            self.free()
        return super().train(mode)

    def _load_from_state_dict(self, *args: Any) -> None:
        self.free()
        super()._load_from_state_dict(*args)


class ReadLinear(Fixable, nn.Linear):
    """An `nn.Linear` whose `weight` some module reads, whether or not it also calls the layer.

    A loaded model may replace a plain `nn.Linear` of a quantised file by a `PackedLinear` (`topgb.modelfile`),
    which can be called but has no `weight` to read. A `ReadLinear` is never replaced. It computes and is saved as
    `nn.Linear`. While it is fixed, the batch norms around it are, too, and `folded_linear` keeps the weights into which
    it has folded these norms as `folded_weight` and `folded_bias`.
    """

    folded_weight: torch.Tensor | None
    folded_bias: torch.Tensor | None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.register_buffer("folded_weight", None, persistent=False)
        self.register_buffer("folded_bias", None, persistent=False)

    def free(self) -> None:
        super().free()
        self.folded_weight = self.folded_bias = None


def fix_weights(model: nn.Module) -> None:
    """Let `model`, which is to predict, compute only once what follows from its weights and moving statistics.

    Whoever changes its weights otherwise than by training or by loading a state calls `free_weights` first.
    """
    for module in model.modules():
        if isinstance(module, Fixable):
            module.fix()


def free_weights(model: nn.Module) -> None:
    """Undo `fix_weights`: `model` looks at its weights and statistics in every call again, and calls its layers."""
    for module in model.modules():
        if isinstance(module, Fixable):
            module.free()
