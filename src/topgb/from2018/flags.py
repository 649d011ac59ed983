"""Translate 2018's classes and flags of models to the `model` section of a recipe."""

import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from topgb.errors import InputError
from topgb.models import ModelConfig, parse_model

DEFAULT_FLAGS: dict[str, Any] = {
    "video_level_classifier_model": "MoeModel",
    "dbof_cluster_size": 8192,
    "dbof_hidden_size": 1024,
    "dbof_pooling_method": "max",
    "dbof_add_batch_norm": True,
    "dbof_relu": True,
    "softdbof_maxpool": False,
    "fc_dimred": True,
    "lstm_cells": 1024,
    "lstm_layers": 2,
    "netvlad_cluster_size": 64,
    "netvlad_hidden_size": 1024,
    "netvlad_relu": True,
    "netvlad_add_batch_norm": True,
    "lightvlad": False,
    "vlagd": False,
    "fv_cluster_size": 64,
    "fv_hidden_size": 2048,
    "fv_relu": True,
    "fv_couple_weights": True,
    "fv_coupling_factor": 0.01,
    "gating": False,
    "gating_remove_diag": False,
    "moe_num_mixtures": 2,
    "moe_l2": 1e-8,
    "moe_low_rank_gating": -1,
    "moe_prob_gating": False,
    "moe_prob_gating_input": "prob",
}

# The first four flags choose frames, which is not part of a model here; no code of 2018 read the other three.
WITHOUT_EFFECT: dict[str, Any] = {
    "iterations": 30,
    "sample_random_frames": True,
    "sample_all": False,
    "frame_shuffle": False,
    "dbof_var_features": 0,
    "dbof_activation": "relu",
    "netvlad_dimred": -1,
}

_CHOICES = {
    "video_level_classifier_model": ("LogisticModel", "MoeModel"),
    "moe_prob_gating_input": ("prob", "input"),
}
_KINDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a word"}
# Far above every sensible value of a flag, and below the greatest float, so that whole numbers can become floats.
_MOST_NUMBER = 1e300


def known_models() -> list[str]:
    """The 2018 class names that `config_from_flags` understands."""
    return sorted(_MODELS)


def config_from_flags(model: str, flags: Mapping[str, Any]) -> ModelConfig:
    """The architecture that the 2018 class `model` builds under `flags`; flags that are not in it have their defaults.

    Raises `InputError` if the class or a flag is not known, or if a flag's value has the wrong type.
    """
    return parse_model(section_from_flags(model, flags))


def section_from_flags(model: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The `model` section of a recipe, for the arguments of `config_from_flags` and with its errors."""
    if model not in _MODELS:
        raise InputError(f"there is no 2018 model {model!r} here; there are: {', '.join(known_models())}")
    defaults = {**DEFAULT_FLAGS, **WITHOUT_EFFECT}
    for flag, value in flags.items():
        if flag not in defaults:
            raise InputError(
                f"there is no 2018 flag {flag!r} of models here; there are: {', '.join(sorted(DEFAULT_FLAGS))}"
            )
        _check_value(flag, value, type(defaults[flag]))
    return _MODELS[model]({**DEFAULT_FLAGS, **flags})


def _check_value(flag: str, value: Any, kind: type) -> None:
    if flag in _CHOICES:
        fits, wanted = value in _CHOICES[flag], " or ".join(_CHOICES[flag])
    else:
        # Python counts True as a number.
        fits = isinstance(value, (int, float) if kind is float else kind) and isinstance(value, bool) == (kind is bool)
        wanted = _KINDS[kind]
    if not fits or (kind is float and not -_MOST_NUMBER < value < _MOST_NUMBER):
        raise InputError(f"the 2018 flag {flag!r} is {reprlib.repr(value)}; it must be {wanted}")


def _logistic(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": "logistic"}


def _moe(flags: Mapping[str, Any]) -> dict[str, Any]:
    gated = flags["moe_prob_gating"]
    return {
        "name": "moe",
        "mixtures": flags["moe_num_mixtures"],
        "l2": float(flags["moe_l2"]),
        "low_rank": flags["moe_low_rank_gating"] if flags["moe_low_rank_gating"] > 0 else None,
        "gating": {"prob": "probabilities", "input": "input"}[flags["moe_prob_gating_input"]] if gated else "none",
        "gating_remove_diagonal": bool(gated and flags["gating_remove_diag"]),
    }


def _chosen_head(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {"LogisticModel": _logistic, "MoeModel": _moe}[flags["video_level_classifier_model"]](flags)


def _netvlad(flags: Mapping[str, Any]) -> dict[str, Any]:
    if flags["vlagd"]:
        raise InputError("the flag 'vlagd' names a layer that the 2018 code itself lacked; unset it")
    clusters = flags["netvlad_cluster_size"]
    return {
        "aggregator": "netvlad",
        "clusters": {"rgb": clusters, "audio": clusters // 2},
        "hidden": flags["netvlad_hidden_size"],
        "relu": flags["netvlad_relu"],
        "batch_norm": flags["netvlad_add_batch_norm"],
        "light": flags["lightvlad"],
        "gating": flags["gating"],
        "gating_remove_diagonal": bool(flags["gating"] and flags["gating_remove_diag"]),
        "head": _chosen_head(flags),
    }


def _netfv(flags: Mapping[str, Any]) -> dict[str, Any]:
    clusters = flags["fv_cluster_size"]
    return {
        "aggregator": "netfv",
        "clusters": {"rgb": clusters, "audio": clusters // 2},
        "hidden": flags["fv_hidden_size"],
        "relu": flags["fv_relu"],
        "batch_norm": flags["netvlad_add_batch_norm"],
        "coupling": float(flags["fv_coupling_factor"]) if flags["fv_couple_weights"] else None,
        "gating": flags["gating"],
        "head": _chosen_head(flags),
    }


def _dbof(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "aggregator": "dbof",
        "clusters": flags["dbof_cluster_size"],
        "hidden": flags["dbof_hidden_size"],
        "pooling": flags["dbof_pooling_method"],
        "batch_norm": flags["dbof_add_batch_norm"],
        "head": _chosen_head(flags),
    }


def _soft_dbof(flags: Mapping[str, Any]) -> dict[str, Any]:
    clusters = flags["dbof_cluster_size"]
    return {
        "aggregator": "soft_dbof",
        "clusters": {"rgb": clusters, "audio": clusters // 8},
        "hidden": flags["dbof_hidden_size"] if flags["fc_dimred"] else None,
        "relu": flags["dbof_relu"],
        "batch_norm": flags["dbof_add_batch_norm"],
        "max_pool": flags["softdbof_maxpool"],
        "head": _chosen_head(flags),
    }


def _gated_dbof(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {**_soft_dbof(flags), "aggregator": "gated_dbof", "gated": ["rgb"]}


def _attention(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "aggregator": "attention",
        "hidden": {"rgb": 2048, "audio": 256},
        "attend_to_padding": True,
        # The 2018 class read no flag for its classifier.
        "head": _logistic(flags),
    }


def _lstm(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "aggregator": "lstm",
        "cells": flags["lstm_cells"],
        "layers": flags["lstm_layers"],
        "head": _chosen_head(flags),
    }


def _bilstm(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {"aggregator": "bilstm", "cells": flags["lstm_cells"], "head": _chosen_head(flags)}


def _bigru(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "aggregator": "bigru",
        "cells": flags["lstm_cells"],
        "reset": "before",
        "gating": flags["gating"],
        "head": _chosen_head(flags),
    }


def _branched_gru(flags: Mapping[str, Any]) -> dict[str, Any]:
    if flags["gating"]:
        raise InputError("the flag 'gating' of GRUbidirect_branchedBN crashed the 2018 code itself; unset it")
    return {
        "aggregator": "branched_gru",
        "cells": {"rgb": 1024, "audio": 128},
        "reset": "before",
        "count_padding": True,
        "head": _chosen_head(flags),
    }


_MODELS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "LogisticModel": lambda flags: {"aggregator": "average", "head": _logistic(flags)},
    "MoeModel": lambda flags: {"aggregator": "average", "head": _moe(flags)},
    "FrameLevelLogisticModel": lambda flags: {"aggregator": "average", "head": _logistic(flags)},
    "DbofModel": _dbof,
    "SoftDbofModelLF": _soft_dbof,
    "GatedDbofModelLF": _gated_dbof,
    "NetVLADModelLF": _netvlad,
    "NetFVModelLF": _netfv,
    "attention_frames_v0": _attention,
    "LstmModel": _lstm,
    "Lstmbidirect": _bilstm,
    "GRUbidirect": _bigru,
    "GRUbidirect_branchedBN": _branched_gru,
}
