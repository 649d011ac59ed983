"""Infer the class and the flags of a 2018 checkpoint from the names and shapes of its variables."""

import re
from collections.abc import Mapping
from typing import Any

from topgb.errors import InputError

Shapes = Mapping[str, tuple[int, ...]]
# These classes took one vector per video; all others took frames.
VIDEO_MODELS = frozenset({"LogisticModel", "MoeModel"})
_HEADS = frozenset({"experts", "gates", "gates1", "gates2", "gating_prob_weights", "gating_prob_bn"})


def models_of_shapes(shapes: Shapes) -> tuple[str, ...]:
    """The 2018 classes with variables of these names: mostly one; none if topgb knows no such class."""
    scopes = {name.partition("/")[0] for name in shapes}
    if "bidirectional_rnn" in scopes:
        return ("GRUbidirect",) if any("/gru_cell/" in name for name in shapes) else ("Lstmbidirect",)
    if "video_DBOF" in scopes:
        return ("GatedDbofModelLF",) if "video_DBOF/dim_red" in shapes else ("SoftDbofModelLF",)
    for scope, model in _MODEL_OF_SCOPE.items():
        if scope in scopes:
            return (model,)
    if "experts" in scopes and scopes <= _HEADS:
        return ("MoeModel",)
    return ("LogisticModel", "FrameLevelLogisticModel") if scopes == {"fully_connected"} else ()


def classes_of_shapes(shapes: Shapes) -> int:
    """V, the number of classes. Raises `InputError` if there is no classifier that topgb knows."""
    shapes = _Required(shapes)
    if "experts/biases" in shapes:
        # There are V · (mixtures + 1) gates and V · mixtures experts.
        return _gates(shapes) - shapes["experts/biases"][0]
    biases = [name for name in shapes if re.fullmatch(r"fully_connected(_\d+)?/biases", name)]
    if len(biases) != 1:
        raise InputError("the checkpoint holds no classifier, neither experts/biases nor one fully_connected/biases")
    return shapes[biases[0]][0]


def flags_of_shapes(model: str, shapes: Shapes) -> dict[str, Any]:
    """The flags of the 2018 class `model` that follow from its variables' names and shapes, by flag.

    Raises `InputError` if a variable that shows a size is missing, or if the variables belong to another class.
    """
    shapes = _Required(shapes)
    return {**_classifier(shapes), **_SIZE_FLAGS.get(model, lambda _: {})(shapes)}


class _Required(dict):
    """Shapes by name. Raises `InputError` for a name that is missing, or whose shape has no axes."""

    def __missing__(self, name: str) -> tuple[int, ...]:
        raise InputError(f"the variable {name!r} is missing")

    def __getitem__(self, name: str) -> tuple[int, ...]:
        shape = super().__getitem__(name)
        if not shape:
            raise InputError(f"the variable {name!r} is a single number, and no size can be read from it")
        return shape


def _gates(shapes: Shapes) -> int:
    return shapes["gates2/weights" if "gates2/weights" in shapes else "gates/weights"][-1]


def _classifier(shapes: Shapes) -> dict[str, Any]:
    if "experts/biases" not in shapes:
        return {"video_level_classifier_model": "LogisticModel"}
    classes = classes_of_shapes(shapes)
    experts = shapes["experts/biases"][0]
    if classes < 1 or experts % classes:
        raise InputError(f"gates of {_gates(shapes)} and experts of {experts} outputs belong to no mixture of experts")
    flags: dict[str, Any] = {"moe_num_mixtures": experts // classes}
    if "gates1/weights" in shapes:
        flags["moe_low_rank_gating"] = shapes["gates1/weights"][-1]
    gating = shapes.get("gating_prob_weights")
    flags["moe_prob_gating"] = gating is not None
    # If the classifier's input is as wide as its output, the shape fits both values, and the flag keeps its default.
    if gating is not None and gating[:1] != (classes,):
        flags["moe_prob_gating_input"] = "input"
    return flags


def _hidden_relu(flag: str, shapes: Shapes, normalized: bool) -> dict[str, Any]:
    """The flag of the hidden layer's ReLU: with batch norm on, the layer has a batch norm only if it has a ReLU."""
    return {flag: "hidden1_bn/beta" in shapes} if normalized and "hidden1_weights" in shapes else {}


def _netvlad(shapes: Shapes) -> dict[str, Any]:
    normalized = "input_bn/beta" in shapes
    return {
        "netvlad_cluster_size": shapes["video_VLAD/cluster_weights"][-1],
        "netvlad_hidden_size": shapes["hidden1_weights"][-1],
        "netvlad_add_batch_norm": normalized,
        **_hidden_relu("netvlad_relu", shapes, normalized),
        "lightvlad": "video_VLAD/cluster_weights2" not in shapes,
        "gating": "gating_weights_2" in shapes,
    }


def _netfv(shapes: Shapes) -> dict[str, Any]:
    normalized = "input_bn/beta" in shapes
    return {
        "fv_cluster_size": shapes["video_FV/cluster_weights"][-1],
        "fv_hidden_size": shapes["hidden1_weights"][-1],
        "netvlad_add_batch_norm": normalized,
        **_hidden_relu("fv_relu", shapes, normalized),
        "fv_couple_weights": "video_FV/cluster_weights2" not in shapes,
        "gating": "gating_weights_2" in shapes,
    }


def _dbof(shapes: Shapes) -> dict[str, Any]:
    return {
        "dbof_cluster_size": shapes["cluster_weights"][-1],
        "dbof_hidden_size": shapes["hidden1_weights"][-1],
        "dbof_add_batch_norm": "input_bn/beta" in shapes,
    }


def _soft_bags(shapes: Shapes) -> dict[str, Any]:
    if "video_DBOF/dim_red" in shapes:
        # Nothing else shows the difference, because all variables of a soft bag are there too.
        raise InputError("the variable 'video_DBOF/dim_red' shows a GatedDbofModelLF")
    return _bags(shapes, gated=False)


def _gated_bags(shapes: Shapes) -> dict[str, Any]:
    return _bags(shapes, gated=True)


def _bags(shapes: Shapes, gated: bool) -> dict[str, Any]:
    video, audio = (shapes[f"{tower}_DBOF/cluster_weights"][-1] for tower in ("video", "audio"))
    normalized = "input_bn/beta" in shapes
    joined = shapes["hidden1_weights" if "hidden1_weights" in shapes else _first_head_weights(shapes)][0]
    flags: dict[str, Any] = {
        "dbof_cluster_size": video,
        "dbof_add_batch_norm": normalized,
        "softdbof_maxpool": joined == (video if gated else 2 * video) + 2 * audio,
        "fc_dimred": "hidden1_weights" in shapes,
        **_hidden_relu("dbof_relu", shapes, normalized),
    }
    if flags["fc_dimred"]:
        flags["dbof_hidden_size"] = shapes["hidden1_weights"][-1]
    return flags


def _first_head_weights(shapes: Shapes) -> str:
    names = ("gates1/weights", "gates/weights", "fully_connected/weights")
    return next((name for name in names if name in shapes), names[0])


def _lstm(shapes: Shapes) -> dict[str, Any]:
    layers = {name.split("/")[2] for name in shapes if name.startswith("rnn/multi_rnn_cell/cell_")}
    return {
        "lstm_cells": shapes["rnn/multi_rnn_cell/cell_0/basic_lstm_cell/bias"][0] // 4,
        "lstm_layers": len(layers),
    }


def _gru(shapes: Shapes) -> dict[str, Any]:
    return {
        "lstm_cells": shapes["rnn/multi_rnn_cell/cell_0/gru_cell/candidate/bias"][0],
        "gating": "gating_weights_2" in shapes,
    }


def _branched_gru(shapes: Shapes) -> dict[str, Any]:
    if "gating_weights_2" in shapes:
        # Without its gates, the model would be one that was never trained.
        raise InputError("the variable 'gating_weights_2' shows gates, which topgb's branched GRU does not have")
    return {}


# The class that has a scope among its variables, provided that it has no scope further up in this table.
_MODEL_OF_SCOPE = {
    "video_VLAD": "NetVLADModelLF",
    "video_FV": "NetFVModelLF",
    "cluster_weights": "DbofModel",
    "rnn": "LstmModel",
    "video": "GRUbidirect_branchedBN",
    "video_cluster_bn": "attention_frames_v0",
}
_SIZE_FLAGS = {
    "NetVLADModelLF": _netvlad,
    "NetFVModelLF": _netfv,
    "DbofModel": _dbof,
    "SoftDbofModelLF": _soft_bags,
    "GatedDbofModelLF": _gated_bags,
    "LstmModel": _lstm,
    "Lstmbidirect": _lstm,
    "GRUbidirect": _gru,
    "GRUbidirect_branchedBN": _branched_gru,
}
