"""One model file exported to both formats, traced once for both: most of an export's time is its tracing."""

from pathlib import Path

import numpy as np
import torch

from topgb.modelfile.export import exporting
from topgb.modelfile.export.onnx import save_onnx
from topgb.modelfile.export.pt2 import save_pt2
from topgb.modelfile.store import read_model_file


def export_both(path: Path, takes: exporting.Input = "stored") -> None:
    """As `export_model`, to `path` with the endings `.onnx` and `.pt2`."""
    header, stored = read_model_file(path)
    with exporting.quiet():
        program = exporting.exported_program(exporting.ExportGraph(header, stored, takes == "float"), header)
        for save, ending in ((save_pt2, ".pt2"), (save_onnx, ".onnx")):
            save(program, header, exporting.description(header, takes), path.with_suffix(ending), False)


def run_exported(path: Path, to: str, features: np.ndarray, num_frames: np.ndarray) -> np.ndarray:
    """The probabilities float32 [B, V] by what `export_both(path)` wrote for `to`."""
    out = path.with_suffix(f".{to}")
    if to == "onnx":
        import onnxruntime

        return onnxruntime.InferenceSession(out).run(None, {"features": features, "num_frames": num_frames})[0]
    program = torch.export.load(out).module()
    return program(torch.from_numpy(features), torch.from_numpy(num_frames)).detach().numpy()
