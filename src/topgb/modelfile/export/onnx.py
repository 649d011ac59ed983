"""The exported graph as an ONNX file."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import torch

from topgb.errors import InputError, install_extra
from topgb.files import atomic_path, locked_partial, refuse_existing, remove_dead_partials, write_failure
from topgb.modelfile.export.graph import INPUTS, OUTPUT
from topgb.modelfile.header import METADATA_KEY, Header

# Bitwise masks of bytes need opset 18 or later; 20 is the exporter's default.
OPSET = 20
# Protobuf's limit of 2 GiB, less room for the graph.
MOST_BYTES = 2**31 - 2**24
# Constants of at most this many elements are computed in advance: shapes and steps, never a weight.
FOLDED = 64


def require_onnx() -> None:
    """Raise `InputError` where the extra `onnx` is not installed."""
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"an export to ONNX needs {missing[0]}, which is not installed here; {install_extra('onnx')}")


def save_onnx(
    program: torch.export.ExportedProgram, header: Header, description: str, out: Path, force: bool
) -> list[Path]:
    """Write `program` as ONNX with `description` in its metadata, key `topgb`; return the files written.

    Beyond protobuf's 2 GiB the weights go into a second file, `out` + `.data`.
    """
    import onnx_ir

    data = out.with_name(out.name + ".data")
    if sum(tensor.nbytes for tensor in program.state_dict.values()) > MOST_BYTES:
        # Before the conversion, which takes long.
        refuse_existing(data, force)
    model = _to_onnx(program, header)
    model.metadata_props[METADATA_KEY] = description
    if sum(value.const_value.nbytes for value in model.graph.initializers.values()) <= MOST_BYTES:
        with atomic_path(out) as partial:
            partial.write_bytes(onnx_ir.to_proto(model).SerializeToString(deterministic=True))
        return [out]
    refuse_existing(data, force)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # A killed export leaves gigabytes.
        remove_dead_partials(out)
        with locked_partial(out, folder=True) as folder:
            # The graph holds the name of the weights' file, so both are written under their final names.
            onnx_ir.save(model, folder / out.name, format="protobuf", external_data=data.name)
            for path in (data, out):
                with atomic_path(path) as partial:
                    os.replace(folder / path.name, partial)
            folder.rmdir()
    except OSError as error:
        raise write_failure(out, error) from error
    return [out, data]


def _to_onnx(program: torch.export.ExportedProgram, header: Header) -> Any:
    """The program as an `onnx_ir.Model` with the documented names and without the exporter's metadata."""
    import onnx_ir
    from onnxscript import optimizer

    onnx_program = torch.onnx.export(
        program, dynamo=True, optimize=False, verbose=False, opset_version=OPSET,
        input_names=list(INPUTS), output_names=[OUTPUT], custom_translation_table=_shifts_of_bytes(),
    )  # fmt: skip
    assert onnx_program is not None
    model = onnx_program.model
    # The exporter's own optimisation would compute small weights from their codes.
    optimizer.optimize(model, onnx_shape_inference=False, input_size_limit=FOLDED, output_size_limit=FOLDED)
    for graph in model.graphs():
        for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
            value.metadata_props.clear()
        for node in graph:
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
    features, counts = model.graph.inputs
    features.shape = onnx_ir.Shape(["videos", "frames", header.features.width])
    counts.shape = onnx_ir.Shape(["videos"])
    model.graph.outputs[0].shape = onnx_ir.Shape(["videos", header.classes])
    return model


def _shifts_of_bytes() -> dict[Any, Any]:
    """ONNX translations of the shifts in `decoding.traced_unpack`; the exporter's own make unsigned bytes signed."""
    from onnxscript import opset20

    def shift(direction: str) -> Any:
        return lambda packed, places: opset20.BitShift(packed, places, direction=direction)

    aten = torch.ops.aten
    return {aten.bitwise_right_shift.Tensor: shift("RIGHT"), aten.bitwise_left_shift.Tensor: shift("LEFT")}
