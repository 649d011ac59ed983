"""Linear layers whose weights a model reads directly."""

from torch import nn


class ReadLinear(nn.Linear):
    """An `nn.Linear` whose `weight` some module reads, instead of calling the layer or besides.

    A loaded model may hold a plain `nn.Linear` of a quantised file as codes, which can be called but have no `weight`
    to read (`topgb.modelfile.packed`); a `ReadLinear` always keeps its weight. It computes and is saved as `nn.Linear`.
    """
