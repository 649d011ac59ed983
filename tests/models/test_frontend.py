"""The frontend: dequantised, blanked and normalised frames of the features that a model uses."""

import numpy as np
import pytest
import torch

from golden.cases import Case, cases
from topgb.features import Feature, FeatureSpec
from topgb.models import frontend, parse_model
from topgb.models.config import ModelConfig
from topgb.models.frontend import Frontend

pytestmark = pytest.mark.numeric

SPEC = FeatureSpec("frame", (Feature("rgb", 3), Feature("audio", 2)))


def _config(**options) -> ModelConfig:
    return parse_model({"aggregator": "average", "head": "logistic", **options})


@pytest.mark.parametrize("case", cases("dequantize*"), ids=str)
def test_dequantising_equals_2018(case: Case):
    arrays = case.arrays()
    spec = FeatureSpec("frame", (Feature("rgb", 256),))
    codes = torch.from_numpy(arrays["codes"])[None, None]
    frames, _ = Frontend(spec, _config(normalization="none"))(codes, torch.ones(1, dtype=torch.int32))
    np.testing.assert_allclose(frames[0, 0].numpy(), arrays["tf_float32"], rtol=0, atol=2.5e-7)


def test_frontend_blanks_padding_and_normalises_the_joined_vector():
    features = torch.tensor([[[0, 255, 0, 10, 20], [9, 9, 9, 9, 9]]], dtype=torch.uint8)
    frames, _ = Frontend(SPEC, _config())(features, torch.tensor([1], dtype=torch.int32))
    stored = features[0, 0].double() * 4 / 255 + 4 / 512 - 2
    torch.testing.assert_close(frames[0, 0].double(), stored / stored.norm(), atol=1e-6, rtol=0)
    assert frames[0, 1].tolist() == [0.0] * 5


def test_frontend_takes_named_features_and_the_first_frames():
    features = torch.arange(20, dtype=torch.uint8).view(1, 4, 5)
    chosen = Frontend(SPEC, _config(features=["audio"], normalization="none", max_frames=2))
    frames, counts = chosen(features, torch.tensor([4], dtype=torch.int32))
    assert frames.shape == (1, 2, 2)
    assert counts.tolist() == [2]
    torch.testing.assert_close(frames[0, 1], torch.tensor([8.0, 9.0]) * 4 / 255 + 4 / 512 - 2)


def test_frontend_leaves_floats_as_they_are():
    spec = FeatureSpec("frame", (Feature("mine", 2, "float32"), Feature("rgb", 1, range=(0.0, 1.0))))
    frames, _ = Frontend(spec, _config(normalization="none"))(
        torch.tensor([[[0.25, -3.0, 255.0]]]), torch.ones(1, dtype=torch.int32)
    )
    torch.testing.assert_close(frames[0, 0], torch.tensor([0.25, -3.0, 1.0 + 1 / 512]))


@pytest.mark.parametrize("normalization", ["l2", "none"])
@pytest.mark.parametrize("videos", [1, 3])
def test_under_autocast_frames_are_those_of_float32_rounded(normalization, videos, monkeypatch):
    monkeypatch.setattr(frontend, "BLOCK", 4)
    features = torch.randint(0, 256, (videos, 3, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    own, counts = Frontend(SPEC, _config(normalization=normalization)), torch.full((videos,), 2, dtype=torch.int32)
    expected, _ = own(features, counts)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = own(features, counts)
    # The same arithmetic, rounded in the end.
    assert torch.equal(found, expected.bfloat16())
