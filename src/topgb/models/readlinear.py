"""The linear layers whose weights a model reads itself."""

from torch import nn


class ReadLinear(nn.Linear):
    """An `nn.Linear` whose `weight` some module reads, instead of (or besides) calling it.

    A loaded model may hold the plain `nn.Linear`s of a quantised file as their codes, which can be called and not read
    (`topgb.modelfile.packed`); it leaves these as they are. Calculates and is saved as `nn.Linear`.
    """
