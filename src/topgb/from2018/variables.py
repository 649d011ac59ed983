"""Turn 2018's variables into our tensors: map their names, and change their layout."""

import re
from collections.abc import Mapping

import numpy as np
import torch

from topgb.errors import InputError
from topgb.from2018.quantised import Coded
from topgb.modelfile.encodings import Parts, encode_plain, values
from topgb.modelfile.header import TensorEncoding
from topgb.models import Tagger

TOWERS = {"rgb": "video", "audio": "audio"}


def state_from_variables(tagger: Tagger, variables: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The state of `tagger`, float32 tensors by name, from 2018 variables (values by name without the scope `tower/`).

    Raises `InputError` naming a variable that is missing, has another shape or type, or holds values that no weight
    has.
    """
    return {name: values(parts, entry) for name, (entry, parts) in encoded_from_variables(tagger, variables).items()}


def encoded_from_variables(
    tagger: Tagger, variables: Mapping[str, np.ndarray | Coded]
) -> dict[str, tuple[TensorEncoding, Parts]]:
    """As `state_from_variables`, with each tensor in the encoding of its variable.

    Codes become `codebook`, float16 values `float16`, others `float32`. Raises as `state_from_variables`.
    """
    return {
        name: _encode_variable(name, variable_name(name, tagger.config.aggregator), tuple(ours.shape), variables)
        for name, ours in tagger.state_dict().items()
    }


def variable_name(tensor_name: str, aggregator: str) -> str:
    """The 2018 name, without the scope `tower/`, of a tensor in a `Tagger` with this aggregator."""
    for pattern, replacement in (*_RENAMES.get(aggregator, ()), *_COMMON_RENAMES):
        tensor_name = re.sub(pattern, replacement, tensor_name)
    return tensor_name


def _encode_variable(
    name: str, theirs: str, shape: tuple[int, ...], variables: Mapping[str, np.ndarray | Coded]
) -> tuple[TensorEncoding, Parts]:
    if theirs not in variables:
        raise InputError(f"the variable {theirs!r} is missing")
    # TensorFlow multiplies x · W with W [in, out]; here matrices are [out, in].
    is_matrix = len(shape) == 2 and not name.endswith((".centres", ".deviations"))
    wanted = (1, *shape) if name.endswith(".centres") else shape[::-1] if is_matrix else shape
    variable = variables[theirs]
    if variable.shape != wanted:
        raise InputError(f"the variable {theirs!r} is {list(variable.shape)}, but the model needs {list(wanted)}")
    _check_values(theirs, variable)
    if isinstance(variable, Coded):
        codes = _to_our_layout(variable.codes, theirs, shape, is_matrix)
        return TensorEncoding("codebook", shape), {".codes": codes, ".codebook": torch.from_numpy(variable.codebook)}
    encoding = "float16" if variable.dtype == np.float16 else "float32"
    return encode_plain(_to_our_layout(_floats(variable), theirs, shape, is_matrix), encoding)


def _to_our_layout(array: np.ndarray, theirs: str, shape: tuple[int, ...], is_matrix: bool) -> torch.Tensor:
    """A variable's values or codes as a tensor of `shape` in our layout: transposed, or with gates reordered."""
    tensor = torch.from_numpy(array.T if is_matrix else array.reshape(shape))
    if "basic_lstm_cell" in theirs:
        # TensorFlow's order is input, candidate, forget, output; PyTorch's kernels want the candidate third.
        parts = tensor.chunk(4)
        tensor = torch.cat([parts[0], parts[2], parts[1], parts[3]])
    return tensor.contiguous()


def _check_values(name: str, variable: np.ndarray | Coded) -> None:
    if isinstance(variable, Coded):
        used = np.bincount(variable.codes.reshape(-1), minlength=len(variable.codebook)) > 0
        floats = variable.codebook[used]
    elif variable.dtype.kind == "f":
        floats = _floats(variable)
    else:
        raise InputError(f"the variable {name!r} holds {variable.dtype} values, which are no weights")
    if not np.isfinite(floats).all():
        raise InputError(f"the variable {name!r} has values that are not finite")
    if name.endswith("/moving_variance") and (floats < 0).any():
        raise InputError(f"the variable {name!r} has a negative variance")


def _floats(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


Renames = tuple[tuple[str, str], ...]

_COMMON_RENAMES: Renames = (
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


def _pool_renames(scope: str) -> Renames:
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


def _numbered_layers(*modules: str) -> Renames:
    """Renames of layers that slim numbered in the order of `modules`: fully_connected, fully_connected_1, …"""
    numbered = [f"fully_connected_{number}" if number else "fully_connected" for number in range(len(modules))]
    return tuple(
        (rf"^{re.escape(module)}\.{ours}$", f"{layer}/{theirs}")
        for module, layer in zip(modules, numbered, strict=True)
        for ours, theirs in (("weight", "weights"), ("bias", "biases"))
    )


_CELL_RENAMES: Renames = (
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
    "netvlad": _pool_renames("VLAD"),
    "netfv": _pool_renames("FV"),
    "soft_dbof": _pool_renames("DBOF"),
    "gated_dbof": _pool_renames("DBOF"),
    "dbof": (
        (r"^aggregator\.project\.weight$", "cluster_weights"),
        (r"^aggregator\.project\.bias$", "cluster_biases"),
        (r"^aggregator\.project_norm\.", "cluster_bn/"),
    ),
    "attention": (
        *((rf"^aggregator\.pools\.{f}\.input_norm\.", f"{tower}_input_bn/") for f, tower in TOWERS.items()),
        *((rf"^aggregator\.pools\.{f}\.norm\.", f"{tower}_cluster_bn/") for f, tower in TOWERS.items()),
        *_numbered_layers(
            *(f"aggregator.pools.{feature}.project" for feature in TOWERS),
            *(f"aggregator.pools.{feature}.gate" for feature in TOWERS),
            "head.output",
        ),
    ),
    "lstm": ((r"^aggregator\.layers\.(\d+)\.cells\.0\.", r"rnn/multi_rnn_cell/cell_\1/cells."), *_CELL_RENAMES),
    "bilstm": ((r"^aggregator\.", ""), *_CELL_RENAMES),
    "bigru": ((r"^aggregator\.layers\.", ""), *_CELL_RENAMES),
    "branched_gru": (
        *((rf"^aggregator\.branches\.{f}\.input_norm\.", f"{tower}_input_bn/") for f, tower in TOWERS.items()),
        *((rf"^aggregator\.branches\.{f}\.norm\.", f"{tower}_cluster_bn/") for f, tower in TOWERS.items()),
        *((rf"^aggregator\.branches\.{f}\.layers\.", f"{tower}/") for f, tower in TOWERS.items()),
        *_CELL_RENAMES,
        *_numbered_layers(*(f"aggregator.branches.{feature}.project" for feature in TOWERS), "head.output"),
    ),
}
