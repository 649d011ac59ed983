"""Recurrent layers over padded batches: the 2018 cells, and a GRU in the form that cuDNN computes.

Padding is computed but changes no state: at a padding frame the gates are saturated, so that the state stays as it was.
The fused kernels do this by one more input, which is 1 at padding. A layer that runs backward therefore keeps its zero
state, exactly, until it reaches a video's last frame.
"""

import torch
import torch.nn.functional as F
from torch import nn

from topgb.models.gru_steps import ResetBefore
from topgb.models.precision import computing_dtype, full_precision
from topgb.models.readlinear import ReadLinear

# σ(HELD) is 1 and σ(-HELD) is 0 in every floating-point format used here.
HELD = 1e4


class LSTM(nn.Module):
    """LSTM of 2018's `BasicLSTMCell` in one direction, or two concatenated: frames [B, T, D] to outputs and last cells.

    The forget gate's input gets 1 added at run time. The rows of a cell's matrix [4 · cells, D + cells] are the gates
    input, forget, candidate, output, the order that cuDNN and oneDNN use.
    """

    def __init__(self, features: int, cells: int, bidirectional: bool = False):
        super().__init__()
        self.features, self.size, self.bidirectional = features, cells, bidirectional
        self.cells = nn.ModuleList(ReadLinear(features + cells, 4 * cells) for _ in range(1 + bidirectional))
        for cell in self.cells:
            # 2018: get_variable's default.
            nn.init.xavier_uniform_(cell.weight)  # type: ignore[arg-type]
            nn.init.zeros_(cell.bias)  # type: ignore[arg-type]

    def forward(self, frames: torch.Tensor, valid: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs float [B, T, cells · directions] and each video's last cell state float [B, cells · directions]."""
        weights: list[torch.Tensor] = []
        dtype = computing_dtype(frames.device)
        # Biases of the gates input, forget, candidate, output: `forget` is added always, `hold` at padding.
        forget = _by_gate(frames, self.size, 0.0, 1.0, 0.0, 0.0)
        hold = _by_gate(frames, self.size, -HELD, HELD, 0.0, 0.0)
        for cell in self.cells:
            own, recurrent = cell.weight.split([self.features, self.size], dim=1)  # type: ignore[operator]
            if valid is not None:
                own = torch.cat([own, hold[:, None]], dim=1)
            weights += [own, recurrent, cell.bias, forget]  # type: ignore[list-item]
        if valid is not None:
            frames = torch.cat([frames, (~valid)[:, :, None].to(frames.dtype)], dim=2)
        zeros = frames.new_zeros(len(self.cells), len(frames), self.size, dtype=dtype)
        outputs, _, cells = torch.lstm(
            frames.to(dtype), (zeros, zeros), [w.to(dtype).contiguous() for w in weights], True, 1, 0.0,
            self.training, self.bidirectional, True,
        )  # fmt: skip
        return outputs, cells.transpose(0, 1).flatten(1)


class GRU(nn.Module):
    """GRU of 2018's `GRUCell` in one direction, or two concatenated: frames [B, T, D] to outputs [B, T, cells · dirs.].

    The reset gate acts *before* the candidate's matrix product (Cho et al. 2014, equation 8). Past a video's end the
    outputs stay constant. The rows of `gates` are reset and update.
    """

    def __init__(self, features: int, cells: int, bidirectional: bool = False):
        super().__init__()
        self.features, self.size = features, cells
        directions = 1 + bidirectional
        self.gates = nn.ModuleList(ReadLinear(features + cells, 2 * cells) for _ in range(directions))
        self.candidates = nn.ModuleList(ReadLinear(features + cells, cells) for _ in range(directions))
        for gates, candidate in zip(self.gates, self.candidates, strict=True):
            nn.init.xavier_uniform_(gates.weight)  # type: ignore[arg-type]
            nn.init.xavier_uniform_(candidate.weight)  # type: ignore[arg-type]
            # 2018: the gates' biases start at 1.
            nn.init.ones_(gates.bias)  # type: ignore[arg-type]
            nn.init.zeros_(candidate.bias)  # type: ignore[arg-type]

    def forward(self, frames: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        # Contiguous, since oneDNN multiplies a transposed view step by step.
        by_time = frames.transpose(0, 1).contiguous().flatten(0, 1)
        outputs = []
        for reverse, (gates, candidate) in enumerate(zip(self.gates, self.candidates, strict=True)):
            own, recurrent = gates.weight.split([self.features, self.size], dim=1)  # type: ignore[operator]
            own_c, recurrent_c = candidate.weight.split([self.features, self.size], dim=1)  # type: ignore[operator]
            matrix, bias = torch.cat([own, own_c]), torch.cat([gates.bias, candidate.bias])  # type: ignore[list-item]
            projected = _held(F.linear(by_time, matrix, bias).float(), valid, self.size)
            with full_precision(frames.device):
                steps = ResetBefore.apply(projected, recurrent, recurrent_c, frames.shape[1], bool(reverse))
            outputs.append(steps[0])
        return torch.cat(outputs, dim=2).transpose(0, 1)


class ResetAfterGRU(nn.Module):
    """GRU whose reset gate acts *after* the candidate's matrix product, as cuDNN computes it; otherwise like `GRU`.

    The rows of `inputs` and `recurrents` are reset, update, candidate.
    """

    def __init__(self, features: int, cells: int, bidirectional: bool = False):
        super().__init__()
        self.size, self.bidirectional = cells, bidirectional
        directions = 1 + bidirectional
        self.inputs = nn.ModuleList(ReadLinear(features, 3 * cells) for _ in range(directions))
        self.recurrents = nn.ModuleList(ReadLinear(cells, 3 * cells) for _ in range(directions))
        for linear in (*self.inputs, *self.recurrents):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, frames: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        weights: list[torch.Tensor] = []
        dtype = computing_dtype(frames.device)
        hold = _by_gate(frames, self.size, 0.0, HELD, 0.0)
        for own, recurrent in zip(self.inputs, self.recurrents, strict=True):
            matrix = own.weight if valid is None else torch.cat([own.weight, hold[:, None]], dim=1)  # type: ignore[list-item]
            weights += [matrix, recurrent.weight, own.bias, recurrent.bias]  # type: ignore[list-item]
        if valid is not None:
            frames = torch.cat([frames, (~valid)[:, :, None].to(frames.dtype)], dim=2)
        zeros = frames.new_zeros(len(self.inputs), len(frames), self.size, dtype=dtype)
        outputs, _ = torch.gru(
            frames.to(dtype), zeros, [w.to(dtype).contiguous() for w in weights], True, 1, 0.0,
            self.training, self.bidirectional, True,
        )  # fmt: skip
        return outputs


def last_outputs(outputs: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
    """The output at each video's last frame, float [B, D], from outputs float [B, T, D]."""
    return outputs[torch.arange(outputs.shape[0], device=outputs.device), num_frames.long() - 1]


def _held(projected: torch.Tensor, valid: torch.Tensor | None, cells: int) -> torch.Tensor:
    """`projected` [T · B, 3 · cells] with update gates that keep the state where `valid` (bool [B, T]) is false."""
    if valid is None:
        return projected
    update = torch.arange(3 * cells, device=projected.device) // cells == 1
    return projected.masked_fill(~valid.T.reshape(-1, 1) & update, HELD)


def _by_gate(like: torch.Tensor, cells: int, *values: float) -> torch.Tensor:
    """Each gate's value repeated `cells` times, float32 [gates · cells], on the device of `like`."""
    return torch.cat([torch.full((cells,), value, device=like.device) for value in values])
