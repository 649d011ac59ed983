"""The report's table of classes."""

import torch

from topgb.evaluation.metrics import Metrics
from topgb.evaluation.report import Report, ReportedModel, write_report


def test_names_stand_beside_class_numbers(tmp_path):
    metrics = Metrics(4)
    metrics.add(torch.eye(4) * 0.8 + 0.1, torch.eye(4, dtype=torch.bool))
    model = ReportedModel("m", 1, metrics)
    curves = [{"step": 1, "loss": 1.0, "gap": 0.5}]
    for name, names in (("plain", None), ("named", ["a", "b <i>", "c", "d"])):
        write_report(tmp_path / name, Report("t", [], curves, [model], class_names=names))
    assert "<td>1</td><td>1</td>" in (tmp_path / "plain").read_text()
    assert "<td>1 b &lt;i&gt;</td><td>1</td>" in (tmp_path / "named").read_text()
