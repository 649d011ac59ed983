"""Linear layers whose weights a model reads directly."""

from torch import nn


class ReadLinear(nn.Linear):
    """An `nn.Linear` whose `weight` some module reads, whether or not it also calls the layer.

    A loaded model may replace a plain `nn.Linear` of a quantised file by a `PackedLinear` (`topgb.modelfile`),
    which can be called but has no `weight` to read. A `ReadLinear` is never replaced. It computes and is saved as
    `nn.Linear`.
    """
