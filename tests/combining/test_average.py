"""The mean of models' weights."""

from pathlib import Path

import pytest
import torch

from combining.small_models import AUDIO, DBOF, model_file, stored_as, videos
from conftest import SMALL_SPEC
from topgb import load
from topgb.combining.average import average
from topgb.combining.ensemble import ensemble
from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec
from topgb.files import file_sha256
from topgb.modelfile import read_model_file, write_model_file
from topgb.modelfile.encodings import decode
from topgb.quantizing.schemes import Scheme

pytestmark = pytest.mark.numeric


def _values(path: Path) -> dict[str, torch.Tensor]:
    header, stored = read_model_file(path)
    return {name: decode(stored, entry, name) for name, entry in header.tensors.items()}


def test_every_tensor_is_the_mean_statistics_included(tmp_path):
    paths = [model_file(tmp_path / f"{seed}.safetensors", seed=seed) for seed in range(3)]
    out = tmp_path / "mean.safetensors"
    header = average(paths, out)
    parts = [_values(path) for path in paths]
    mean = _values(out)
    assert any(name.endswith("running_var") for name in mean)
    for name, tensor in mean.items():
        expected = torch.stack([part[name].double() for part in parts]).mean(0)
        torch.testing.assert_close(tensor, expected.float(), rtol=1e-7, atol=0)
    assert {entry.encoding for entry in header.tensors.values()} == {"float32"}
    assert header.origin["operation"] == "average"
    assert header.origin["parents"] == [{"sha256": file_sha256(path)} for path in paths]
    assert load(out).predict(videos()).shape == (9, 12)


def test_the_average_of_a_model_with_itself_is_the_model(tmp_path):
    path = model_file(tmp_path / "a.safetensors")
    average([path, path], tmp_path / "b.safetensors")
    one, same = _values(path), _values(tmp_path / "b.safetensors")
    assert one.keys() == same.keys()
    assert all(torch.equal(one[name], same[name]) for name in one)


@pytest.mark.parametrize("kind", ["float16", "int8", "kmeans"])
def test_models_of_any_encoding_are_averaged_by_their_values(tmp_path, kind):
    plain = model_file(tmp_path / "a.safetensors")
    small = stored_as(model_file(tmp_path / "b.safetensors", seed=1), tmp_path / "c.safetensors", Scheme(kind))
    average([small, plain], tmp_path / "mean.safetensors")
    a, b, mean = (_values(path) for path in (plain, small, tmp_path / "mean.safetensors"))
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, (a[name] + b[name]) / 2, rtol=1e-6, atol=1e-7)


def test_ensembles_of_one_shape_are_averaged_member_by_member(tmp_path):
    parts = [model_file(tmp_path / f"{seed}.safetensors", AUDIO if seed % 2 else DBOF, seed) for seed in range(4)]
    for name, pair in (("x", parts[:2]), ("y", parts[2:])):
        ensemble(pair, [0.25, 0.75], tmp_path / name)
    header = average([tmp_path / "x", tmp_path / "y"], tmp_path / "mean")
    assert [member.weight for member in header.members] == [0.25, 0.75]
    x, y, mean = (_values(tmp_path / name) for name in ("x", "y", "mean"))
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, (x[name] + y[name]) / 2)


def test_options_of_training_and_missing_names_do_not_matter(tmp_path):
    names = tuple(f"class {index}" for index in range(12))
    a = model_file(tmp_path / "a", DBOF | {"dropout": 0.7})
    b = model_file(tmp_path / "b", DBOF | {"head": {"name": "moe", "l2": 0.5}}, class_names=names)
    assert average([a, b], tmp_path / "c").class_names == names


OTHER_RGB = FeatureSpec("frame", (Feature("rgb", 33), Feature("audio", 8)))
MORE = FeatureSpec("frame", (*SMALL_SPEC.features, Feature("text", 4)))
NAMES = tuple("abcdefghijkl")


@pytest.mark.parametrize(
    ("section", "header", "words"),
    [
        (AUDIO, {}, "member 0 aggregator is dbof in .*/a, average in"),
        (DBOF | {"clusters": 32}, {}, "member 0 clusters is 24 in .*/a, 32 in"),
        (DBOF | {"max_frames": 20}, {}, "member 0 max_frames is 300 in .*/a, 20 in"),
        (DBOF | {"head": {"name": "moe", "mixtures": 3}}, {}, "member 0 head mixtures is 2 in .*/a, 3 in"),
        (DBOF, {"classes": 11}, "classes is 12 in .*/a, 11 in"),
        (DBOF, {"features": OTHER_RGB}, "feature 'rgb' size is 32 in .*/a, 33 in"),
        (DBOF, {"features": MORE}, "features is rgb, audio in .*/a, rgb, audio, text in"),
        (DBOF, {"features": FeatureSpec("video", SMALL_SPEC.features)}, "level is frame in .*/a, video in"),
        (DBOF, {"class_names": ("A", *NAMES[1:])}, "name of class 0 is a in .*/a, A in"),
    ],
)
def test_what_differs_is_named(tmp_path, section, header, words):
    a = model_file(tmp_path / "a", class_names=NAMES)
    b = model_file(tmp_path / "b", section, **header)
    with pytest.raises(InputError, match=f"the models differ: {words} .*/b; name models that agree"):
        average([a, b], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_weights_and_numbers_of_members_are_refused(tmp_path):
    parts = [model_file(tmp_path / str(seed), seed=seed) for seed in range(2)]
    ensemble(parts, [0.5, 0.5], tmp_path / "x")
    ensemble(parts, [0.4, 0.6], tmp_path / "y")
    with pytest.raises(InputError, match="member 0 weight is 0.5 in .*/x, 0.4 in .*/y"):
        average([tmp_path / "x", tmp_path / "y"], tmp_path / "out")
    with pytest.raises(InputError, match="number of members is 1 in .*/0, 2 in .*/x"):
        average([parts[0], tmp_path / "x"], tmp_path / "out")


def test_one_model_a_broken_one_and_an_existing_output_are_refused(tmp_path):
    a, b = (model_file(tmp_path / str(seed), seed=seed) for seed in range(2))
    with pytest.raises(InputError, match="only 1 model is named; to average takes two at least"):
        average([a], tmp_path / "out")
    with pytest.raises(InputError, match="force=True"):
        average([a, b], a)
    before = _values(a)
    average([a, b], a, force=True)
    assert any(not torch.equal(before[name], tensor) for name, tensor in _values(a).items())
    header, stored = read_model_file(b)
    name = next(name for name in stored if name.endswith("running_var"))
    write_model_file(tmp_path / "broken", header, {**stored, name: stored[name] - 9})
    with pytest.raises(InputError, match="broken: member 0: .*negative variance"):
        average([a, tmp_path / "broken"], tmp_path / "out")
