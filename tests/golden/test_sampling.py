"""The samplers give exactly the 2018 code's frames from its own uniform draws."""

import numpy as np
import pytest

from golden.cases import Case, cases
from topgb.records.sampling import random_frames, random_sequence, sample_all, shuffle_frames

CASES = cases("sample_*") + cases("shuffle_*")

pytestmark = [
    pytest.mark.numeric,
    pytest.mark.skipif(not CASES, reason="the golden cases (TOPGB_GOLDEN or ../shared/golden) are absent"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sampled_frames_equal_2018(case: Case):
    arrays, settings = case.arrays(), case.settings
    for video, num_frames in enumerate(arrays["num_frames"].tolist()):
        uniform = arrays["uniform"][video]
        if settings["function"] == "shuffle":
            # Padding stays where it is.
            rows = np.arange(arrays["input"].shape[1])
            rows[:num_frames] = shuffle_frames(uniform[:num_frames], num_frames)
        elif settings["function"] == "SampleRandomSequence":
            rows = random_sequence(uniform, num_frames, settings["num_samples"])
        elif settings["flags"].get("sample_all"):
            rows = sample_all(uniform, num_frames)
        else:
            rows = random_frames(uniform, num_frames)
        np.testing.assert_array_equal(arrays["input"][video][rows], arrays["output"][video])
