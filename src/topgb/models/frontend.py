"""Turn stored features into the frames a model sees: dequantise, set padding to 0, normalise."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import nn

from topgb.features import FeatureSpec
from topgb.models.config import ModelConfig
from topgb.models.padding import padding_mask
from topgb.models.precision import computing_dtype

# 2018: tf.nn.l2_normalize's default, under the square root.
L2_EPSILON = 1e-12
# Frames dequantised and normalised at once on a CPU: a few hundred KB, which stay in the cache.
BLOCK = 128

_most_padded = ContextVar[int | None]("most_padded", default=None)


@contextmanager
def padding_no_further(frames: int) -> Iterator[None]:
    """A block in which this thread pads videos to so many frames at most; they must have no more themselves."""
    token = _most_padded.set(frames)
    try:
        yield
    finally:
        _most_padded.reset(token)


def l2_normalize(values: torch.Tensor, dim: int) -> torch.Tensor:
    """`values` scaled to length 1 along `dim`; a zero vector stays zero (`tf.nn.l2_normalize`)."""
    return values * values.square().sum(dim, keepdim=True).clamp_min(L2_EPSILON).rsqrt()


def own_memory(values: torch.Tensor) -> torch.Tensor | None:
    """The `out` of an operation on `values` that nothing else reads: these, if they are float32 in a prediction."""
    reads = torch.is_grad_enabled() or torch.compiler.is_compiling()
    return None if reads or values.dtype != torch.float32 else values


def normalize_clusters(descriptor: torch.Tensor) -> torch.Tensor:
    """Descriptors [B, D, K] to [B, D · K]: scale each cluster's D values to length 1, then each video's D · K values.

    The result equals two calls of `l2_normalize`, with one pass over the descriptors instead of two: the lengths that
    the first call finds also give the divisor of the second. In prediction it may lie in the memory of `descriptor`.
    """
    squares = descriptor.square().sum(1, keepdim=True)
    bounded = squares.clamp_min(L2_EPSILON)
    total = (squares / bounded).sum(2, keepdim=True).clamp_min(L2_EPSILON)
    return torch.mul(descriptor, (bounded * total).rsqrt(), out=own_memory(descriptor)).flatten(1)


class Frontend(nn.Module):
    """Stored features uint8 or float32 [B, T, D] to (frames float [B, T', D'], num_frames int [B]).

    D' is the width of the features the model uses (`spec`). A byte q becomes q·scale + offset (q·4/255 + 4/512 - 2
    in YouTube-8M), padding becomes 0, and with normalisation `l2` each frame's joined vector gets length 1. Frames
    past `max_frames` are cut off. T' is min(T, `max_frames`), or always `max_frames` with `pads_to_max_frames`.
    """

    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(self, data_spec: FeatureSpec, config: ModelConfig, pads_to_max_frames: bool = False):
        super().__init__()
        self.pads_to_max_frames = pads_to_max_frames
        self.spec = data_spec if config.features is None else data_spec.select(config.features)
        self.uses_all = self.spec == data_spec
        self.stores_values = self.spec.all_floats
        self.normalize = config.normalization == "l2"
        self.max_frames = config.max_frames
        self.register_buffer("scale", _by_column(self.spec, [f.scale for f in self.spec.features]), persistent=False)
        self.register_buffer("offset", _by_column(self.spec, [f.offset for f in self.spec.features]), persistent=False)
        self._columns = [data_spec.columns(feature.name) for feature in self.spec.features]

    def forward(self, features: torch.Tensor, num_frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # An exported graph cannot compare lengths; there the padding mask blanks frames past `max_frames`.
        exporting = torch.compiler.is_exporting()
        longer = not exporting and features.shape[1] > self.max_frames
        if longer:
            features = features[:, : self.max_frames]
        if longer or exporting:
            num_frames = num_frames.clamp_max(self.max_frames)
        if not self.uses_all:
            features = torch.cat([features[:, :, columns] for columns in self._columns], dim=2)
        frames = self._dequantized(features)
        valid = padding_mask(num_frames, frames.shape[1])
        if valid is not None:
            frames.masked_fill_(~valid[:, :, None], 0.0)
        if self.pads_to_max_frames:
            most = self._frames_to_pad_to()
            missing = most if exporting else most - frames.shape[1]
            frames = F.pad(frames, (0, 0, 0, missing))[:, :most]
        return frames, num_frames

    def _frames_to_pad_to(self) -> int:
        bound = None if torch.compiler.is_compiling() else _most_padded.get()
        return self.max_frames if bound is None else min(bound, self.max_frames)

    def _dequantized(self, features: torch.Tensor) -> torch.Tensor:
        """Dequantised frames [B, T, D'], each scaled to length 1 if the model normalises.

        On a CPU under autocast they are rounded to its dtype, into which all models convert them.
        """
        # In place: nothing here is trained, and a batch of full-length frames as floats is large.
        if torch.compiler.is_compiling() or features.device.type != "cpu":
            return self._values(features.to(torch.float32, copy=True))
        dtype = computing_dtype(features.device)
        if len(features) * features.shape[1] <= BLOCK:
            # Few frames take hardly longer than to divide them into blocks.
            return self._values(features.to(torch.float32, copy=True)).to(dtype)
        frames = torch.empty(features.shape, dtype=dtype)
        rows, stored = (tensor.reshape(-1, features.shape[2]) for tensor in (frames, features))
        block = None if dtype == torch.float32 else torch.empty(BLOCK, rows.shape[1])
        for own, given in zip(rows.split(BLOCK), stored.split(BLOCK), strict=True):
            values = self._values((own if block is None else block[: len(own)]).copy_(given))
            if block is not None:
                own.copy_(values)
        return frames

    def _values(self, frames: torch.Tensor) -> torch.Tensor:
        """Stored values float32 [..., D'] dequantised and normalised, in their own memory."""
        if not self.stores_values:
            torch.addcmul(self.offset, frames, self.scale, out=frames)
        return _to_length_1(frames) if self.normalize else frames


def _by_column(spec: FeatureSpec, values: list[float]) -> torch.Tensor:
    """Each feature's value repeated over the feature's columns, float32 [D]."""
    columns = torch.empty(spec.width, dtype=torch.float32)
    for own, value in zip(columns.split([feature.size for feature in spec.features]), values, strict=True):
        own.fill_(value)
    return columns


def _to_length_1(frames: torch.Tensor) -> torch.Tensor:
    length = torch.linalg.vector_norm(frames, dim=-1, keepdim=True)
    return frames.div_(length.clamp_min_(L2_EPSILON**0.5))
