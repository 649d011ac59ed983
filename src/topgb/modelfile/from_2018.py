"""How the 2018 system's models are called here: its flags as a model section, its variables as our tensors."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from topgb.errors import InputError
from topgb.models import ModelConfig, Tagger, parse_model

_TOWERS = {"rgb": "video", "audio": "audio"}


DEFAULT_FLAGS: dict[str, Any] = {
    "video_level_classifier_model": "MoeModel",
    "netvlad_cluster_size": 64,
    "netvlad_hidden_size": 1024,
    "netvlad_relu": True,
    "netvlad_add_batch_norm": True,
    "lightvlad": False,
    "gating": False,
    "gating_remove_diag": False,
    "moe_num_mixtures": 2,
    "moe_l2": 1e-8,
    "moe_low_rank_gating": -1,
    "moe_prob_gating": False,
    "moe_prob_gating_input": "prob",
}


def known_models() -> list[str]:
    """The 2018 class names that `config_from_flags` understands."""
    return sorted(_MODELS)


def config_from_flags(model: str, flags: Mapping[str, Any]) -> ModelConfig:
    """The architecture that the 2018 class `model` builds under `flags` (those set; the others have their defaults).

    Raises `InputError` where the class is not known.
    """
    if model not in _MODELS:
        raise InputError(f"there is no 2018 model {model!r} here; there are: {', '.join(known_models())}")
    return parse_model(_MODELS[model]({**DEFAULT_FLAGS, **flags}))


def state_from_variables(tagger: Tagger, variables: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The state of `tagger` from 2018 variables (name without the scope `tower/`, to values).

    Raises `InputError` naming a variable that is missing or of another shape.
    """
    return {name: _tensor(name, ours, variables) for name, ours in tagger.state_dict().items()}


def variable_name(tensor_name: str) -> str:
    """The 2018 name, without the scope `tower/`, of the tensor `tensor_name` of a `Tagger`."""
    for pattern, replacement in _RENAMES:
        tensor_name = re.sub(pattern, replacement, tensor_name)
    return tensor_name


def _tensor(name: str, ours: torch.Tensor, variables: Mapping[str, np.ndarray]) -> torch.Tensor:
    theirs = variable_name(name)
    if theirs not in variables:
        raise InputError(f"the variable {theirs!r} is missing; the model has {', '.join(sorted(variables))}")
    value = torch.from_numpy(np.asarray(variables[theirs], dtype=np.float32))
    if theirs.endswith("cluster_weights2"):
        value = value[0]
    elif value.ndim == 2:
        # TensorFlow multiplies x · W with W [in, out]; here matrices are [out, in].
        value = value.T
    if value.shape != ours.shape:
        raise InputError(f"the variable {theirs!r} is {list(value.shape)} as {name}, which needs {list(ours.shape)}")
    return value.contiguous()


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
    clusters = flags["netvlad_cluster_size"]
    return {
        "aggregator": "netvlad",
        "clusters": {"rgb": clusters, "audio": clusters // 2},
        "hidden": flags["netvlad_hidden_size"],
        "relu": flags["netvlad_relu"],
        "batch_norm": flags["netvlad_add_batch_norm"],
        "light": flags["lightvlad"],
        "gating": flags["gating"],
        "gating_remove_diagonal": flags["gating_remove_diag"],
        "head": _chosen_head(flags),
    }


_MODELS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "LogisticModel": lambda flags: {"aggregator": "average", "head": _logistic(flags)},
    "MoeModel": lambda flags: {"aggregator": "average", "head": _moe(flags)},
    "FrameLevelLogisticModel": lambda flags: {"aggregator": "average", "head": _logistic(flags)},
    "NetVLADModelLF": _netvlad,
}

_RENAMES = (
    (r"^aggregator\.input_norm\.", "input_bn/"),
    *((rf"^aggregator\.vlad\.{feature}\.", f"{tower}_VLAD/") for feature, tower in _TOWERS.items()),
    (r"VLAD/assign\.weight$", "VLAD/cluster_weights"),
    (r"VLAD/assign\.bias$", "VLAD/cluster_biases"),
    (r"VLAD/norm\.", "VLAD/cluster_bn/"),
    (r"VLAD/centres$", "VLAD/cluster_weights2"),
    (r"^aggregator\.hidden\.weight$", "hidden1_weights"),
    (r"^aggregator\.hidden\.bias$", "hidden1_biases"),
    (r"^aggregator\.hidden_norm\.", "hidden1_bn/"),
    (r"^aggregator\.gating\.gate\.weight$", "gating_weights_2"),
    (r"^aggregator\.gating\.gate\.bias$", "gating_biases"),
    (r"^aggregator\.gating\.norm\.", "gating_bn/"),
    (r"^head\.output\.weight$", "fully_connected/weights"),
    (r"^head\.output\.bias$", "fully_connected/biases"),
    (r"^head\.gates\.weight$", "gates/weights"),
    (r"^head\.gates\.reduce\.weight$", "gates1/weights"),
    (r"^head\.gates\.expand\.weight$", "gates2/weights"),
    (r"^head\.experts\.weight$", "experts/weights"),
    (r"^head\.experts\.bias$", "experts/biases"),
    (r"^head\.gating\.gate\.weight$", "gating_prob_weights"),
    (r"^head\.gating\.norm\.", "gating_prob_bn/"),
    (r"_bn/weight$", "_bn/gamma"),
    (r"_bn/bias$", "_bn/beta"),
    (r"_bn/running_mean$", "_bn/moving_mean"),
    (r"_bn/running_var$", "_bn/moving_variance"),
)
