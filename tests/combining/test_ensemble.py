"""Several models in one file."""

import numpy as np
import pytest
import torch

from combining.small_models import AUDIO, DBOF, model_file, stored_as, videos
from conftest import SMALL_SPEC
from topgb import load
from topgb.combining.ensemble import checked_weights, ensemble
from topgb.errors import InputError
from topgb.features import FeatureSpec
from topgb.files import file_sha256
from topgb.modelfile import Header, Member, read_model_file, write_model_file
from topgb.quantizing.schemes import Scheme

pytestmark = pytest.mark.numeric


@pytest.fixture
def parts(tmp_path):
    return [model_file(tmp_path / f"{seed}", AUDIO if seed == 1 else DBOF, seed) for seed in range(3)]


def _mean(paths, weights):
    return sum(weight * load(path).predict(videos()) for path, weight in zip(paths, weights, strict=True))


@pytest.mark.parametrize("weights", [[0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3], [0.0, 0.4, 0.6], [0.33334] * 3])
def test_the_prediction_is_the_weighted_mean(parts, tmp_path, weights):
    header = ensemble(parts, weights, tmp_path / "out")
    np.testing.assert_allclose(
        load(tmp_path / "out").predict(videos()), _mean(parts, np.array(weights) / sum(weights)), atol=1e-6
    )
    assert sum(member.weight for member in header.members) == pytest.approx(1.0, abs=1e-12)
    assert len(header.members) == sum(weight > 0 for weight in weights)


def test_weights_are_equal_by_default(parts, tmp_path):
    header = ensemble(parts, None, tmp_path / "out")
    assert [member.weight for member in header.members] == [1 / 3] * 3


@pytest.mark.parametrize("kind", ["float16", "uniform", "kmeans", "int8", "groups", "entropy"])
def test_tensors_are_carried_over_as_they_lie(parts, tmp_path, kind):
    scheme = {"groups": Scheme("groups", 4, 16), "entropy": Scheme("entropy", step=0.02)}.get(kind, Scheme(kind))
    small = stored_as(parts[1], tmp_path / "small", scheme)
    header = ensemble([parts[0], small], [0.5, 0.5], tmp_path / "out")
    np.testing.assert_allclose(
        load(tmp_path / "out").predict(videos()), _mean([parts[0], small], [0.5, 0.5]), atol=1e-6
    )
    _, merged = read_model_file(tmp_path / "out")
    old, stored = read_model_file(small)
    assert {name: header.tensors[name.replace("members.0.", "members.1.")] for name in old.tensors} == old.tensors
    for name, tensor in stored.items():
        assert torch.equal(merged[name.replace("members.0.", "members.1.")], tensor)


def test_ensembles_are_ensembled(parts, tmp_path):
    ensemble(parts[:2], [0.6, 0.4], tmp_path / "inner")
    ensemble([tmp_path / "inner", parts[2]], [0.5, 0.5], tmp_path / "outer")
    header = ensemble([parts[1], tmp_path / "outer"], [0.1, 0.9], tmp_path / "out")
    assert [member.weight for member in header.members] == pytest.approx([0.1, 0.27, 0.18, 0.45])
    np.testing.assert_allclose(
        load(tmp_path / "out").predict(videos()),
        _mean([parts[i] for i in (1, 0, 1, 2)], [0.1, 0.27, 0.18, 0.45]),
        atol=1e-6,
    )


def test_members_off_one_by_what_the_format_allows_stay_within_it(parts, tmp_path):
    header, stored = read_model_file(parts[0])
    off = Header(header.features, header.classes, (Member(0.9999, header.members[0].model),), header.tensors)
    for name in "xy":
        write_model_file(tmp_path / name, off, stored)
    merged = ensemble([tmp_path / "x", tmp_path / "y"], [0.7, 0.3], tmp_path / "out")
    assert [member.weight for member in merged.members] == pytest.approx([0.7, 0.3])


def test_the_origin_names_parents_and_does_not_grow(parts, tmp_path):
    first, second = tmp_path / "x", tmp_path / "y"
    ensemble([parts[0], parts[2]], [0.6, 0.4], first, scores={"gain": 0.002})
    header = ensemble([first, parts[1]], [0.6, 0.4], second)
    assert header.origin["operation"] == "ensemble"
    assert header.origin["parents"] == [
        {"sha256": file_sha256(first), "weight": 0.6},
        {"sha256": file_sha256(parts[1]), "weight": 0.4},
    ]
    assert "scores" not in header.origin
    assert read_model_file(first)[0].origin["scores"] == {"gain": 0.002}


def test_the_same_work_gives_the_same_bytes(parts, tmp_path):
    for name in "xy":
        ensemble(parts, [0.5, 0.3, 0.2], tmp_path / name)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_names_are_taken_from_the_file_that_has_them(tmp_path):
    names = tuple("abcdefghijkl")
    a, b = model_file(tmp_path / "a"), model_file(tmp_path / "b", seed=1, class_names=names)
    assert ensemble([a, b], None, tmp_path / "out").class_names == names
    c = model_file(tmp_path / "c", seed=2, class_names=(*names[:5], "F", *names[6:]))
    with pytest.raises(InputError, match="name of class 5 is f in .*/b, F in .*/c"):
        ensemble([a, b, c], None, tmp_path / "other")


def test_other_features_and_classes_are_refused(parts, tmp_path):
    video = model_file(tmp_path / "video", features=FeatureSpec("video", SMALL_SPEC.features))
    with pytest.raises(InputError, match="level is frame in .*, video in .*"):
        ensemble([parts[0], video], None, tmp_path / "out")
    fewer = model_file(tmp_path / "fewer", classes=5)
    with pytest.raises(InputError, match="classes is 12 in .*, 5 in .*"):
        ensemble([parts[0], fewer], None, tmp_path / "out")


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([0.5, 0.5], "2 weights for 3 models"),
        ([0.5, 0.3, 0.1], "sum to 0.9, not 1"),
        ([0.5, 0.3, 0.2002], "sum to 1.0002, not 1"),
        ([0.7, 0.5, -0.2], "weight -0.2 is not a number from 0 to 1"),
        ([0.7, 0.3, float("nan")], "weight nan is not"),
        ([float("inf"), 0.3, 0.1], "weight inf is not"),
    ],
)
def test_weights_that_make_no_mean_are_refused(parts, tmp_path, weights, words):
    with pytest.raises(InputError, match=words):
        ensemble(parts, weights, tmp_path / "out")


def test_weights_within_the_tolerance_are_scaled():
    assert checked_weights([0.3333, 0.3333, 0.3333], 3) == pytest.approx([1 / 3] * 3)
    assert checked_weights([0.7, 0.3], 2) == [0.7, 0.3]


def test_one_model_and_an_existing_output_are_refused(parts, tmp_path):
    with pytest.raises(InputError, match="only 1 model is named; to make an ensemble takes two at least"):
        ensemble(parts[:1], [1.0], tmp_path / "out")
    with pytest.raises(InputError, match="force=True"):
        ensemble(parts, None, parts[0])


def test_too_many_members_are_refused(parts, tmp_path, monkeypatch):
    monkeypatch.setattr("topgb.combining.ensemble.MOST_MEMBERS", 2)
    with pytest.raises(InputError, match="3 members together; a file may have 2"):
        ensemble(parts, None, tmp_path / "out")
