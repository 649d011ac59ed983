"""Facts about exported files before they are made: the text that they hold, and estimates of their sizes."""

import json
from dataclasses import dataclass
from typing import Literal

from topgb.modelfile.encodings import rows_and_columns, stored_bytes
from topgb.modelfile.header import Header, TensorEncoding
from topgb.modelfile.member import IMPOSSIBLE_SIZES
from topgb.modelfile.store import StoredModel
from topgb.models import build_tagger
from topgb.models.initial_values import unfilled
from topgb.models.recurrent import GRU, LSTM, ResetAfterGRU

Input = Literal["stored", "float"]


def description(header: Header, takes: Input = "stored") -> str:
    """JSON for users of an exported file: what its inputs are and were made by, class names and thresholds."""
    names = None if header.class_names is None else list(header.class_names)
    value = {"input": takes, "features": header.features.to_json(), "classes": header.classes, "class_names": names}
    if header.thresholds is not None:
        value["thresholds"] = header.thresholds.tolist()
    if header.extractor is not None:
        value["extractor"] = header.extractor
    return json.dumps(value, sort_keys=True)


@dataclass(frozen=True)
class _Graph:
    """Bytes of a graph without weights, fitted to exports of every architecture and encoding."""

    whole: int
    column: int
    member: int
    tensor: int
    decoded: int
    unpacked: int
    loop: int


_GRAPHS = {
    "onnx": _Graph(3000, column=4, member=540, tensor=510, decoded=290, unpacked=1460, loop=2590),
    "pt2": _Graph(16500, column=12, member=22300, tensor=2700, decoded=390, unpacked=8200, loop=15500),
}


def exported_bytes(model: StoredModel) -> dict[str, int]:
    """Estimates of the bytes of the model's exports to `onnx` and `pt2`.

    Weights and text are counted exactly. The graph around them is estimated from the numbers of its parts, to about a
    third; it takes 4 to 35 KB per member in ONNX, and 40 to 210 KB in a PyTorch program.
    """
    header = model.header
    exact = sum(_kept_bytes(model, entry, name) for name, entry in header.tensors.items())
    exact += len(description(header).encode())
    encodings = [entry.encoding for entry in header.tensors.values()]
    decoded = len(encodings) - encodings.count("float32") - encodings.count("int32")
    unpacked = sum(entry.encoding == "groups" and entry.bits != 8 for entry in header.tensors.values())
    loops = _loops(header)
    return {
        to: exact
        + each.whole
        + each.column * header.features.width
        + each.member * len(header.members)
        + each.tensor * len(encodings)
        + each.decoded * decoded
        + each.unpacked * unpacked
        + each.loop * loops
        for to, each in _GRAPHS.items()
    }


def exported_sizes_in_words(sizes: dict[str, int]) -> str:
    """`exported_bytes` as a line to print, rounded to what the estimate is worth."""
    said = [f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} KB" for size in sizes.values()]
    return f"exported about {said[0]} as ONNX, {said[1]} as pt2 (topgb model export)"


def _kept_bytes(model: StoredModel, entry: TensorEncoding, name: str) -> int:
    """Bytes of the parts that `decoding.kept_parts` would return, found without unpacking anything."""
    if entry.encoding not in ("int8", "int8_zlib"):
        return stored_bytes(model.tensors, entry, name)
    rows, columns = rows_and_columns(entry.shape)
    return rows * columns + model.tensors[name + ".scales"].nbytes


def _loops(header: Header) -> int:
    """How many loops over frames the graph holds: one for each direction of each recurrent layer."""
    found = 0
    for member in header.members:
        config = member.model
        tagger = unfilled(lambda: build_tagger(header.features, header.classes, config), IMPOSSIBLE_SIZES)  # noqa: B023
        for module in tagger.modules():
            if isinstance(module, LSTM):
                found += len(module.cells)
            elif isinstance(module, GRU):
                found += len(module.gates)
            elif isinstance(module, ResetAfterGRU):
                found += len(module.inputs)
    return found
