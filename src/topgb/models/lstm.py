"""LSTM models of 2018 (Hochreiter and Schmidhuber 1997)."""

import torch
from pydantic import Field
from torch import nn

from topgb.features import FeatureSpec
from topgb.models.dropout import Dropout
from topgb.models.options import Options as BaseOptions
from topgb.models.padding import padding_mask
from topgb.models.recurrent import LSTM, last_outputs
from topgb.models.registry import aggregator


@aggregator("lstm")
class StackedLSTM(nn.Module):
    """Stacked LSTMs: the output of the last LSTM at each video's last frame, float [B, cells] (2018: `LstmModel`)."""

    class Options(BaseOptions):
        """2018 flags: `lstm_cells`, `lstm_layers`. `dropout` acts on the result in training."""

        cells: int = Field(1024, ge=1)
        layers: int = Field(2, ge=1, le=100)
        dropout: float = Field(0.0, ge=0.0, lt=1.0)

    def __init__(self, spec: FeatureSpec, options: Options):
        super().__init__()
        self.out_features = options.cells
        self.layers = nn.ModuleList(
            LSTM(options.cells if layer else spec.width, options.cells) for layer in range(options.layers)
        )
        self.dropout = Dropout(options.dropout)

    def forward(self, frames: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
        # No mask: the output at a video's last frame does not depend on the padding after it.
        for layer in self.layers:
            frames, _ = layer(frames, None)
        return self.dropout(last_outputs(frames, num_frames))


@aggregator("bilstm")
class BidirectionalLSTM(nn.Module):
    """A bidirectional LSTM below another LSTM: the last *cell state* of the upper LSTM, float [B, cells].

    Each direction of the lower LSTM has half the cells. 2018: `Lstmbidirect`.
    """

    class Options(BaseOptions):
        """2018 flag: `lstm_cells` (`frame_shuffle` is the recipe's `training.frames: shuffle`).

        `dropout` acts on the result in training.
        """

        cells: int = Field(1024, ge=2, multiple_of=2)
        dropout: float = Field(0.0, ge=0.0, lt=1.0)

    def __init__(self, spec: FeatureSpec, options: Options):
        super().__init__()
        self.out_features = options.cells
        self.both = LSTM(spec.width, options.cells // 2, bidirectional=True)
        self.top = LSTM(options.cells, options.cells)
        self.dropout = Dropout(options.dropout)

    def forward(self, frames: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
        valid = padding_mask(num_frames, frames.shape[1])
        outputs, _ = self.both(frames, valid)
        return self.dropout(self.top(outputs, valid)[1])
