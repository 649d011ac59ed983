"""`export --input float`: raw values get the codes that `topgb.Model.tag` gives them, inside the file."""

import json

import numpy as np
import pytest
import torch

import topgb
from export_both import export_both, run_exported
from topgb.features import Feature, FeatureSpec
from topgb.modelfile import Header, Member, write_model_file
from topgb.modelfile.export.raw_values import RawValues
from topgb.modelfile.given_arrays import to_stored
from topgb.modelfile.member import encode_member
from topgb.models import build_tagger, parse_model

pytestmark = pytest.mark.numeric

CLASSES = 9
# Bytes of two ranges, and floats.
SPEC = FeatureSpec("frame", (Feature("a", 5), Feature("b", 3, "float32"), Feature("c", 4, range=(-1.0, 3.5))))
BYTES = FeatureSpec("frame", (Feature("a", 5), Feature("c", 7, range=(-1.0, 3.5))))
COUNTS = np.array([4, 1, 3])


def _values(spec: FeatureSpec, videos: int = 3, frames: int = 4) -> np.ndarray:
    """Raw values inside and outside the ranges, on codes and halfway between them."""
    numbers = np.random.default_rng(0)
    values = numbers.normal(scale=2.0, size=(videos, frames, spec.width)).astype(np.float32)
    for feature in spec.features:
        columns = values[:, :, spec.columns(feature.name)]
        halves = feature.offset + feature.scale * numbers.integers(-2, 513, columns.shape) / 2
        columns[...] = np.where(numbers.random(columns.shape) < 0.5, halves, columns)
    return values


@pytest.fixture(scope="module", params=["mixed", "bytes"])
def made(request, tmp_path_factory):
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    spec = SPEC if request.param == "mixed" else BYTES
    torch.manual_seed(0)
    tagger = build_tagger(spec, CLASSES, parse_model({"aggregator": "average", "head": "logistic"}))
    entries, tensors = encode_member(0, tagger.state_dict())
    path = tmp_path_factory.mktemp("raw") / "m.safetensors"
    write_model_file(path, Header(spec, CLASSES, (Member(1.0, tagger.config),), entries), tensors)
    export_both(path, "float")
    return path


@pytest.mark.parametrize("spec", [SPEC, BYTES], ids=["mixed", "bytes"])
def test_codes_are_those_of_tag(spec):
    values = _values(spec, 50)
    expected = np.stack(to_stored(values, spec, 100).stored)
    found = RawValues(spec)(torch.from_numpy(values)).numpy()
    np.testing.assert_array_equal(found, expected.astype(np.float32))


@pytest.mark.filterwarnings("ignore:.*lie outside")
@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_probabilities_are_those_of_the_model(made, to):
    model = topgb.load(made)
    values = _values(model.features)
    expected = model.predict(values, COUNTS)
    np.testing.assert_allclose(run_exported(made, to, values, COUNTS), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_nan_makes_its_own_video_nan_and_is_not_seen_in_padding(made, to):
    values = _values(topgb.load(made).features)
    clean = run_exported(made, to, values, COUNTS)
    values[1, 2:] = np.nan
    np.testing.assert_array_equal(run_exported(made, to, values, COUNTS), clean)
    values[2, 1, 0] = np.nan
    found = run_exported(made, to, values, COUNTS)
    assert np.isnan(found[2]).all()
    np.testing.assert_array_equal(found[:2], clean[:2])


def test_the_files_say_what_they_take(made):
    import onnx

    told = {entry.key: entry.value for entry in onnx.load(made.with_suffix(".onnx")).metadata_props}["topgb"]
    extra = {"topgb": ""}
    torch.export.load(made.with_suffix(".pt2"), extra_files=extra)
    assert json.loads(told)["input"] == json.loads(extra["topgb"])["input"] == "float"


def test_the_call_and_the_command_take_raw_values(made, tmp_path):
    out = topgb.export(made, tmp_path / "m.pt2", to="pt2", input="float")
    values = _values(topgb.load(made).features)
    program = torch.export.load(out).module()
    found = program(torch.from_numpy(values), torch.from_numpy(COUNTS)).detach().numpy()
    np.testing.assert_array_equal(found, run_exported(made, "pt2", values, COUNTS))
    with pytest.raises(topgb.InputError, match=r"input='raw'.*stored.*float"):
        topgb.export(made, tmp_path / "x", to="pt2", input="raw")
