"""Tensors that the makers did not foresee: every method ends, with finite values or one sentence."""

import math

import numpy as np
import pytest
import torch

from conftest import SMALL_CLASSES
from topgb.combining.shrink import ShrinkOptions, shrink
from topgb.errors import InputError
from topgb.evaluation.opening import open_for
from topgb.features import Feature, FeatureSpec
from topgb.modelfile import Header, Member, stored_model, write_model_file
from topgb.modelfile.encodings import values
from topgb.modelfile.member import encode_member
from topgb.models import build_tagger, parse_model
from topgb.quantizing.calibration import Calibration
from topgb.quantizing.quantize import METHODS, QuantizeOptions, fewest_bits, quantize, quantize_file
from topgb.quantizing.rounding import inverse_factor
from topgb.records.synth import SynthOptions, write_synthetic

pytestmark = pytest.mark.numeric

NARROW = FeatureSpec("frame", (Feature("rgb", 4),))


def narrow_model(path, classes=600, features=NARROW):
    """A model of few inputs and many outputs, as an expert of a few measurements has it."""
    config = parse_model({"aggregator": "average", "normalization": "none", "head": "logistic"})
    torch.manual_seed(0)
    entries, tensors = encode_member(0, build_tagger(features, classes, config).state_dict())
    write_model_file(path, Header(features, classes, (Member(1.0, config),), entries), tensors)
    return path


def header_of(tensor: torch.Tensor) -> tuple[Header, dict[str, torch.Tensor]]:
    config = parse_model({"aggregator": "average", "head": "logistic"})
    entries, tensors = encode_member(0, {"weight": tensor})
    return Header(NARROW, 3, (Member(1.0, config),), entries), tensors


@pytest.mark.parametrize(
    ("shape", "fewest"), [((6000, 4), 1 + 16 / 4), ((2000, 13), 1 + 16 / 13), ((512, 1024), 1 + 16 / 1024)]
)
def test_the_fewest_bits_are_those_of_zeros(shape, fewest):
    # zlib's own headers take a few bytes.
    assert fewest_bits([shape]) == pytest.approx(fewest, abs=0.01)


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize(("shape", "bits"), [((6000, 4), 3.0), ((2000, 13), 2.0), ((300, 1), 8.0)])
def test_bits_out_of_reach_are_named(shape, bits, calibrated):
    torch.manual_seed(0)
    header, tensors = header_of(torch.randn(shape))
    (name,) = header.tensors
    inputs = torch.randn(50, shape[1])
    calibration = Calibration({name: [inverse_factor(inputs.T @ inputs)]}, {name: 1.0}) if calibrated else None
    fewest = fewest_bits([shape])
    with pytest.raises(InputError, match=f"bits is {bits:g}, but these tensors take at least {fewest:.2f} bits"):
        quantize(header, tensors, QuantizeOptions("entropy", bits, min_elements=100), calibration)
    within = math.ceil(fewest * 10 + 1) / 10
    if within <= 8:
        encoded = quantize(header, tensors, QuantizeOptions("entropy", within, min_elements=100), calibration)
        taken = 8 * sum(part.nbytes for part in encoded[name][1].values()) / math.prod(shape)
        assert taken <= within + 0.01


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "kind", ["huge", "one huge", "tiny", "zeros", "constant", "one row", "one column", "subnormal", "zero rows"]
)
def test_every_method_ends_with_finite_values(kind, method):
    torch.manual_seed(0)
    tensor = torch.randn(64, 32)
    tensor = {
        "huge": tensor * 1e30,
        "one huge": tensor.index_put((torch.tensor(3), torch.tensor(4)), torch.tensor(1e30)),
        "tiny": tensor * 1e-30,
        "zeros": torch.zeros(64, 32),
        "constant": torch.full((64, 32), 0.37),
        "one row": tensor.reshape(1, -1),
        "one column": tensor.reshape(-1, 1),
        "subnormal": tensor * 1e-40,
        "zero rows": tensor * (torch.arange(64) % 2)[:, None],
    }[kind]
    header, tensors = header_of(tensor)
    settings = QuantizeOptions(method, 4.0, group=8, min_elements=100)
    halves = method in ("float16", "int6", "int5", "int4", "int3")
    if (halves and "huge" in kind) or (method == "entropy" and kind == "one column"):
        with pytest.raises(InputError, match="float16's 65,504|take at least 17"):
            quantize(header, tensors, settings)
        return
    encoded = quantize(header, tensors, settings)
    for entry, parts in encoded.values():
        decoded = values(parts, entry, "weight")
        assert decoded.isfinite().all()
        if method == "int8" and kind in ("huge", "constant", "one row", "zero rows"):
            torch.testing.assert_close(decoded, tensor, rtol=0, atol=float(tensor.abs().max()) / 120)


def test_shrinking_leaves_out_what_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setattr("topgb.combining.shrink.MIN_ELEMENTS", 100)
    path = narrow_model(tmp_path / "narrow.safetensors", SMALL_CLASSES * 5)
    write_synthetic(tmp_path / "data", NARROW, SMALL_CLASSES * 5, 60, SynthOptions(frames=(2, 4)))
    data = open_for(stored_model(path), f"{tmp_path}/data/*")
    found = shrink([path], 1_000_000, data, tmp_path / "out.safetensors", ShrinkOptions())
    assert {bits for choice in found.frontier for _, bits in choice.bits} <= {5.0, 7.0}

    narrower = FeatureSpec("frame", (Feature("rgb", 1),))
    path = narrow_model(tmp_path / "narrower.safetensors", 200, narrower)
    write_synthetic(tmp_path / "more", narrower, 200, 60, SynthOptions(frames=(2, 4)))
    with pytest.raises(InputError, match="no member can be stored in 7 bits a weight"):
        shrink([path], 1_000_000, open_for(stored_model(path), f"{tmp_path}/more/*"), tmp_path / "none.safetensors")


def test_the_command_says_the_fewest_bits(tmp_path):
    path = narrow_model(tmp_path / "narrow.safetensors", 6000)
    with pytest.raises(InputError, match=r"bits is 3, but these tensors take at least 5\.0"):
        quantize_file(path, tmp_path / "q.safetensors", QuantizeOptions("entropy", 3.0))
    assert not (tmp_path / "q.safetensors").exists()
    quantize_file(path, tmp_path / "q.safetensors", QuantizeOptions("entropy", 6.0))
    assert np.isfinite((tmp_path / "q.safetensors").stat().st_size)
