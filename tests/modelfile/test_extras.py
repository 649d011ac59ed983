"""Extras of a model file: what is unknown is kept, what is malformed refused, and older files stay as they were."""

import json
from dataclasses import replace

import pytest

from combining.small_models import model_file
from conftest import SMALL_CLASSES
from topgb.errors import InputError
from topgb.extractor_identity import digest
from topgb.modelfile import Header, read_model_file, write_model_file
from topgb.modelfile.card import model_card
from topgb.modelfile.describe import describe
from topgb.modelfile.export.exporting import description
from topgb.quantizing.quantize import QuantizeOptions, quantize_file

THRESHOLDS = {"goal": "f1", "common": 0.5, "values": [0.25] * SMALL_CLASSES, "more": 1}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return model_file(tmp_path_factory.mktemp("extras") / "m.safetensors")


def test_unknown_extras_are_kept_by_what_changes_no_model(plain, tmp_path):
    header, tensors = read_model_file(plain)
    extras = {"thresholds": THRESHOLDS, "from the future": {"a": [1, None]}}
    path, out = tmp_path / "m.safetensors", tmp_path / "q.safetensors"
    write_model_file(path, replace(header, extras=extras), tensors)
    quantize_file(path, out, QuantizeOptions("int8", min_elements=10))
    assert read_model_file(out)[0].extras == extras
    assert read_model_file(out)[0].thresholds.tolist() == [0.25] * SMALL_CLASSES


def test_a_file_without_extras_is_of_the_version_that_it_was(plain):
    value = json.loads(read_model_file(plain)[0].dumps())
    assert value["version"] == 1
    assert "extras" not in value


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"values": [0.5]}, "1 thresholds for 12 classes"),
        ({"values": [1.5] * SMALL_CLASSES}, "'extras.thresholds.values.0' is 1.5"),
        ({"values": "x"}, "'extras.thresholds.values' is 'x'"),
        ({"common": None}, "'extras.thresholds.common' is None"),
    ],
)
def test_malformed_thresholds_are_refused(plain, change, said):
    header = replace(read_model_file(plain)[0], extras={"thresholds": {**THRESHOLDS, **change}})
    with pytest.raises(InputError, match=said):
        Header.loads(header.dumps(), "m")
    with pytest.raises(InputError, match="'extras.thresholds' is 3: input should be a mapping"):
        Header.loads(replace(header, extras={"thresholds": 3}).dumps(), "m")


EXTRACTOR = {"name": "default", "image": {"net": "lite0"}}


def test_the_extractor_is_shown_and_exported(plain, tmp_path):
    header, tensors = read_model_file(plain)
    header = replace(header, extras={"extractor": EXTRACTOR})
    assert f"features made by the extractor default ({digest(EXTRACTOR)[:8]})" in describe(header, tensors, 1)
    assert f"default ({digest(EXTRACTOR)[:8]})" in model_card(header, "m", "m.safetensors")
    assert json.loads(description(header))["extractor"] == EXTRACTOR
    assert Header.loads(header.dumps(), "m").extractor == EXTRACTOR


@pytest.mark.parametrize("value", [3, "default", [], {}, None])
def test_a_malformed_extractor_is_refused(plain, value):
    header = replace(read_model_file(plain)[0], extras={"extractor": value})
    with pytest.raises(InputError, match="malformed: 'extractor' is not a mapping"):
        Header.loads(header.dumps(), "m")


@pytest.mark.parametrize(
    "entry",
    [
        5,
        {},
        {"frames": 4},
        {"frames": 5, "context": -1},
        {"frames": 5, "whole": "all"},
        {"frames": 5, "classes": []},
        {"frames": 5, "classes": [SMALL_CLASSES]},
        {"frames": 5, "classes": [-1]},
    ],
)
def test_an_entry_of_segments_that_makes_no_sense_is_refused(entry, tmp_path):
    model = model_file(tmp_path / "m.safetensors")
    header, _ = read_model_file(model)
    with pytest.raises(InputError, match=r"extras\.segments"):
        Header.loads(replace(header, extras={"segments": entry}).dumps(), "m")
    assert Header.loads(replace(header, extras={"segments": {"frames": 5, "later": 1}}).dumps(), "m").extras
