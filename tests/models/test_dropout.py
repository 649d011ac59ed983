"""Dropout drops in training and does nothing in evaluation."""

import pytest
import torch
from torch import nn

from topgb.models.dropout import Dropout


@pytest.mark.parametrize("compiled", [False, True])
def test_a_share_of_the_values_is_dropped_in_training_alone(compiled):
    torch.manual_seed(0)
    values, model = torch.ones(10_000), nn.Sequential(Dropout(0.75))
    dropped = torch.compile(model, backend="eager") if compiled else model
    for training in (True, False, True):
        model.train(training)
        found = dropped(values)
        assert set(found.tolist()) == ({0.0, 4.0} if training else {1.0})
        # Five standard errors of the share.
        expected = 0.75 if training else 0.0
        assert abs((found == 0).float().mean() - expected) < 5 * (0.75 * 0.25 / 10_000) ** 0.5
