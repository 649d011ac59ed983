"""Nets in ONNX Runtime, on one thread: with more, their last bits depend on the number."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from topgb.errors import TopgbError, install_extra

# A function to one vector: of a picture uint8 [side, side, 3], or of a second of sound float32 [16000].
Net = Callable[[np.ndarray], np.ndarray]


def open_session(model: Path | bytes) -> Any:
    """An `onnxruntime.InferenceSession` of a file or of its bytes. Raises `TopgbError` where the extra is missing."""
    # Its wheels of 1.32 bring telemetry: the import alone writes an identity of the machine, and a store of reports for
    # their maker, into the folders for caches and temporary files. Who wants that may set the variable to 0.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError:
        raise TopgbError(
            f"extracting features needs ONNX Runtime, which is not installed here; {install_extra('video')}"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Errors come as exceptions; warnings about the machine's devices help nobody here.
    options.log_severity_level = 4
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
