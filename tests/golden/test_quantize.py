"""Codes and codebooks equal those that 2018's quantize.py wrote; k-means is no worse."""

import numpy as np
import pytest
import torch

from golden.cases import Case, cases
from topgb.features import Feature, FeatureSpec
from topgb.modelfile import Header, Member, TensorEncoding
from topgb.modelfile.encodings import values
from topgb.models import parse_model
from topgb.quantizing.quantize import MIN_ELEMENTS, QuantizeOptions, quantize

CASES = cases("quantize_*")
pytestmark = [
    pytest.mark.numeric,
    pytest.mark.skipif(not CASES, reason="the golden cases (TOPGB_GOLDEN or ../shared/golden) are absent"),
]


def _method(case: Case) -> str:
    return case.settings["transform"]


def _quantized(case: Case):
    """The case's variables as `quantize` makes them, by the 2018 name; arrays of the case."""
    arrays = case.arrays()
    before = {key.removeprefix("before|"): value for key, value in arrays.items() if key.startswith("before|")}
    unchanged = {key.removeprefix("unchanged|"): value for key, value in arrays.items() if key.startswith("unchanged|")}
    floats = {name: value for name, value in {**before, **unchanged}.items() if value.dtype == np.float32}
    entries = {f"members.0.{name}": TensorEncoding("float32", value.shape) for name, value in floats.items()}
    stored = {f"members.0.{name}": torch.from_numpy(value) for name, value in floats.items()}
    spec = FeatureSpec("video", (Feature("rgb", 1),))
    header = Header(
        spec, 1, (Member(1.0, parse_model({"aggregator": "average", "head": {"name": "logistic"}})),), entries
    )
    settings = QuantizeOptions(_method(case), min_elements=case.settings["min_elements"])
    encoded = quantize(header, stored, settings)
    return {name.removeprefix("members.0."): value for name, value in encoded.items()}, arrays, before


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_same_variables_are_quantised(case: Case):
    encoded, _, before = _quantized(case)
    assert encoded.keys() == before.keys()
    assert case.settings["min_elements"] == MIN_ELEMENTS


@pytest.mark.parametrize("case", [case for case in CASES if "kmeans" not in _method(case)], ids=str)
def test_codes_and_codebooks_equal_2018(case: Case):
    encoded, arrays, before = _quantized(case)
    for name in before:
        entry, parts = encoded[name]
        if _method(case) == "float16":
            np.testing.assert_array_equal(parts[""].numpy(), arrays[f"float16|{name}"])
            np.testing.assert_array_equal(values(parts, entry).numpy(), arrays[f"after|{name}"])
        else:
            np.testing.assert_array_equal(parts[".codes"].numpy(), arrays[f"codes|{name}"])
            np.testing.assert_array_equal(parts[".codebook"].numpy(), arrays[f"codebook|{name}"])


@pytest.mark.parametrize("case", [case for case in CASES if "kmeans" in _method(case)], ids=str)
def test_kmeans_error_is_no_greater_than_2018s(case: Case):
    encoded, arrays, before = _quantized(case)
    for name, weights in before.items():
        entry, parts = encoded[name]
        ours = np.square(values(parts, entry).numpy().astype(np.float64) - weights).sum()
        theirs = np.square(arrays[f"codebook|{name}"].astype(np.float64)[arrays[f"codes|{name}"]] - weights).sum()
        assert ours <= theirs
