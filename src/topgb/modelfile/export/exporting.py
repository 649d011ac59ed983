"""Export a model file to a file that runs without topgb."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.fx.config

from topgb.errors import InputError, option
from topgb.files import refuse_existing
from topgb.modelfile.export.graph import ExportGraph
from topgb.modelfile.export.onnx import require_onnx, save_onnx
from topgb.modelfile.export.pt2 import save_pt2
from topgb.modelfile.exported import Input, description
from topgb.modelfile.header import Header
from topgb.modelfile.loaded import assemble_stored
from topgb.modelfile.store import StoredModel, stored_model

Format = Literal["onnx", "pt2"]
FORMATS = get_args(Format)
# PyTorch's switch; versions that do not know it ignore it.
UNTRACED = "do_not_emit_stack_traces"


def export_model(
    model: Path | StoredModel, out: Path, to: Format, force: bool = False, takes: Input = "stored"
) -> list[Path]:
    """Write the model as `out`, ONNX or a PyTorch program, and return the files written (docs/export.md).

    The file takes `features` (uint8 or float32 [B, T, D], as stored) and `num_frames` (int64 [B]) and gives
    `probabilities` (float32 [B, V]) for any B and T of at least 1. If it `takes` "float", features are raw values,
    float32 [B, T, D], which it encodes with the model's own ranges, as `topgb.Model.tag` does. Raises `InputError`
    where the model file is not sound, `out` exists and `force` is off, or what `to` needs is not installed,
    `TopgbError` where it cannot be written.
    """
    named = out.suffix.removeprefix(".").lower()
    if named in FORMATS and named != to:
        raise InputError(
            f"the name {out} says {named}, and {option('to', to)} asks for another format; let the name end in .{to}, "
            f"or ask for {option('to', named)}"
        )
    if to == "onnx":
        require_onnx()
    refuse_existing(out, force)
    # Decode every weight to find faults of the file; tracing does not look at values.
    stored = stored_model(model)
    header = stored.header
    assemble_stored(stored, "packed")
    with quiet():
        program = exported_program(ExportGraph(header, stored.tensors, takes == "float"), header)
        return (save_onnx if to == "onnx" else save_pt2)(program, header, description(header, takes), out, force)


def exported_program(graph: ExportGraph, header: Header) -> torch.export.ExportedProgram:
    """`graph` traced for any number of videos and frames, with no information about the machine that traced it."""
    # The tracer takes sizes of 0 and 1 for constants, and equal sizes for the same size: avoid all three.
    features = torch.zeros(2, 3, header.features.width, dtype=graph.dtype)
    videos, frames = torch.export.Dim("videos", min=1), torch.export.Dim("frames", min=1)
    shapes = {"features": {0: videos, 1: frames}, "num_frames": {0: videos}}
    program = torch.export.export(graph, (features, torch.tensor([3, 2])), dynamic_shapes=shapes)
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in list(module.graph.nodes):
                if node.target is torch.ops.aten._assert_tensor_metadata.default:
                    # This node before every conversion checks a dtype that tracing has settled.
                    module.graph.erase_node(node)
                for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):
                    node.meta.pop(key, None)
    return program


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters' messages to their own developers, and their notes of where in the code a node arose.

    An export without these notes takes a sixth less time, and the files must not contain them anyway.
    """
    level, traces = logging.root.manager.disable, getattr(torch.fx.config, UNTRACED, None)
    logging.disable(logging.WARNING)
    try:
        setattr(torch.fx.config, UNTRACED, True)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        setattr(torch.fx.config, UNTRACED, traces)
