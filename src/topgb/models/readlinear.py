"""Linear layers whose weights a model reads directly, and what modules keep that they compute of their weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

# Bytes that are free on a device, or None where that cannot be known.
FreeMemory = Callable[[torch.device], int | None]
# A copy of a weight lies in memory besides it, if so many of it would fit into what is free.
LEAST_FREE = 4

_keeping = ContextVar("keeping", default=True)


@contextmanager
def keeping_nothing() -> Iterator[None]:
    """A block in which this thread's predictions keep nothing new: they are only tried, and measured."""
    token = _keeping.set(False)
    try:
        yield
    finally:
        _keeping.reset(token)


class Fixable(nn.Module):
    """A module that keeps what it computes of its weights once they are `fixed`, until it trains or loads a state.

    It comes before any other base class. A subclass drops what it keeps in `free`.
    """

    _fixed = False

    @property
    def fixed(self) -> bool:
        """Whether what is computed of the weights now will hold in every call to come, and may be kept."""
        return self._fixed and _keeping.get()

    def fix(self) -> None:
        """Take the weights as they are for those of every call to come."""
        self._fixed = True

    def free(self) -> None:
        """Look at the weights in every call again."""
        self._fixed = False

    def train(self, mode: bool = True) -> "Fixable":
        if mode:
            self.free()
        return super().train(mode)

    def _load_from_state_dict(self, *args: Any) -> None:
        self.free()
        super()._load_from_state_dict(*args)


class KeepsPacked(Fixable):
    """A `Fixable` that also keeps its weight in the order in which oneDNN reads it."""

    _packed: Any = None

    def __getstate__(self) -> dict[str, Any]:
        # oneDNN's copies cannot be pickled.
        return {**self.__dict__, "_packed": None}

    def free(self) -> None:
        super().free()
        self._packed = None

    def kept_packed(
        self, weight: torch.Tensor, pack: Callable[[torch.Tensor], Any], free_memory: FreeMemory
    ) -> Any | None:
        """`pack(weight)`, made now if the weight is fixed and memory is free for it; None without."""
        if self._packed is None and self.fixed:
            free = free_memory(weight.device)
            if free is not None and LEAST_FREE * weight.nbytes > free:
                # Never again, as later calls must give the same bits.
                self.free()
                return None
            with torch.inference_mode(False):
                self._packed = pack(weight.detach())
        return self._packed


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
