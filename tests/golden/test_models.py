"""Predictions equal those of the 2018 code, from the 2018 code's own variables."""

import numpy as np
import pytest
import torch

from golden.cases import Case, cases, variables
from topgb.features import YOUTUBE8M_FRAMES
from topgb.modelfile.from_2018 import config_from_flags, known_models
from topgb.modelfile.variables_2018 import state_from_variables
from topgb.models import build_tagger
from topgb.models.frontend import l2_normalize
from topgb.records.sampling import random_frames, random_sequence, sample_all

CASES = [case for case in cases("*") if "flags_all" in case.settings and case.settings["model"] in known_models()]

pytestmark = pytest.mark.skipif(not CASES, reason="the golden cases (TOPGB_GOLDEN or ../shared/golden) are absent")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_predictions_equal_2018(case: Case):
    arrays = case.arrays()
    config = config_from_flags(case.settings["model"], case.settings["flags_set"])
    tagger = build_tagger(YOUTUBE8M_FRAMES, case.settings["vocab"], config)
    tagger.load_state_dict(state_from_variables(tagger, variables(arrays, "var|")))
    tagger.eval()
    frames = torch.from_numpy(arrays["input"])
    num_frames = torch.from_numpy(arrays["num_frames"]).int()
    if frames.ndim == 2:
        frames, num_frames = frames[:, None], torch.ones_like(num_frames)
    frames = l2_normalize(frames, dim=2)
    if case.settings["sampling"] == "uniform":
        rows = zip(frames, arrays["uniform"], num_frames.tolist(), strict=True)
        frames = torch.stack([video[_sampled(case, uniform, count)] for video, uniform, count in rows])
        num_frames = torch.full_like(num_frames, frames.shape[1])
    with torch.inference_mode():
        pooled = tagger.aggregator(frames, num_frames)
        predictions = tagger(frames, num_frames)
    if pooled.shape == arrays["penultimate"].shape:  # FrameLevelLogisticModel has no vector before its output
        torch.testing.assert_close(pooled, torch.from_numpy(arrays["penultimate"]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(predictions, torch.from_numpy(arrays["predictions"]), atol=1e-5, rtol=0)


def _sampled(case: Case, uniform: np.ndarray, num_frames: int) -> np.ndarray:
    """The frames that the 2018 graph looked at, from the draw it made."""
    flags = {"sample_random_frames": True, "sample_all": False, **case.settings["flags_set"]}
    if not flags["sample_random_frames"]:
        return random_sequence(uniform, num_frames, flags["iterations"])
    return sample_all(uniform, num_frames) if flags["sample_all"] else random_frames(uniform, num_frames)
