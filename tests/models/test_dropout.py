"""Dropout drops in training and does nothing in evaluation."""

import torch

from topgb.models.dropout import Dropout


def test_a_share_of_the_values_is_dropped_in_training_alone():
    torch.manual_seed(0)
    values, dropout = torch.ones(10_000), Dropout(0.75)
    found = dropout(values)
    assert set(found.tolist()) == {0.0, 4.0}
    # Five standard errors of the share.
    assert abs((found == 0).float().mean() - 0.75) < 5 * (0.75 * 0.25 / 10_000) ** 0.5
    assert dropout.eval()(values) is values
    assert set(dropout.train()(values).tolist()) == {0.0, 4.0}
