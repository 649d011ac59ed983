"""Entropy coding: the fewest bits that can be reached are said, and every search ends."""

import math

import pytest
import torch

from combining.small_models import model_file
from quantizing.deadline import deadline
from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec
from topgb.modelfile import read_model_file, write_model_file
from topgb.modelfile.encodings import decode
from topgb.quantizing.calibration import Calibration
from topgb.quantizing.entropy import SLACK, check_reachable, entropy_coded, fewest_bits
from topgb.quantizing.quantize import QuantizeOptions, large_tensors, quantize_file
from topgb.quantizing.rounding import inverse_factor
from topgb.records.dataset import open_dataset
from topgb.records.synth import SynthOptions, write_synthetic

pytestmark = pytest.mark.numeric

CLASSES = 90
LEAST = 300
SHAPES = [(6000, 4), (2000, 13), (500, 1), (1, 20_000), (20_000,), (70, 300), (3, 4, 5, 600)]


@pytest.fixture(autouse=True)
def _in_time():
    with deadline(100):
        yield


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_fewest_bits_are_a_scale_for_each_row_and_a_bit_for_each_weight(shape):
    rows, columns = (1, shape[0]) if len(shape) == 1 else (shape[0], torch.Size(shape[1:]).numel())
    assert 16 / columns + 1 < fewest_bits([shape]) < 16 / columns + 1 + 300 / (rows * columns)


def test_the_fewest_bits_are_an_average_over_all_weights():
    assert fewest_bits([]) == 0
    one, two = (fewest_bits([shape]) for shape in SHAPES[:2])
    assert fewest_bits(SHAPES[:2]) == pytest.approx((24 * one + 26 * two) / 50)


@pytest.mark.parametrize("shape", [(6000, 4), (2000, 13)])
@pytest.mark.parametrize("more", [0.0, 0.02, 0.3])
def test_the_fewest_bits_can_be_reached_and_no_fewer(shape, more):
    tensors = {"members.0.x": _normal(*shape)}
    fewest = fewest_bits([shape])
    encoded = entropy_coded(tensors, fewest + more)
    taken = 8 * sum(part.nbytes for part in encoded["members.0.x"][1].values()) / tensors["members.0.x"].numel()
    assert fewest <= taken <= fewest + more + SLACK
    with pytest.raises(InputError, match=r"bits is .*, but these tensors take at least \d.\d+ bits a weight"):
        entropy_coded(tensors, fewest - 2 * SLACK)


def test_what_cannot_be_reached_names_what_can():
    with pytest.raises(InputError, match=r"^bits is 3, but .* at least 5.0\d bits .*; ask for 5.0\d or more$"):
        check_reachable(3.0, [(6000, 4)])
    with pytest.raises(InputError, match=r"at least 9.0\d bits .*; use another method, such as int4$"):
        check_reachable(8.0, [(6000, 2)])
    # A wide tensor beside it makes up for a narrow one, as bits are an average.
    check_reachable(3.0, [(6000, 4), (300, 300)])


def test_weights_that_no_step_rounds_to_zero_are_refused():
    greatest = torch.finfo(torch.float32).max
    wide = {"x": (torch.rand(40, 500, generator=torch.Generator().manual_seed(0)) * 2 - 1) * greatest}
    with pytest.raises(InputError, match=r"cannot be coded in 2 bits a weight, 8\.\d+ being the fewest found"):
        entropy_coded(wide, 2.0)


@pytest.mark.parametrize("shape", [(6000, 4), (2000, 13), (70, 300)])
def test_error_compensation_reaches_them_too(shape):
    inputs = _normal(50, shape[1])
    calibration = Calibration({"x": [inverse_factor(inputs.T @ inputs)]}, {"x": 1.0})
    for bits in (fewest_bits([shape]), fewest_bits([shape]) + 0.1, 6.0):
        _, parts = entropy_coded({"x": _normal(*shape)}, bits, calibration)["x"]
        assert 8 * sum(part.nbytes for part in parts.values()) / math.prod(shape) <= bits + SLACK


@pytest.fixture
def records(tmp_path):
    spec = FeatureSpec("frame", (Feature("rgb", 4),))
    write_synthetic(tmp_path, spec, CLASSES, 40, SynthOptions(frames=(3, 9), seed=1))
    return open_dataset(str(tmp_path / "*.tfrecord"), spec, CLASSES, 300)


@pytest.fixture
def narrow(tmp_path, records):
    """A model file whose large tensors are 4 columns by 270 and 180 rows."""
    section = {"aggregator": "average", "head": {"name": "moe", "mixtures": 2}}
    return model_file(tmp_path / "narrow.safetensors", section, features=records.spec, classes=CLASSES)


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_file_of_narrow_tensors_says_the_fewest_bits(tmp_path, narrow, records, calibrated):
    out, calibration = tmp_path / "q.safetensors", records if calibrated else None
    with pytest.raises(InputError, match=r"take at least (\d.\d+) bits .*; ask for \1 or more$") as refused:
        quantize_file(narrow, out, QuantizeOptions("entropy", 3.0, min_elements=LEAST), calibration)
    assert not out.exists()
    bits = float(str(refused.value).split()[-3])
    quantize_file(narrow, out, QuantizeOptions("entropy", bits, min_elements=LEAST), calibration)
    (header, stored), least = read_model_file(out), large_tensors(read_model_file(narrow)[0], LEAST)
    assert len(least) == 2
    for name in least:
        assert header.tensors[name].encoding == "int8_zlib"
        assert bool(decode(stored, header.tensors[name], name).isfinite().all())


@pytest.mark.parametrize("size", [1e30, 1e36, 1e-30, 1e-42, 0.0])
@pytest.mark.parametrize("calibrated", [False, True])
def test_odd_weights_in_a_model_end_in_finite_values(tmp_path, narrow, records, size, calibrated):
    _scale_largest_tensor(narrow, size)
    out = tmp_path / "q.safetensors"
    summaries = quantize_file(
        narrow, out, QuantizeOptions("entropy", 6.0, min_elements=LEAST), records if calibrated else None
    )
    header, stored = read_model_file(out)
    for name, entry in header.tensors.items():
        assert bool(decode(stored, entry, name).isfinite().all())
    assert all(0 <= summary.relative_error <= 1 for summary in summaries)


@pytest.mark.parametrize("calibrated", [False, True])
def test_weights_near_the_end_of_the_range_end_in_a_sentence(tmp_path, narrow, records, calibrated):
    _scale_largest_tensor(narrow, 3e38)
    settings, out = QuantizeOptions("entropy", 6.0, min_elements=LEAST), tmp_path / "q.safetensors"
    with pytest.raises(InputError, match="these tensors cannot be coded in 6 bits a weight"):
        quantize_file(narrow, out, settings, records if calibrated else None)
    assert not out.exists()


def _scale_largest_tensor(path, size: float) -> None:
    header, stored = read_model_file(path)
    name = max(large_tensors(header, LEAST), key=lambda name: stored[name].numel())
    changed = dict(stored) | {name: stored[name].clamp(-1, 1) * size}
    write_model_file(path, header, changed, force=True)
