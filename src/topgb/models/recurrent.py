"""Recurrent layers over padded batches: the 2018 cells, and a GRU in the form that cuDNN computes.

Padding is not skipped but made to change nothing: where a frame is padding the gates are driven so far that the state
stays what it was (in the fused kernels by one more input, which is 1 there). A layer running backward so keeps its zero
state, exactly, until a video's last frame.
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
    """LSTM of 2018's `BasicLSTMCell`, in one or (joined) two directions: frames [B, T, D] to outputs and last cells.

    1 is added to the forget gate's input at run time. Rows of a cell's matrix [4 · cells, D + cells] are the gates
    input, forget, candidate, output; this is the form that cuDNN and oneDNN compute.
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
        """Outputs float [B, T, cells · directions] and, held past its end, each video's last cell state."""
        weights: list[torch.Tensor] = []
        dtype = computing_dtype(frames.device)
        # By input, forget, candidate, output: what is added always, and at padding.
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
    """GRU of 2018's `GRUCell`, in one or (joined) two directions: frames [B, T, D] to outputs [B, T, cells · dirs.].

    The reset gate acts *before* the candidate's matrix product (Cho et al. 2014, equation 8). The outputs are held past
    a video's end. Rows of `gates` are reset and update.
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
        by_time = frames.transpose(0, 1)
        outputs = []
        for reverse, (gates, candidate) in enumerate(zip(self.gates, self.candidates, strict=True)):
            own, recurrent = gates.weight.split([self.features, self.size], dim=1)  # type: ignore[operator]
            own_c, recurrent_c = candidate.weight.split([self.features, self.size], dim=1)  # type: ignore[operator]
            matrix, bias = torch.cat([own, own_c]), torch.cat([gates.bias, candidate.bias])  # type: ignore[list-item]
            projected = _held(F.linear(by_time, matrix, bias).float(), valid, self.size)
            with full_precision(frames.device):
                outputs.append(ResetBefore.apply(projected, recurrent, recurrent_c, bool(reverse)))
        return torch.cat(outputs, dim=2).transpose(0, 1)


class ResetAfterGRU(nn.Module):
    """GRU whose reset gate acts *after* the candidate's matrix product, the form cuDNN computes. As `GRU` otherwise.

    Rows of `inputs` and `recurrents` are reset, update, candidate.
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
    """float [B, D]: the output at each video's last frame, of outputs float [B, T, D]."""
    return outputs[torch.arange(outputs.shape[0], device=outputs.device), num_frames.long() - 1]


def _held(projected: torch.Tensor, valid: torch.Tensor | None, cells: int) -> torch.Tensor:
    """Projections [T, B, 3 · cells] whose update gates keep the state at padding (`valid` bool [B, T] is false)."""
    if valid is None:
        return projected
    update = torch.arange(3 * cells, device=projected.device) // cells == 1
    return projected.masked_fill(~valid.T[:, :, None] & update, HELD)


def _by_gate(like: torch.Tensor, cells: int, *values: float) -> torch.Tensor:
    """float32 [gates · cells] on the device of `like`: each gate's value, `cells` times."""
    return torch.cat([torch.full((cells,), value, device=like.device) for value in values])
