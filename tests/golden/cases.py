"""Golden cases, computed by the 2018 code: found by file name and JSON, whatever folder they lie in."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from topgb.from2018.flags import WITHOUT_EFFECT
from topgb.models.frontend import l2_normalize
from topgb.records.sampling import random_frames, random_sequence, sample_all, shuffle_frames

FOLDER = Path(os.environ.get("TOPGB_GOLDEN", Path(__file__).resolve().parents[3] / "shared" / "golden"))

# The 2018 classes that sample frames, in inference too.
SAMPLED = ("DbofModel", "SoftDbofModelLF", "GatedDbofModelLF", "NetVLADModelLF", "NetFVModelLF")


@dataclass(frozen=True)
class Case:
    """One case: its arrays by key, and the settings in its JSON."""

    name: str
    settings: dict[str, Any]

    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(FOLDER / f"{self.name}.npz", allow_pickle=False) as file:
            return dict(file)

    def __str__(self) -> str:
        return self.name


def cases(pattern: str) -> list[Case]:
    """The cases whose file name matches the glob `pattern`, in name order."""
    return [
        Case(path.stem, json.loads(path.with_suffix(".json").read_text()))
        for path in sorted(FOLDER.glob(f"{pattern}.npz"))
    ]


def looked_at(case: Case, arrays: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """The frames float32 [B, T, D], normalised, and num_frames int32 [B] that the 2018 graph looked at in a case.

    `sampling` says what its sampler did: nothing (`none`: the model has none), the identity, or draws by `uniform`. A
    graph with a sampler looks at as many frames of every video, padding among them where the identity stands for it.
    """
    frames, num_frames = torch.from_numpy(arrays["input"]), torch.from_numpy(arrays["num_frames"]).int()
    if frames.ndim == 2:
        frames, num_frames = frames[:, None], torch.ones_like(num_frames)
    frames = l2_normalize(frames, dim=2)
    sampling, flags = case.settings["sampling"], {**WITHOUT_EFFECT, **case.settings["flags_set"]}
    assert sampling in ("none", "identity", "uniform"), sampling
    if sampling == "uniform":
        counts = num_frames.tolist()
        rows = [_sampled(flags, case.settings["model"], u, n) for u, n in zip(arrays["uniform"], counts, strict=True)]
        frames = torch.stack([video[torch.from_numpy(index)] for video, index in zip(frames, rows, strict=True)])
    if case.settings["model"] in SAMPLED and sampling != "none":
        num_frames = torch.full_like(num_frames, frames.shape[1])
    return frames, num_frames


def _sampled(flags: dict[str, Any], model: str, uniform: np.ndarray, num_frames: int) -> np.ndarray:
    if model not in SAMPLED:
        # Only the bidirectional LSTM draws otherwise, and its shuffling leaves padding where it is.
        rows = np.arange(len(uniform))
        if flags["frame_shuffle"]:
            rows[:num_frames] = shuffle_frames(uniform, num_frames)
        return rows
    if not flags["sample_random_frames"]:
        return random_sequence(uniform, num_frames, flags["iterations"])
    return sample_all(uniform, num_frames) if flags["sample_all"] else random_frames(uniform, num_frames)


def variables(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The 2018 variables under `prefix` (`var|`, `step2|`), by their names inside the scope `tower/`."""
    start = f"{prefix}tower/"
    return {key.removeprefix(start): value for key, value in arrays.items() if key.startswith(start)}
