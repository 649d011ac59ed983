"""The recurrent layers as one `scan` loop, which a graph can hold for any number of frames."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

# `scan` is the only loop that both `torch.export` and the ONNX exporter support; it has no public name yet.
from torch._higher_order_ops.scan import scan

from topgb.models.byfeature import set_child
from topgb.models.recurrent import GRU, LSTM, ResetAfterGRU

State = tuple[torch.Tensor, ...]
Step = Callable[[State, torch.Tensor], State]


def replace_recurrent(module: nn.Module) -> None:
    """Replace every recurrent layer inside `module` with a scanned layer that has the same submodules."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            scanned = _SCANNED.get(type(child))
            if scanned is not None:
                set_child(parent, name, scanned(child))


class ScannedLSTM(nn.Module):
    """`LSTM` in evaluation mode, by `scan`."""

    def __init__(self, layer: LSTM):
        super().__init__()
        self.features, self.size, self.cells = layer.features, layer.size, layer.cells

    def forward(self, frames: torch.Tensor, valid: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        outputs, last = [], []
        for reverse, cell in enumerate(self.cells):
            own, recurrent = cell.weight.split([self.features, self.size], dim=1)  # type: ignore[operator]

            def step(state: State, projected: torch.Tensor, recurrent: torch.Tensor = recurrent) -> State:
                share = projected + F.linear(state[0], recurrent)
                entered, forgotten, candidate, shown = share.split(self.size, dim=1)
                cell = state[1] * torch.sigmoid(forgotten + 1.0) + torch.sigmoid(entered) * torch.tanh(candidate)
                return torch.sigmoid(shown) * torch.tanh(cell), cell

            projected = F.linear(frames, own, cell.bias)  # type: ignore[arg-type]
            output, state = _scanned(step, 2, self.size, projected, valid, bool(reverse))
            outputs.append(output)
            last.append(state[1])
        return torch.cat(outputs, dim=2), torch.cat(last, dim=1)


class ScannedGRU(nn.Module):
    """`GRU` in evaluation mode, by `scan`."""

    def __init__(self, layer: GRU):
        super().__init__()
        self.features, self.size = layer.features, layer.size
        self.gates, self.candidates = layer.gates, layer.candidates

    def forward(self, frames: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        outputs = []
        for reverse, (gates, candidate) in enumerate(zip(self.gates, self.candidates, strict=True)):
            own, recurrent = gates.weight.split([self.features, self.size], dim=1)  # type: ignore[operator]
            own_c, recurrent_c = candidate.weight.split([self.features, self.size], dim=1)  # type: ignore[operator]

            def step(
                state: State,
                projected: torch.Tensor,
                recurrent: torch.Tensor = recurrent,
                recurrent_c: torch.Tensor = recurrent_c,
            ) -> State:
                share, share_c = projected.split([2 * self.size, self.size], dim=1)
                reset, update = torch.sigmoid(share + F.linear(state[0], recurrent)).split(self.size, dim=1)
                new = torch.tanh(share_c + F.linear(reset * state[0], recurrent_c))
                return (new + update * (state[0] - new),)

            matrix, bias = torch.cat([own, own_c]), torch.cat([gates.bias, candidate.bias])  # type: ignore[list-item]
            outputs.append(_scanned(step, 1, self.size, F.linear(frames, matrix, bias), valid, bool(reverse))[0])
        return torch.cat(outputs, dim=2)


class ScannedResetAfterGRU(nn.Module):
    """`ResetAfterGRU` in evaluation mode, by `scan`."""

    def __init__(self, layer: ResetAfterGRU):
        super().__init__()
        self.size, self.inputs, self.recurrents = layer.size, layer.inputs, layer.recurrents

    def forward(self, frames: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        outputs = []
        for reverse, (own, recurrent) in enumerate(zip(self.inputs, self.recurrents, strict=True)):
            weight, bias = recurrent.weight, recurrent.bias

            def step(state: State, projected: torch.Tensor, weight: Any = weight, bias: Any = bias) -> State:
                share = F.linear(state[0], weight, bias)
                parts = zip(projected.split(self.size, dim=1), share.split(self.size, dim=1), strict=True)
                (own_r, state_r), (own_z, state_z), (own_c, state_c) = parts
                new = torch.tanh(own_c + torch.sigmoid(own_r + state_r) * state_c)
                return (new + torch.sigmoid(own_z + state_z) * (state[0] - new),)

            outputs.append(_scanned(step, 1, self.size, own(frames), valid, bool(reverse))[0])
        return torch.cat(outputs, dim=2)


_SCANNED: dict[type, Any] = {LSTM: ScannedLSTM, GRU: ScannedGRU, ResetAfterGRU: ScannedResetAfterGRU}


def _scanned(
    step: Step, states: int, size: int, projected: torch.Tensor, valid: torch.Tensor | None, reverse: bool
) -> tuple[torch.Tensor, State]:
    """Run `step` over the frames of `projected` [B, T, …]: outputs [B, T, size] and the last states, [B, size] each.

    States keep their values at padding, where `valid` (bool [B, T]) is false.
    """
    by_time = projected.transpose(0, 1)
    counts = torch.ones_like(by_time[:, :, :1], dtype=torch.bool) if valid is None else valid.T[:, :, None]

    def held_step(state: State, frame: State) -> tuple[State, torch.Tensor]:
        own, count = frame
        moved = tuple(torch.where(count, new, old) for new, old in zip(step(state, own), state, strict=True))
        # `scan` requires that the stacked output is not the tensor it carries on.
        return moved, moved[0].clone()

    zeros = tuple(projected.new_zeros(projected.shape[0], size) for _ in range(states))
    last, outputs = scan(held_step, zeros, (by_time, counts), reverse=reverse)
    return outputs.transpose(0, 1), tuple(last)
