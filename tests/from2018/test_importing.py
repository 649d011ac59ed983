"""2018 checkpoints written here and imported: the same tensors, predictions and architecture come out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import topgb
from from2018.checkpoints import (
    CLASSES,
    FRAMES,
    RGB,
    VIDEOS,
    flags_file,
    random_tagger,
    variables,
    write_checkpoint,
)
from tolerances import assert_same_predictions
from topgb.features import FeatureSpec
from topgb.from2018.flags import config_from_flags, known_models
from topgb.from2018.importing import Imported, import_checkpoint
from topgb.modelfile import read_model_file
from topgb.models import Tagger

pytestmark = pytest.mark.numeric

LOGISTIC = {"video_level_classifier_model": "LogisticModel"}
VLAD = {"netvlad_cluster_size": 8, "netvlad_hidden_size": 16}
FV = {"fv_cluster_size": 8, "fv_hidden_size": 16}
BAG = {"dbof_cluster_size": 16, "dbof_hidden_size": 16}
LSTM = {"lstm_cells": 16}
NO_NORM = {"netvlad_add_batch_norm": False}
PROBABILITY = {"moe_prob_gating": True}
INPUT = {**PROBABILITY, "moe_prob_gating_input": "input"}

# The 2018 class, the flags it was trained with, and those of them that leave no trace in a checkpoint.
Case = tuple[str, dict[str, Any], dict[str, Any]]
CASES: list[Case] = [
    ("LogisticModel", {}, {}),
    ("MoeModel", {}, {}),
    ("MoeModel", {"moe_num_mixtures": 4, "moe_low_rank_gating": 3}, {"moe_l2": 1e-6}),
    ("MoeModel", {"moe_num_mixtures": 1, **PROBABILITY}, {"gating_remove_diag": True}),
    ("MoeModel", INPUT, {}),
    ("FrameLevelLogisticModel", {}, {}),
    ("DbofModel", BAG, {}),
    ("DbofModel", {**BAG, **LOGISTIC}, {"dbof_pooling_method": "average"}),
    ("DbofModel", {**BAG, "dbof_add_batch_norm": False}, {}),
    ("SoftDbofModelLF", BAG, {}),
    ("SoftDbofModelLF", {**BAG, **LOGISTIC, "dbof_relu": False, "softdbof_maxpool": True}, {}),
    ("SoftDbofModelLF", {**BAG, "fc_dimred": False}, {}),
    ("SoftDbofModelLF", {**BAG, **LOGISTIC, "fc_dimred": False, "softdbof_maxpool": True}, {}),
    ("SoftDbofModelLF", {**BAG, "fc_dimred": False, "moe_low_rank_gating": 3}, {}),
    ("SoftDbofModelLF", {**BAG, "dbof_add_batch_norm": False}, {"dbof_relu": False}),
    ("GatedDbofModelLF", {**BAG, "dbof_relu": False}, {}),
    ("GatedDbofModelLF", {**BAG, "softdbof_maxpool": True}, {}),
    ("GatedDbofModelLF", {**BAG, "dbof_add_batch_norm": False}, {}),
    ("NetVLADModelLF", VLAD, {}),
    ("NetVLADModelLF", {**VLAD, "gating": True, **PROBABILITY, "netvlad_relu": False}, {}),
    ("NetVLADModelLF", {**VLAD, "gating": True, **PROBABILITY}, {"gating_remove_diag": True}),
    ("NetVLADModelLF", {**VLAD, **LOGISTIC, "lightvlad": True, "gating": True, "netvlad_relu": False}, {}),
    ("NetVLADModelLF", {**VLAD, **INPUT, **NO_NORM, "gating": True}, {}),
    ("NetVLADModelLF", {**VLAD, **NO_NORM}, {"netvlad_relu": False}),
    ("NetFVModelLF", FV, {}),
    ("NetFVModelLF", FV, {"fv_coupling_factor": 0.05}),
    ("NetFVModelLF", {**FV, "fv_couple_weights": False, "fv_relu": False, "gating": True}, {}),
    ("NetFVModelLF", {**FV, **NO_NORM, "gating": True}, {"fv_relu": False}),
    ("attention_frames_v0", {}, {}),
    ("LstmModel", LSTM, {}),
    ("LstmModel", {**LSTM, **LOGISTIC, "lstm_layers": 1}, {}),
    ("LstmModel", {**LSTM, "lstm_layers": 3}, {}),
    ("Lstmbidirect", LSTM, {}),
    ("Lstmbidirect", {**LSTM, **LOGISTIC}, {}),
    ("GRUbidirect", {**LSTM, **LOGISTIC}, {}),
    ("GRUbidirect", {**LSTM, "gating": True}, {}),
    ("GRUbidirect_branchedBN", LOGISTIC, {}),
    ("GRUbidirect_branchedBN", {}, {}),
]
VIDEO_MODELS = {"LogisticModel", "MoeModel"}


def _id(case: Case) -> str:
    told = [f"{flag}={value}" for flag, value in {**case[1], **case[2]}.items() if "_size" not in flag]
    return "-".join([case[0], *told])


def _inputs(spec: FeatureSpec) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    if spec.level == "video":
        return random.normal(size=(4, 1, spec.width)).astype(np.float32), np.ones(4, np.int32)
    return random.integers(0, 256, (4, 9, spec.width), np.uint8), np.array([9, 1, 4, 9], np.int32)


def _assert_is(path: Path, tagger: Tagger, spec: FeatureSpec) -> None:
    """The model file holds the weights of `tagger` to the bit, and predicts what it does."""
    model = topgb.load(path)
    assert model.header.features == spec
    features, num_frames = _inputs(spec)
    with torch.inference_mode():
        wanted = tagger.predict(torch.from_numpy(features), torch.from_numpy(num_frames))
    assert_same_predictions(model.predict(features, num_frames), wanted.numpy())
    tensors = read_model_file(path)[1]
    assert all(torch.equal(tensors[f"members.0.{name}"], value) for name, value in tagger.state_dict().items())


def _round_trip(
    case: Case, folder: Path, spec: FeatureSpec, settings: dict[str, Any] | None = None, classes: int = CLASSES
) -> tuple[Imported, Path, Tagger]:
    model, flags, untold = case
    tagger = random_tagger(model, {**flags, **untold}, spec, classes)
    prefix = write_checkpoint(folder / "model.ckpt-31", variables(tagger), flags_file(model, spec))
    out = folder / "model.safetensors"
    return import_checkpoint(prefix, out, settings=untold if settings is None else settings), out, tagger


def test_every_class_is_here():
    assert {case[0] for case in CASES} == set(known_models())


@pytest.mark.parametrize("case", CASES, ids=_id)
def test_a_checkpoint_comes_out_as_it_went_in(case, tmp_path):
    spec = VIDEOS if case[0] in VIDEO_MODELS else FRAMES
    imported, out, tagger = _round_trip(case, tmp_path, spec)
    assert imported.unknown == []
    assert imported.header.classes == CLASSES
    assert imported.header.members[0].model == config_from_flags(case[0], {**case[1], **case[2]})
    origin = imported.header.origin["imported"]
    assert (origin["model"], origin["weights"], origin["step"], origin["unknown"]) == (case[0], "raw", 31, [])
    assert case[2].items() <= origin["flags"].items()
    _assert_is(out, tagger, spec)
    assert imported.header == read_model_file(out)[0]


@pytest.mark.parametrize("case", [case for case in CASES if case[2]], ids=_id)
def test_what_leaves_no_trace_has_2018s_default(case, tmp_path):
    """The other side of the cases above: their flags that are set are not told by the variables."""
    spec = VIDEOS if case[0] in VIDEO_MODELS else FRAMES
    imported, _, _ = _round_trip(case, tmp_path, spec, settings={})
    assert imported.header.members[0].model == config_from_flags(case[0], case[1])


@pytest.mark.parametrize(
    "case",
    [
        ("FrameLevelLogisticModel", {}, {}),
        ("DbofModel", BAG, {}),
        ("LstmModel", LSTM, {}),
        ("Lstmbidirect", {**LSTM, **LOGISTIC}, {}),
        ("GRUbidirect", LSTM, {}),
    ],
    ids=_id,
)
def test_a_model_of_one_feature(case, tmp_path):
    _, out, tagger = _round_trip(case, tmp_path, RGB)
    _assert_is(out, tagger, RGB)


@pytest.mark.parametrize("model", ["NetVLADModelLF", "Lstmbidirect", "MoeModel"])
def test_moving_averages_are_taken_when_wanted(model, tmp_path):
    spec = VIDEOS if model in VIDEO_MODELS else FRAMES
    flags = {**VLAD, **LSTM}
    raw, averaged = (random_tagger(model, flags, spec, seed=seed) for seed in (1, 2))
    # No part of the model, and not averaged: that does no harm.
    others = {"tower/counter": np.ones(3, np.float32)}
    prefix = write_checkpoint(
        tmp_path / "model.ckpt-31", variables(raw), flags_file(model, spec), variables(averaged), others
    )
    for tagger, use_ema in ((raw, False), (averaged, True)):
        out = tmp_path / f"{use_ema}.safetensors"
        imported = import_checkpoint(prefix, out, use_ema)
        assert imported.header.origin["imported"]["weights"] == ("ema" if use_ema else "raw")
        assert imported.unknown == list(others)
        _assert_is(out, tagger, spec)


@pytest.mark.parametrize("spec", [FRAMES, VIDEOS], ids=["frames", "videos"])
def test_without_the_flags_file(spec, tmp_path):
    model = "MoeModel" if spec is VIDEOS else "NetVLADModelLF"
    tagger = random_tagger(model, VLAD, spec)
    prefix = write_checkpoint(tmp_path / "model.ckpt-31", variables(tagger))
    # The level and the names are those usual for the class.
    import_checkpoint(prefix, tmp_path / "m", settings={"model": model, "feature_sizes": "12,5"})
    _assert_is(tmp_path / "m", tagger, spec)


@pytest.mark.parametrize("model", ["NetVLADModelLF", "Lstmbidirect", "DbofModel"])
def test_the_variables_tell_a_class_that_nothing_names(model, tmp_path):
    tagger = random_tagger(model, {**VLAD, **LSTM, **BAG})
    prefix = write_checkpoint(tmp_path / "model.ckpt-31", variables(tagger))
    imported = import_checkpoint(prefix, tmp_path / "m", settings={"feature_sizes": "12,5"})
    assert imported.header.origin["imported"]["model"] == model
    _assert_is(tmp_path / "m", tagger, FRAMES)


def test_spaces_in_the_flags_file(tmp_path):
    """The commands that 2018's team published have them."""
    tagger = random_tagger("LstmModel", LSTM)
    flags = {**flags_file("LstmModel"), "feature_names": "rgb, audio", "feature_sizes": "12, 5"}
    import_checkpoint(write_checkpoint(tmp_path / "model.ckpt-31", variables(tagger), flags), tmp_path / "m")
    _assert_is(tmp_path / "m", tagger, FRAMES)


def test_the_flags_file_may_be_overridden(tmp_path):
    tagger = random_tagger("LstmModel", LSTM, RGB)
    prefix = write_checkpoint(tmp_path / "model.ckpt-31", variables(tagger), flags_file("DbofModel"))
    settings = {"model": "LstmModel", "feature_names": "rgb", "feature_sizes": 12}
    import_checkpoint(prefix, tmp_path / "m", settings=settings)
    _assert_is(tmp_path / "m", tagger, RGB)


@pytest.mark.parametrize("key", ["dbof_pooling_method", "model.pooling"])
def test_a_2018_flag_and_an_option_do_the_same(key, tmp_path):
    case = ("DbofModel", BAG, {"dbof_pooling_method": "average"})
    _, out, tagger = _round_trip(case, tmp_path, FRAMES, settings={key: "average"})
    _assert_is(out, tagger, FRAMES)


def test_an_option_in_a_section(tmp_path):
    case = ("MoeModel", PROBABILITY, {"gating_remove_diag": True})
    _, out, tagger = _round_trip(case, tmp_path, VIDEOS, settings={"model.head.gating_remove_diagonal": True})
    _assert_is(out, tagger, VIDEOS)


def test_flags_that_the_class_did_not_look_at_change_nothing(tmp_path):
    settings = {"gating": True, "lstm_layers": 1, "iterations": 300, "sample_all": True}
    _, out, tagger = _round_trip(("SoftDbofModelLF", BAG, {}), tmp_path, FRAMES, settings=settings)
    _assert_is(out, tagger, FRAMES)


@pytest.mark.parametrize("gating_input", ["prob", "input"])
def test_a_gate_whose_input_could_be_either(gating_input, tmp_path):
    """Where the classifier's input is as wide as its output no shape tells, and the default or the setting does."""
    flags = {**LSTM, **PROBABILITY, "moe_prob_gating_input": gating_input}
    settings = {"moe_prob_gating_input": "input"} if gating_input == "input" else {}
    _, out, tagger = _round_trip(("LstmModel", flags, {}), tmp_path, FRAMES, settings=settings, classes=16)
    _assert_is(out, tagger, FRAMES)
