"""Raw float values to stored features, inside an exported graph."""

import torch
from torch import nn

from topgb.features import FeatureSpec


class RawValues(nn.Module):
    """Raw values float32 [B, T, D] to stored ones, float32 [B, T, D] with bytes as 0.0 to 255.0.

    Features stored in bytes are encoded with their own range as `given_arrays.to_stored` encodes them, in float64, so
    that equal values get equal codes; values outside the range get the nearest code, NaN stays NaN.
    """

    scale: torch.Tensor
    offset: torch.Tensor
    bytes: torch.Tensor

    def __init__(self, spec: FeatureSpec):
        super().__init__()
        sizes = torch.tensor([feature.size for feature in spec.features])
        for name, values in (
            ("scale", torch.tensor([feature.scale for feature in spec.features], dtype=torch.float64)),
            ("offset", torch.tensor([feature.offset for feature in spec.features], dtype=torch.float64)),
            ("bytes", torch.tensor([feature.dtype == "uint8" for feature in spec.features])),
        ):
            self.register_buffer(name, values.repeat_interleave(sizes))
        self.all_bytes = spec.all_bytes

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        codes = ((values.double() - self.offset) / self.scale).round().clamp(0.0, 255.0).float()
        return codes if self.all_bytes else torch.where(self.bytes, codes, values)
