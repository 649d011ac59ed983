"""How near results must lie that are computed in another order; where the order is the same, tests ask for equal bits.

The same order takes the same arithmetic on the same layout, in one process and on one thread: matrix products begin
and end their vector loops where a tensor's address and a batch's rows have them do so, and round accordingly.
"""

import re

import numpy as np
import pytest

# Probabilities of the same weights, some of them mapped from a file and thus at other addresses, or of a video in
# another batch, or with batch norms folded: they differ by some of float32's last digits, of which one is 6e-8 just
# below 1. Random weights make logits of ten and more, and so lose another digit.
PROBABILITY = 3e-6
# Figures of such probabilities. Two pairs of nearly the same score may change places: that moves a GAP of a hundred
# labels by 0.01 / (rank + 1), and pairs so near each other are rarely among the first.
FIGURE = 1e-3


def assert_same_predictions(found: np.ndarray, expected: np.ndarray) -> None:
    """Probabilities [B, V] of the same weights, computed in whatever order."""
    np.testing.assert_allclose(found, expected, atol=PROBABILITY, rtol=0)


def assert_same_words(found: str, expected: str) -> None:
    """What a command prints about the same weights: the same words, and figures as near as `FIGURE`."""
    number = re.compile(r"[-+]?\d[\d,]*(\.\d+)?")
    (words, figures), (expected_words, expected_figures) = (
        (number.sub("#", text).split(), [float(match[0].replace(",", "")) for match in number.finditer(text)])
        for text in (found, expected)
    )
    assert words == expected_words
    assert figures == pytest.approx(expected_figures, abs=FIGURE, rel=FIGURE)
