"""Metrics equal the 2018 code's, batch by batch and in the end."""

import numpy as np
import pytest
import torch

from golden.cases import Case, cases
from golden.ties import bounds
from topgb.evaluation.metrics import Metrics

CASES = cases("metrics_*")
ROUNDING = 1e-6

pytestmark = [
    pytest.mark.numeric,
    pytest.mark.skipif(not CASES, reason="the golden cases (TOPGB_GOLDEN or ../shared/golden) are absent"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_metrics_equal_2018(case: Case):
    """The order of tied scores is not defined: 2018's figures and ours lie between the worst and the best order's."""
    arrays = case.arrays()
    predictions, labels = arrays["predictions"], arrays["labels"].astype(bool)
    parts = len(arrays["per_batch"])
    metrics = Metrics(case.settings["classes"])
    batches = zip(np.array_split(predictions, parts), np.array_split(labels, parts), strict=True)
    for (p, y), golden in zip(batches, arrays["per_batch"], strict=True):
        batch = Metrics(case.settings["classes"])
        batch.add(torch.from_numpy(p), torch.from_numpy(y))
        held = bounds(p, y)
        for name, figure in zip(("hit_at_1", "perr", "gap"), golden[[0, 1, 3]], strict=True):
            held[name].assert_holds(figure, f"{name} of 2018", ROUNDING)
            held[name].assert_holds(getattr(batch.compute(), name), name, ROUNDING)
        metrics.merge(batch)
    ours = {**metrics.compute().to_json(), "aps": metrics.average_precisions()}
    for name, bound in bounds(predictions, labels).items():
        bound.assert_holds(arrays["hit_at_one" if name == "hit_at_1" else name], f"{name} of 2018", ROUNDING)
        bound.assert_holds(ours[name], name, ROUNDING)
