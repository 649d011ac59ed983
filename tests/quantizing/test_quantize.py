"""topgb model quantize as a function: what each method stores, at what error, from any file."""

import math

import numpy as np
import pytest
import torch

import topgb
from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec
from topgb.modelfile import Header, Member, read_model_file, write_model_file
from topgb.modelfile.encodings import decode
from topgb.modelfile.member import encode_member
from topgb.models import build_tagger, parse_model
from topgb.quantizing.quantize import METHODS, QuantizeOptions, large_tensors, quantize_file
from topgb.records.dataset import open_dataset
from topgb.records.synth import SynthOptions, write_synthetic

pytestmark = pytest.mark.numeric

SPEC = FeatureSpec("frame", (Feature("rgb", 40),))
CLASSES = 70
SMALL = 3000
# Of Gaussian weights: bits a weight at most, scales and codebooks included, and the relative error at most.
EXPECTED = {
    "float16": (16.0, 0.0003),
    "uniform": (10.0, 0.015),
    "quantile": (10.0, 0.06),
    "kmeans": (10.0, 0.0075),
    "int8": (8.6, 0.009),
    "int6": (6.3, 0.035),
    "int5": (5.3, 0.07),
    "int4": (4.3, 0.13),
    "int3": (3.3, 0.27),
    "entropy": (3.02, 0.22),
}


def _write(path, members=1):
    entries, tensors = {}, {}
    config = parse_model({"aggregator": "netvlad", "clusters": 8, "hidden": 64, "head": {"name": "moe", "mixtures": 2}})
    for index in range(members):
        torch.manual_seed(index)
        state = build_tagger(SPEC, CLASSES, config).state_dict()
        entry, tensor = encode_member(index, state)
        entries, tensors = entries | entry, tensors | tensor
    write_model_file(path, Header(SPEC, CLASSES, (Member(1 / members, config),) * members, entries), tensors)
    return path


@pytest.fixture
def model(tmp_path):
    return _write(tmp_path / "model.safetensors")


@pytest.fixture
def records(tmp_path):
    write_synthetic(tmp_path, SPEC, CLASSES, 150, SynthOptions(frames=(3, 9), seed=1))
    return open_dataset(str(tmp_path / "*.tfrecord"), SPEC, CLASSES, 300)


@pytest.mark.parametrize("method", METHODS)
def test_bytes_and_errors_are_what_the_method_promises(tmp_path, model, method):
    out = tmp_path / "q.safetensors"
    summaries = {s.name: s for s in quantize_file(model, out, QuantizeOptions(method, min_elements=SMALL))}
    (header, stored), (before, weights) = read_model_file(out), read_model_file(model)
    large = large_tensors(before, SMALL)
    assert 0 < len(large) < len(before.tensors)
    bits, error = EXPECTED[method]
    for name, entry in header.tensors.items():
        summary, values = summaries[name], decode(stored, entry, name)
        old = weights[name]
        if name not in large:
            assert torch.equal(values, old)
            assert (summary.bytes_after, summary.relative_error) == (summary.bytes_before, 0.0)
            continue
        assert summary.relative_error == pytest.approx(float((values - old).norm() / old.norm()), rel=1e-5)
        assert 0 < summary.relative_error < error
        assert summary.elements == old.numel()
        assert summary.bytes_before == old.nbytes
    after = sum(summaries[name].bytes_after for name in large)
    assert 8 * after / sum(summaries[name].elements for name in large) <= bits
    kept = sum(summaries[name].bytes_before for name in before.tensors if name not in large)
    # The rest of the file is its header.
    assert 0 < out.stat().st_size - after - kept < 16_000
    assert topgb.load(out).predict(np.zeros((2, 40), np.uint8)).shape == (CLASSES,)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("method", METHODS)
def test_the_same_work_gives_the_same_bytes(tmp_path, model, method):
    outs = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for out in outs:
        quantize_file(model, out, QuantizeOptions(method, min_elements=SMALL))
    assert outs[0].read_bytes() == outs[1].read_bytes()


@pytest.mark.parametrize("method", [method for method in METHODS if method != "entropy"])
def test_quantising_again_changes_nothing(tmp_path, model, method):
    once, twice = tmp_path / "once.safetensors", tmp_path / "twice.safetensors"
    quantize_file(model, once, QuantizeOptions(method, min_elements=SMALL))
    quantize_file(once, twice, QuantizeOptions(method, min_elements=SMALL))
    (header, first), (_, second) = read_model_file(once), read_model_file(twice)
    for name, entry in header.tensors.items():
        torch.testing.assert_close(decode(first, entry, name), decode(second, entry, name), rtol=1e-6, atol=1e-7)


def test_a_quantised_file_is_quantised_further_from_its_own_values(tmp_path, model):
    coarse, fine = tmp_path / "coarse.safetensors", tmp_path / "fine.safetensors"
    quantize_file(model, fine, QuantizeOptions("int8", min_elements=SMALL))
    summaries = quantize_file(fine, coarse, QuantizeOptions("int4", min_elements=SMALL))
    assert {s.encoding for s in summaries} == {"float32", "groups of 128, 4 bits"}
    assert coarse.stat().st_size < fine.stat().st_size


def test_every_member_of_an_ensemble_is_quantised(tmp_path):
    model, out = _write(tmp_path / "both.safetensors", members=2), tmp_path / "q.safetensors"
    quantize_file(model, out, QuantizeOptions("int8", min_elements=SMALL))
    header, _ = read_model_file(out)
    quantised = [name for name, entry in header.tensors.items() if entry.encoding == "int8"]
    assert {name.split(".")[1] for name in quantised} == {"0", "1"}
    assert [member.weight for member in header.members] == [0.5, 0.5]


@pytest.mark.parametrize("bits", [1.8, 2.5, 4.0, 6.0])
def test_entropy_coding_takes_the_bits_asked_for(tmp_path, model, records, bits):
    for calibration in (None, records):
        out = tmp_path / "q.safetensors"
        settings = QuantizeOptions("entropy", bits=bits, min_elements=SMALL)
        summaries = [s for s in quantize_file(model, out, settings, calibration, force=True) if s.elements > SMALL]
        taken = 8 * sum(s.bytes_after for s in summaries) / sum(s.elements for s in summaries)
        assert bits - 0.15 <= taken <= bits + 0.01


def test_calibration_keeps_predictions_nearer(tmp_path, model, records):
    exact = topgb.load(model)
    features = np.random.default_rng(0).integers(0, 256, (100, 9, 40), np.uint8)
    errors = []
    for calibration in (None, records):
        out = tmp_path / "q.safetensors"
        quantize_file(model, out, QuantizeOptions("entropy", bits=2.5, min_elements=SMALL), calibration, force=True)
        errors.append(np.square(topgb.load(out).predict(features) - exact.predict(features)).mean())
    assert errors[1] < errors[0]


def test_2018s_names_are_accepted():
    assert QuantizeOptions("quant_kmeans") == QuantizeOptions("kmeans")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "int7"}, "no method 'int7'; there are float16, uniform"),
        ({"method": "int4", "group": 100}, "group is 100; it must be a multiple of 8"),
        ({"method": "entropy", "bits": 1.0}, "bits is 1; it must be from 1.5 to 8"),
        ({"method": "entropy", "bits": math.nan}, "bits is nan"),
        ({"method": "int8", "min_elements": -1}, "min_elements is -1"),
    ],
)
def test_odd_settings_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        QuantizeOptions(**settings)


def test_what_cannot_be_done_is_refused(tmp_path, model, records):
    out = tmp_path / "q.safetensors"
    with pytest.raises(InputError, match="calibration is of the method entropy"):
        quantize_file(model, out, QuantizeOptions("int8"), records)
    header, stored = read_model_file(model)
    name = large_tensors(header, SMALL)[0]
    stored[name] = torch.full_like(stored[name], 1e6)
    write_model_file(model, header, stored, force=True)
    for method in ("float16", "int4"):
        with pytest.raises(InputError, match=f"{name} has values beyond float16's 65,504"):
            quantize_file(model, out, QuantizeOptions(method, min_elements=SMALL))
    assert not out.exists()
    out.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        quantize_file(model, out, QuantizeOptions("int8"))
    assert out.read_text() == "mine"


@pytest.mark.parametrize("value", [0.0, -2.5])
@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_of_one_value_is_kept(tmp_path, model, method, value):
    header, stored = read_model_file(model)
    for name in large_tensors(header, SMALL):
        stored[name] = torch.full_like(stored[name], value)
    write_model_file(model, header, stored, force=True)
    out = tmp_path / "q.safetensors"
    quantize_file(model, out, QuantizeOptions(method, min_elements=SMALL))
    header, stored = read_model_file(out)
    for name in large_tensors(header, SMALL):
        # A whole code of a scale in bfloat16 hits it to 8 bits; entropy-coded, as near as three bits come.
        tolerance = {"entropy": 0.5, "int8": 2**-7}.get(method, 1e-6)
        torch.testing.assert_close(
            decode(stored, header.tensors[name], name),
            torch.full(header.tensors[name].shape, value),
            rtol=tolerance,
            atol=0,
        )
