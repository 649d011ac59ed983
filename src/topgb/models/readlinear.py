"""Linear layers whose weights a model reads directly."""

from typing import Any

import torch
from torch import nn


class ReadLinear(nn.Linear):
    """An `nn.Linear` whose `weight` some module reads, whether or not it also calls the layer.

    A loaded model may replace a plain `nn.Linear` of a quantised file by a `PackedLinear` (`topgb.modelfile`),
    which can be called but has no `weight` to read. A `ReadLinear` is never replaced. It computes and is saved as
    `nn.Linear`.

    `fixed` says that its weights, and the batch norms around it, stay as they are until the layer trains or loads a
    state. `folded_linear` then keeps the weights into which it has folded these norms as `folded_weight` and
    `folded_bias`.
    """

    folded_weight: torch.Tensor | None
    folded_bias: torch.Tensor | None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.register_buffer("folded_weight", None, persistent=False)
        self.register_buffer("folded_bias", None, persistent=False)
        self.fixed = False

    def train(self, mode: bool = True) -> "ReadLinear":
        if mode:
            self.free()
        return super().train(mode)

    def _load_from_state_dict(self, *args: Any) -> None:
        self.free()
        super()._load_from_state_dict(*args)

    def free(self) -> None:
        """Let `folded_linear` look at the weights in every call again."""
        self.fixed, self.folded_weight, self.folded_bias = False, None, None
