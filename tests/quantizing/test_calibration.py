"""Calibration of models that keep what follows from their weights."""

from pathlib import Path

import pytest
import torch

from combining.small_models import model_file
from conftest import SMALL_CLASSES, SMALL_SPEC
from topgb.evaluation.predictions import batches
from topgb.modelfile import load
from topgb.models.readlinear import free_weights
from topgb.quantizing.calibration import calibrate
from topgb.records.dataset import open_dataset
from topgb.records.synth import SynthOptions, write_synthetic

pytestmark = pytest.mark.numeric

FOLDING = {
    "netvlad": {"clusters": 4, "hidden": 8, "gating": True},
    "gated_dbof": {"clusters": 8},
    "dbof": {"clusters": 8, "hidden": 4},
    "attention": {},
    "nextvlad": {"clusters": 4, "groups": 2},
}


@pytest.mark.parametrize("name", FOLDING)
def test_weights_folded_into_others_are_calibrated_all_the_same(tmp_path: Path, name: str):
    write_synthetic(tmp_path, SMALL_SPEC, SMALL_CLASSES, 24, SynthOptions(frames=(3, 9), seed=1))
    dataset = open_dataset(str(tmp_path / "*.tfrecord"), SMALL_SPEC, SMALL_CLASSES, 300)
    section = {"aggregator": name, **FOLDING[name], "head": "logistic"}
    path = model_file(tmp_path / "m.safetensors", section)
    folding, plain = load(path), load(path)
    free_weights(plain)
    matrices = [tensor for tensor, entry in folding.header.tensors.items() if len(entry.shape) == 2]
    for batch in batches(dataset):
        with torch.inference_mode():
            torch.testing.assert_close(folding.predict_batch(batch), plain.predict_batch(batch), rtol=1e-4, atol=1e-5)
    found, expected = calibrate(folding, dataset, matrices), calibrate(plain, dataset, matrices)
    assert set(found.factors) == set(expected.factors)
    assert found.sensitivity == pytest.approx(expected.sensitivity, rel=1e-3)
    assert all(value > 0 for value in expected.sensitivity.values())
