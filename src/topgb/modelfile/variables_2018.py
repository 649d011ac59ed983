"""The 2018 system's variables as our tensors: names, and layouts."""

import re
from collections.abc import Mapping

import numpy as np
import torch

from topgb.errors import InputError
from topgb.models import Tagger

TOWERS = {"rgb": "video", "audio": "audio"}


def state_from_variables(tagger: Tagger, variables: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The state of `tagger` from 2018 variables (name without the scope `tower/`, to values).

    Raises `InputError` naming a variable that is missing, of another shape or type, or has values that no weight has.
    """
    return {
        name: _tensor(name, variable_name(name, tagger.config.aggregator), ours, variables)
        for name, ours in tagger.state_dict().items()
    }


def variable_name(tensor_name: str, aggregator: str) -> str:
    """The 2018 name, without the scope `tower/`, of a tensor of a `Tagger` with this aggregator."""
    for pattern, replacement in (*_RENAMES.get(aggregator, ()), *_COMMON):
        tensor_name = re.sub(pattern, replacement, tensor_name)
    return tensor_name


def _tensor(name: str, theirs: str, ours: torch.Tensor, variables: Mapping[str, np.ndarray]) -> torch.Tensor:
    if theirs not in variables:
        raise InputError(f"the variable {theirs!r} is missing")
    shape = tuple(ours.shape)
    # TensorFlow multiplies x · W with W [in, out]; here matrices are [out, in].
    is_matrix = len(shape) == 2 and not name.endswith((".centres", ".deviations"))
    if name.endswith(".centres"):
        shape = (1, *shape)
    values = _floats(theirs, variables[theirs], shape[::-1] if is_matrix else shape)
    value = torch.from_numpy(values.T if is_matrix else values.reshape(ours.shape))
    if "basic_lstm_cell" in theirs:
        # TensorFlow's order is input, candidate, forget, output; PyTorch's kernels want the candidate third.
        parts = value.chunk(4)
        value = torch.cat([parts[0], parts[2], parts[1], parts[3]])
    return value.contiguous()


def _floats(name: str, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The variable's values as float32 of `shape`."""
    values = np.asarray(values)
    if values.shape != shape:
        raise InputError(f"the variable {name!r} is {list(values.shape)}, but the model needs {list(shape)}")
    if values.dtype.kind != "f":
        raise InputError(f"the variable {name!r} holds {values.dtype} values, which are no weights")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise InputError(f"the variable {name!r} has values that are not finite")
    if name.endswith("/moving_variance") and (values < 0).any():
        raise InputError(f"the variable {name!r} has a negative variance")
    return values


Renames = tuple[tuple[str, str], ...]

_COMMON: Renames = (
    (r"^aggregator\.input_norm\.", "input_bn/"),
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
    (r"(_bn(?:_2)?)/weight$", r"\1/gamma"),
    (r"(_bn(?:_2)?)/bias$", r"\1/beta"),
    (r"(_bn(?:_2)?)/running_mean$", r"\1/moving_mean"),
    (r"(_bn(?:_2)?)/running_var$", r"\1/moving_variance"),
)


def _pools(scope: str) -> Renames:
    return (
        *((rf"^aggregator\.pools\.{feature}\.", f"{tower}_{scope}/") for feature, tower in TOWERS.items()),
        (rf"_{scope}/assign\.weight$", f"_{scope}/cluster_weights"),
        (rf"_{scope}/assign\.bias$", f"_{scope}/cluster_biases"),
        (rf"_{scope}/norm\.", f"_{scope}/cluster_bn/"),
        (rf"_{scope}/centres$", f"_{scope}/cluster_weights2"),
        (rf"_{scope}/deviations$", f"_{scope}/covar_weights"),
        (rf"_{scope}/reduce\.weight$", f"_{scope}/dim_red"),
        (rf"_{scope}/expand\.weight$", f"_{scope}/cluster_weights_2"),
        (rf"_{scope}/expand\.bias$", f"_{scope}/cluster_biases_2"),
        (rf"_{scope}/gate_norm\.", f"_{scope}/cluster_bn_2/"),
    )


def _fully_connected(*modules: str) -> Renames:
    """slim numbers the layers without a name as they come: fully_connected, fully_connected_1, …"""
    numbered = [f"fully_connected_{number}" if number else "fully_connected" for number in range(len(modules))]
    return tuple(
        (rf"^{re.escape(module)}\.{ours}$", f"{layer}/{theirs}")
        for module, layer in zip(modules, numbered, strict=True)
        for ours, theirs in (("weight", "weights"), ("bias", "biases"))
    )


_CELLS: Renames = (
    (r"both\.(\w+)\.0\.", r"bidirectional_rnn/fw/multi_rnn_cell/cell_0/\1."),
    (r"both\.(\w+)\.1\.", r"bidirectional_rnn/bw/multi_rnn_cell/cell_0/\1."),
    (r"top\.(\w+)\.0\.", r"rnn/multi_rnn_cell/cell_0/\1."),
    (r"/cells\.weight$", "/basic_lstm_cell/kernel"),
    (r"/cells\.bias$", "/basic_lstm_cell/bias"),
    (r"/gates\.weight$", "/gru_cell/gates/kernel"),
    (r"/gates\.bias$", "/gru_cell/gates/bias"),
    (r"/candidates\.weight$", "/gru_cell/candidate/kernel"),
    (r"/candidates\.bias$", "/gru_cell/candidate/bias"),
)

_RENAMES: dict[str, Renames] = {
    "netvlad": _pools("VLAD"),
    "netfv": _pools("FV"),
    "soft_dbof": _pools("DBOF"),
    "gated_dbof": _pools("DBOF"),
    "dbof": (
        (r"^aggregator\.project\.weight$", "cluster_weights"),
        (r"^aggregator\.project\.bias$", "cluster_biases"),
        (r"^aggregator\.project_norm\.", "cluster_bn/"),
    ),
    "attention": (
        *((rf"^aggregator\.pools\.{f}\.input_norm\.", f"{tower}_input_bn/") for f, tower in TOWERS.items()),
        *((rf"^aggregator\.pools\.{f}\.norm\.", f"{tower}_cluster_bn/") for f, tower in TOWERS.items()),
        *_fully_connected(
            *(f"aggregator.pools.{feature}.project" for feature in TOWERS),
            *(f"aggregator.pools.{feature}.gate" for feature in TOWERS),
            "head.output",
        ),
    ),
    "lstm": ((r"^aggregator\.layers\.(\d+)\.cells\.0\.", r"rnn/multi_rnn_cell/cell_\1/cells."), *_CELLS),
    "bilstm": ((r"^aggregator\.", ""), *_CELLS),
    "bigru": ((r"^aggregator\.layers\.", ""), *_CELLS),
    "branched_gru": (
        *((rf"^aggregator\.branches\.{f}\.input_norm\.", f"{tower}_input_bn/") for f, tower in TOWERS.items()),
        *((rf"^aggregator\.branches\.{f}\.norm\.", f"{tower}_cluster_bn/") for f, tower in TOWERS.items()),
        *((rf"^aggregator\.branches\.{f}\.layers\.", f"{tower}/") for f, tower in TOWERS.items()),
        *_CELLS,
        *_fully_connected(*(f"aggregator.branches.{feature}.project" for feature in TOWERS), "head.output"),
    ),
}
