"""Merged 2018 checkpoints: one file of several members, which predicts the weighted mean of what they do alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import topgb
from from2018.checkpoints import (
    CLASSES,
    FRAMES,
    VIDEOS,
    flags_file,
    halved,
    quantised,
    random_tagger,
    restored,
    variables,
    with_variables,
    write_merged,
)
from from2018.test_importing import BAG, CASES, FV, LOGISTIC, LSTM, VLAD
from tolerances import assert_same_predictions
from topgb.features import FeatureSpec
from topgb.from2018.importing import import_checkpoint
from topgb.from2018.shapes import VIDEO_MODELS, models_of_shapes
from topgb.modelfile import read_model_file
from topgb.models import Tagger

pytestmark = pytest.mark.numeric

AMBIGUOUS = ("LogisticModel", "FrameLevelLogisticModel")
SMALL: dict[str, dict[str, Any]] = {
    "NetVLADModelLF": {**VLAD, "gating": True, "netvlad_relu": False},
    "NetFVModelLF": FV,
    "DbofModel": BAG,
    "SoftDbofModelLF": BAG,
    "GatedDbofModelLF": {**BAG, "dbof_relu": False},
    "LstmModel": LSTM,
    "Lstmbidirect": {**LSTM, **LOGISTIC},
    "GRUbidirect": {**LSTM, "gating": True},
    "FrameLevelLogisticModel": {},
    "MoeModel": {"moe_num_mixtures": 3},
    "LogisticModel": {},
    "attention_frames_v0": {},
}


def _members(models: tuple[str, ...], spec: FeatureSpec = FRAMES) -> list[Tagger]:
    return [random_tagger(model, SMALL[model], spec, seed=seed) for seed, model in enumerate(models)]


def _assert_mixes(path: Path, taggers: list[Tagger], weights: list[float], spec: FeatureSpec = FRAMES) -> None:
    model = topgb.load(path)
    assert [member.weight for member in model.header.members] == weights
    random = np.random.default_rng(3)
    features = random.integers(0, 256, (4, 9, spec.width), np.uint8)
    num_frames = np.array([9, 1, 4, 9], np.int32)
    if spec.level == "video":
        features, num_frames = random.normal(size=(4, 1, spec.width)).astype(np.float32), np.ones(4, np.int32)
    arguments = torch.from_numpy(features), torch.from_numpy(num_frames)
    with torch.inference_mode():
        wanted = sum(weight * tagger.predict(*arguments) for weight, tagger in zip(weights, taggers, strict=True))
    assert isinstance(wanted, torch.Tensor)
    assert_same_predictions(model.predict(features, num_frames), wanted.numpy())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_a_class_is_told_by_its_variables(case):
    model, flags, untold = case
    spec = VIDEOS if model in VIDEO_MODELS else FRAMES
    values = variables(random_tagger(model, {**flags, **untold}, spec))
    assert models_of_shapes({name: value.shape for name, value in values.items()}) == (
        AMBIGUOUS if model in AMBIGUOUS else (model,)
    )


@pytest.mark.parametrize("names", [(), ("conv1/weights",), ("experts/weights", "conv1/weights"), ("tower",)])
def test_variables_of_no_class(names):
    assert models_of_shapes(dict.fromkeys(names, (3, 3))) == ()


@pytest.mark.parametrize(
    ("models", "weights"),
    [
        (("NetVLADModelLF", "GatedDbofModelLF", "Lstmbidirect"), [0.4, 0.35, 0.25]),
        (("GRUbidirect", "NetFVModelLF"), [0.75, 0.25]),
        (("LstmModel", "LstmModel"), [0.5, 0.5]),
        (("DbofModel", "SoftDbofModelLF", "FrameLevelLogisticModel", "NetVLADModelLF"), [0.1, 0.2, 0.3, 0.4]),
        (("FrameLevelLogisticModel",), [1.0]),
        (("LstmModel", "DbofModel"), [1.0, 0.0]),
        (("attention_frames_v0", "LstmModel"), [0.5, 0.5]),
    ],
    ids=lambda value: "-".join(map(str, value)),
)
@pytest.mark.parametrize("transform", [dict, quantised, halved], ids=["plain", "codebook", "float16"])
def test_members_are_mixed(models, weights, transform, tmp_path):
    taggers = _members(models)
    stored = [transform(variables(tagger)) for tagger in taggers]
    # graph_ensemble.py copied the last one's file.
    prefix = write_merged(tmp_path / "inference_model", stored, flags_file(models[-1]))
    imported = import_checkpoint(prefix, tmp_path / "out", weights=weights)
    assert (imported.unknown, imported.without_averages) == ([], [])
    assert imported.header == read_model_file(tmp_path / "out")[0]
    origin = imported.header.origin["imported"]
    assert [member["model"] for member in origin["members"]] == list(models)
    assert {(member["weights"], member["step"]) for member in origin["members"]} == {("raw", 31)}
    for tagger, parts in zip(taggers, stored, strict=True):
        with_variables(tagger, restored(parts))
    _assert_mixes(tmp_path / "out", taggers, weights)


def test_each_member_has_its_own_quantisation(tmp_path):
    models = ("NetVLADModelLF", "Lstmbidirect", "DbofModel")
    taggers = _members(models)
    transforms = (quantised, halved, dict)
    stored = [transform(variables(tagger)) for transform, tagger in zip(transforms, taggers, strict=True)]
    prefix = write_merged(tmp_path / "inference_model", stored, flags_file("DbofModel"))
    header = import_checkpoint(prefix, tmp_path / "out", weights=[0.2, 0.3, 0.5]).header
    for place, encoding in enumerate(("codebook", "float16", "float32")):
        own = {entry.encoding for name, entry in header.tensors.items() if name.startswith(f"members.{place}.")}
        assert own == {encoding, "float32"}
    for tagger, parts in zip(taggers, stored, strict=True):
        with_variables(tagger, restored(parts))
    _assert_mixes(tmp_path / "out", taggers, [0.2, 0.3, 0.5])


def test_more_than_ten_members_keep_their_order(tmp_path):
    taggers = _members(("FrameLevelLogisticModel",) * 12)
    prefix = write_merged(tmp_path / "m", [variables(t) for t in taggers], flags_file("FrameLevelLogisticModel"))
    weights = [number / 78 for number in range(1, 13)]
    import_checkpoint(prefix, tmp_path / "out", weights=weights)
    _assert_mixes(tmp_path / "out", taggers, weights)


@pytest.mark.parametrize("flagged", [True, False])
def test_models_of_videos(flagged, tmp_path):
    """A logistic regression is told from that of frames by the flags file, or by the other members."""
    models = ("LogisticModel", "MoeModel")
    taggers = _members(models, VIDEOS)
    flags = flags_file("MoeModel", VIDEOS) if flagged else None
    prefix = write_merged(tmp_path / "m", [variables(tagger) for tagger in taggers], flags)
    settings = {} if flagged else {"feature_sizes": "12,5"}
    import_checkpoint(prefix, tmp_path / "out", weights=[0.5, 0.5], settings=settings)
    _assert_mixes(tmp_path / "out", taggers, [0.5, 0.5], VIDEOS)


def test_settings_of_all_and_of_one(tmp_path):
    taggers = [
        random_tagger("DbofModel", {**BAG, "dbof_pooling_method": "average"}, seed=1),
        random_tagger("DbofModel", {**BAG, "dbof_pooling_method": "max"}, seed=2),
        random_tagger("DbofModel", {**BAG, "dbof_pooling_method": "average"}, seed=3),
    ]
    prefix = write_merged(tmp_path / "m", [variables(tagger) for tagger in taggers], flags_file("DbofModel"))
    for key in ("dbof_pooling_method", "model.pooling"):
        settings = {f"model_1.{key}": "max", key: "average", "model_2.model": "DbofModel"}
        import_checkpoint(prefix, tmp_path / "out", settings=settings, force=True, weights=[0.2, 0.3, 0.5])
        _assert_mixes(tmp_path / "out", taggers, [0.2, 0.3, 0.5])


def test_without_the_flags_file(tmp_path):
    taggers = _members(("NetVLADModelLF", "FrameLevelLogisticModel"))
    prefix = write_merged(tmp_path / "m", [variables(tagger) for tagger in taggers])
    import_checkpoint(prefix, tmp_path / "out", settings={"feature_sizes": "12,5"}, weights=[0.5, 0.5])
    _assert_mixes(tmp_path / "out", taggers, [0.5, 0.5])
    assert read_model_file(tmp_path / "out")[0].classes == CLASSES


@pytest.mark.parametrize("both", [True, False])
def test_moving_averages_of_members(both, tmp_path):
    models = ("LstmModel", "DbofModel")
    raw = _members(models)
    averaged = [random_tagger(model, SMALL[model], seed=9) for model in models]
    shadows = [variables(tagger) for tagger in (averaged if both else averaged[:1])]
    prefix = write_merged(tmp_path / "m", [variables(tagger) for tagger in raw], flags_file("DbofModel"), shadows)
    imported = import_checkpoint(prefix, tmp_path / "ema", use_ema=True, weights=[0.5, 0.5])
    assert (imported.unknown, imported.without_averages) == ([], [] if both else [1])
    _assert_mixes(tmp_path / "ema", averaged if both else [averaged[0], raw[1]], [0.5, 0.5])
    origin = imported.header.origin["imported"]["members"]
    assert [member["weights"] for member in origin] == ["ema", "ema" if both else "raw"]
    import_checkpoint(prefix, tmp_path / "raw", weights=[0.5, 0.5])
    _assert_mixes(tmp_path / "raw", raw, [0.5, 0.5])


def test_unknown_variables_of_members(tmp_path):
    others = {"model_0/tower/extra": np.ones(3, np.float32), "model_1/elsewhere": np.ones(3, np.float32)}
    taggers = _members(("LstmModel", "DbofModel"))
    values = [variables(tagger) for tagger in taggers]
    prefix = write_merged(tmp_path / "m", values, flags_file("DbofModel"), others=others)
    assert import_checkpoint(prefix, tmp_path / "out", weights=[0.5, 0.5]).unknown == sorted(others)
