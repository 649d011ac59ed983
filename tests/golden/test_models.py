"""Predictions equal those of the 2018 code, from the 2018 code's own variables."""

import pytest
import torch

from golden.cases import Case, cases, looked_at, variables
from topgb.features import YOUTUBE8M_FRAMES
from topgb.from2018.flags import config_from_flags, known_models
from topgb.from2018.variables import state_from_variables
from topgb.models import build_tagger

CASES = [case for case in cases("*") if "flags_all" in case.settings and case.settings["model"] in known_models()]

# Of values near 1, most of them behind batch norms that magnify a sum's rounding. In float64 a bag of frames differs by
# 8e-6 from 2018's float32, by 1.2e-5 from MKL's and by 2.1e-5 from oneDNN's, which adds products one by one.
ROUNDING = {"mkl": 1e-5, "onednn": 3e-5}

pytestmark = [
    pytest.mark.numeric,
    pytest.mark.skipif(not CASES, reason="the golden cases (TOPGB_GOLDEN or ../shared/golden) are absent"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_predictions_equal_2018(case: Case, library: str):
    arrays = case.arrays()
    config = config_from_flags(case.settings["model"], case.settings["flags_set"])
    tagger = build_tagger(YOUTUBE8M_FRAMES, case.settings["vocab"], config)
    tagger.load_state_dict(state_from_variables(tagger, variables(arrays, "var|")))
    tagger.eval()
    frames, num_frames = looked_at(case, arrays)
    with torch.inference_mode():
        pooled = tagger.aggregator(frames, num_frames)
        predictions = tagger(frames, num_frames)
    if pooled.shape == arrays["penultimate"].shape:  # FrameLevelLogisticModel has no vector before its output
        torch.testing.assert_close(pooled, torch.from_numpy(arrays["penultimate"]), atol=ROUNDING[library], rtol=1e-5)
    torch.testing.assert_close(predictions, torch.from_numpy(arrays["predictions"]), atol=1e-5, rtol=0)
