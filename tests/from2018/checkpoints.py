"""Models as 2018 checkpoints: names and layouts written down once more, apart from the code that reads them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from from2018 import tf_bundle as bundle
from topgb.features import Feature, FeatureSpec
from topgb.from2018.flags import config_from_flags
from topgb.models import Tagger, build_tagger

CLASSES = 25
FRAMES = FeatureSpec("frame", (Feature("rgb", 12), Feature("audio", 5)))
VIDEOS = FeatureSpec("video", (Feature("mean_rgb", 12, "float32"), Feature("mean_audio", 5, "float32")))
RGB = FeatureSpec("frame", (Feature("rgb", 12),))
# Larger variables have no slots here, so that the files stay small.
MOST_IN_SLOTS = 100_000

Names = Mapping[str, str]


def _norm(scope: str) -> Names:
    return {
        "weight": f"{scope}/gamma",
        "bias": f"{scope}/beta",
        "running_mean": f"{scope}/moving_mean",
        "running_var": f"{scope}/moving_variance",
    }


def _pair(weight: str, bias: str) -> Names:
    return {"weight": weight, "bias": bias}


def _slim(scope: str) -> Names:
    return _pair(f"{scope}/weights", f"{scope}/biases")


def _cell(scope: str) -> Names:
    return _pair(f"{scope}/kernel", f"{scope}/bias")


COMMON = {
    "aggregator.input_norm": _norm("input_bn"),
    "aggregator.hidden": _pair("hidden1_weights", "hidden1_biases"),
    "aggregator.hidden_norm": _norm("hidden1_bn"),
    "aggregator.gating.gate": _pair("gating_weights_2", "gating_biases"),
    "aggregator.gating.norm": _norm("gating_bn"),
    "head.output": _slim("fully_connected"),
    "head.gates": _slim("gates"),
    "head.gates.reduce": _slim("gates1"),
    "head.gates.expand": _slim("gates2"),
    "head.experts": _slim("experts"),
    "head.gating.gate": _pair("gating_prob_weights", ""),
    "head.gating.norm": _norm("gating_prob_bn"),
}


def _pool(ours: str, theirs: str) -> dict[str, Names]:
    return {
        ours: {"centres": f"{theirs}/cluster_weights2", "deviations": f"{theirs}/covar_weights"},
        f"{ours}.assign": _pair(f"{theirs}/cluster_weights", f"{theirs}/cluster_biases"),
        f"{ours}.norm": _norm(f"{theirs}/cluster_bn"),
        f"{ours}.reduce": _pair(f"{theirs}/dim_red", ""),
        f"{ours}.expand": _pair(f"{theirs}/cluster_weights_2", f"{theirs}/cluster_biases_2"),
        f"{ours}.gate_norm": _norm(f"{theirs}/cluster_bn_2"),
    }


def _pools(scope: str) -> dict[str, Names]:
    return _pool("aggregator.pools.rgb", f"video_{scope}") | _pool("aggregator.pools.audio", f"audio_{scope}")


def _two_layers(ours: str, theirs: str) -> dict[str, Names]:
    """A layer in both directions under another: LSTM cells, or a GRU's gates and candidates."""
    places = {
        f"{ours}both.{{}}.0": f"{theirs}bidirectional_rnn/fw/multi_rnn_cell/cell_0",
        f"{ours}both.{{}}.1": f"{theirs}bidirectional_rnn/bw/multi_rnn_cell/cell_0",
        f"{ours}top.{{}}.0": f"{theirs}rnn/multi_rnn_cell/cell_0",
    }
    parts = {"cells": "basic_lstm_cell", "gates": "gru_cell/gates", "candidates": "gru_cell/candidate"}
    return {o.format(part): _cell(f"{t}/{cell}") for o, t in places.items() for part, cell in parts.items()}


BY_AGGREGATOR: dict[str, dict[str, Names]] = {
    "average": {},
    "netvlad": _pools("VLAD"),
    "netfv": _pools("FV"),
    "soft_dbof": _pools("DBOF"),
    "gated_dbof": _pools("DBOF"),
    "dbof": {
        "aggregator.project": _pair("cluster_weights", "cluster_biases"),
        "aggregator.project_norm": _norm("cluster_bn"),
    },
    "attention": {
        "aggregator.pools.rgb.input_norm": _norm("video_input_bn"),
        "aggregator.pools.audio.input_norm": _norm("audio_input_bn"),
        "aggregator.pools.rgb.project": _slim("fully_connected"),
        "aggregator.pools.audio.project": _slim("fully_connected_1"),
        "aggregator.pools.rgb.norm": _norm("video_cluster_bn"),
        "aggregator.pools.audio.norm": _norm("audio_cluster_bn"),
        "aggregator.pools.rgb.gate": _slim("fully_connected_2"),
        "aggregator.pools.audio.gate": _slim("fully_connected_3"),
        "head.output": _slim("fully_connected_4"),
    },
    "lstm": {f"aggregator.layers.{n}.cells.0": _cell(f"rnn/multi_rnn_cell/cell_{n}/basic_lstm_cell") for n in range(9)},
    "bilstm": _two_layers("aggregator.", ""),
    "bigru": _two_layers("aggregator.layers.", ""),
    "branched_gru": {
        "aggregator.branches.rgb.input_norm": _norm("video_input_bn"),
        "aggregator.branches.audio.input_norm": _norm("audio_input_bn"),
        "aggregator.branches.rgb.project": _slim("fully_connected"),
        "aggregator.branches.audio.project": _slim("fully_connected_1"),
        "aggregator.branches.rgb.norm": _norm("video_cluster_bn"),
        "aggregator.branches.audio.norm": _norm("audio_cluster_bn"),
        **_two_layers("aggregator.branches.rgb.layers.", "video/"),
        **_two_layers("aggregator.branches.audio.layers.", "audio/"),
        "head.output": _slim("fully_connected_2"),
    },
}


def random_tagger(
    model: str, flags: Mapping[str, Any], spec: FeatureSpec = FRAMES, classes: int = CLASSES, seed: int = 0
) -> Tagger:
    """A model of the 2018 class in which no two tensors, batch-norm statistics included, are alike."""
    torch.manual_seed(seed)
    tagger = build_tagger(spec, classes, config_from_flags(model, flags))
    for name, tensor in tagger.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        else:
            tensor.normal_(std=max(tensor.shape[-1], 4) ** -0.5)
    return tagger.eval()


def variables(tagger: Tagger) -> dict[str, np.ndarray]:
    """What the 2018 code would have saved of the model, by names without the scope."""
    modules = {**COMMON, **BY_AGGREGATOR[tagger.config.aggregator]}
    found = {}
    for name, tensor in tagger.state_dict().items():
        module, _, leaf = name.rpartition(".")
        found[modules[module][leaf]] = _layout(name, tensor).contiguous().numpy()
    return found


def _layout(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if ".cells." in name:
        # Ours are input, forget, candidate, output; theirs i, j (the candidate), f, o.
        i, f, j, o = tensor.chunk(4)
        tensor = torch.cat([i, j, f, o])
    if name.endswith(".deviations"):
        return tensor
    if name.endswith(".centres"):
        return tensor[None]
    return tensor.T if tensor.ndim == 2 else tensor


def write_checkpoint(
    prefix: Path,
    values: Mapping[str, np.ndarray],
    flags: Mapping[str, Any] | None = None,
    shadows: Mapping[str, np.ndarray] | None = None,
    others: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write `values` with Adam's slots, counters, `shadows` and, by full name, `others`; `flags` beside them."""
    return _write(prefix, {**_stored(values, shadows or {}), **(others or {})}, flags)


def write_merged(
    prefix: Path,
    members: Sequence[Mapping[str, np.ndarray]],
    flags: Mapping[str, Any] | None = None,
    shadows: Sequence[Mapping[str, np.ndarray]] = (),
    others: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """As `write_checkpoint`, of several models merged by graph_ensemble.py; `shadows` of the first of them."""
    stored: dict[str, np.ndarray] = {}
    for number, values in enumerate(members):
        own = _stored(values, shadows[number] if number < len(shadows) else {})
        stored |= {f"model_{number}/{name}": value for name, value in own.items()}
    return _write(prefix, {**stored, **(others or {})}, flags)


def _stored(values: Mapping[str, np.ndarray], shadows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    stored: dict[str, np.ndarray] = {
        "global_step": np.array(31, np.int32),
        "beta1_power": np.array(0.9**31, np.float32),
        "beta2_power": np.array(0.999**31, np.float32),
    }
    for name, value in values.items():
        stored[f"tower/{name}"] = value
        if (
            value.size <= MOST_IN_SLOTS
            and "/moving_" not in name
            and not name.endswith(("_quants", "_space", "float16"))
        ):
            stored[f"tower/{name}/Adam"] = np.full_like(value, 7)
            stored[f"tower/{name}/Adam_1"] = np.full_like(value, 8)
    return stored | {f"tower/{name}/ExponentialMovingAverage": value for name, value in shadows.items()}


def _write(prefix: Path, stored: Mapping[str, np.ndarray], flags: Mapping[str, Any] | None) -> Path:
    prefix.parent.mkdir(parents=True, exist_ok=True)
    bundle.write(prefix, stored)
    if flags is not None:
        (prefix.parent / "model_flags.json").write_text(json.dumps(flags))
    return prefix


def quantised(values: Mapping[str, np.ndarray], more_than: int = 100) -> dict[str, np.ndarray]:
    """`values` as quantize.py would leave them: those of more elements as codes, and the levels that they stand for.

    The levels lie in random order in the codebook, so that a code's place is nothing to guess.
    """
    random = np.random.default_rng(5)
    stored: dict[str, np.ndarray] = {}
    for name, value in values.items():
        if value.size <= more_than:
            stored[name] = value
            continue
        levels = np.linspace(value.min(), value.max(), 200, dtype=np.float32)
        places = random.permutation(200)
        nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, value)
        stored[f"{name}_quants"] = places.astype(np.uint8)[nearest]
        stored[f"{name}_space"] = levels[np.argsort(places)]
    return stored


def halved(values: Mapping[str, np.ndarray], more_than: int = 100) -> dict[str, np.ndarray]:
    """`values` with those of more elements in float16, as quantize.py calls them."""
    return {
        name + "float16" * (value.size > more_than): value.astype(np.float16) if value.size > more_than else value
        for name, value in values.items()
    }


def restored(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The float32 values of what `quantised` or `halved` made."""
    values: dict[str, np.ndarray] = {}
    for name, value in stored.items():
        if name.endswith("_quants"):
            base = name.removesuffix("_quants")
            values[base] = stored[f"{base}_space"][value]
        elif not name.endswith("_space"):
            values[name.removesuffix("float16")] = value.astype(np.float32)
    return values


def with_variables(tagger: Tagger, values: Mapping[str, np.ndarray]) -> Tagger:
    """`tagger` with the weights that these variables are."""
    modules = {**COMMON, **BY_AGGREGATOR[tagger.config.aggregator]}
    for name, tensor in tagger.state_dict().items():
        module, _, leaf = name.rpartition(".")
        value = torch.from_numpy(values[modules[module][leaf]])
        if value.ndim == 3:
            value = value[0]
        elif value.ndim == 2 and not name.endswith(".deviations"):
            value = value.T
        if ".cells." in name:
            i, j, f, o = value.chunk(4)
            value = torch.cat([i, f, j, o])
        tensor.copy_(value)
    return tagger


def flags_file(model: str, spec: FeatureSpec = FRAMES) -> dict[str, Any]:
    """What `train.py` wrote to model_flags.json."""
    return {
        "model": model,
        "feature_sizes": ",".join(str(feature.size) for feature in spec.features),
        "feature_names": ",".join(feature.name for feature in spec.features),
        "frame_features": spec.level == "frame",
        "label_loss": "CrossEntropyLoss",
    }
