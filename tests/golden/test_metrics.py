"""Metrics equal the 2018 code's, batch by batch and in the end."""

import numpy as np
import pytest
import torch

from golden.cases import Case, cases
from topgb.evaluation.metrics import Metrics

CASES = cases("metrics_*")

pytestmark = pytest.mark.skipif(not CASES, reason="the golden cases (TOPGB_GOLDEN or ../shared/golden) are absent")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_metrics_equal_2018(case: Case):
    arrays = case.arrays()
    # The order of tied scores is not defined, so a case with ties is held to a looser tolerance.
    tolerance = 2e-2 if case.settings["ties"] else 1e-6
    predictions, labels = torch.from_numpy(arrays["predictions"]), torch.from_numpy(arrays["labels"]).bool()
    parts = len(arrays["per_batch"])
    metrics = Metrics(case.settings["classes"])
    for index, (p, y) in enumerate(zip(_split(predictions, parts), _split(labels, parts), strict=True)):
        batch = Metrics(case.settings["classes"])
        batch.add(p, y)
        scores = batch.compute()
        expected = arrays["per_batch"][index]
        np.testing.assert_allclose([scores.hit_at_1, scores.perr, scores.gap], expected[[0, 1, 3]], atol=tolerance)
        metrics.merge(batch)
    scores = metrics.compute()
    for name in ("hit_at_1", "perr", "gap", "map"):
        golden = arrays["hit_at_one" if name == "hit_at_1" else name]
        assert getattr(scores, name) == pytest.approx(float(golden), abs=tolerance), name
    np.testing.assert_allclose(metrics.average_precisions(), arrays["aps"], atol=tolerance)


def _split(values: torch.Tensor, parts: int) -> list[torch.Tensor]:
    return [torch.from_numpy(part) for part in np.array_split(values.numpy(), parts)]
