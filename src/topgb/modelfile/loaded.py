"""A model file ready to predict."""

import math
import os
from collections.abc import Mapping
from contextlib import nullcontext
from typing import cast

import numpy as np
import torch
from torch import nn

from topgb.batch import Batch
from topgb.devices import Precision, Resident, checked_resident, free_memory
from topgb.errors import InputError
from topgb.modelfile.header import RERANKER, Header, TensorEncoding
from topgb.modelfile.member import decode_member, decode_reranker
from topgb.modelfile.store import MappedApart, StoredModel, read_model_file
from topgb.models import Tagger
from topgb.models.activations import ActivationCheck
from topgb.models.reranker import Reranker


class LoadedModel(nn.Module):
    """The members of a model file, their mixture and the second stage over it, if there is one, in evaluation mode."""

    _place: torch.Tensor

    def __init__(
        self,
        header: Header,
        taggers: list[Tagger],
        reranker: Reranker | None = None,
        precision: Precision = "float32",
    ):
        super().__init__()
        self.header, self.precision = header, precision
        self.members = nn.ModuleList(taggers)
        self.reranker = reranker
        # Moves with the model; to look for the first parameter in every call would take longer than a small layer.
        self.register_buffer("_place", torch.empty(0), persistent=False)
        self._check_activations = ActivationCheck(free_memory)
        self.eval()

    @property
    def max_frames(self) -> int:
        """The most frames that any member looks at."""
        return self.header.max_frames

    @property
    def weights(self) -> int:
        """How many weights the model has, batch-norm statistics left out; `parameters()` leaves out packed weights."""
        tensors = self.header.tensors.items()
        return sum(math.prod(e.shape) for name, e in tensors if not name.endswith(("running_mean", "running_var")))

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self._place.device

    @torch.inference_mode()
    def predict_batch(self, batch: Batch) -> torch.Tensor:
        """Probabilities float32 [B, V] of a batch on the model's device.

        They are the weighted mean of the members' probabilities; a second stage rescores each video's best classes.
        Raises `InputError` if the device has too little memory for the batch.
        """
        self._check_activations(self, self._probabilities, batch)
        return self._probabilities(batch)

    def _probabilities(self, batch: Batch) -> torch.Tensor:
        device = batch.features.device
        mixture: torch.Tensor | None = None
        for member, tagger in zip(self.header.members, self.members, strict=True):
            with torch.autocast(device.type, torch.bfloat16) if self.precision == "bfloat16" else nullcontext():
                probabilities = cast(Tagger, tagger).predict_batch(batch)
            weighted = probabilities.float() if member.weight == 1 else member.weight * probabilities
            mixture = weighted if mixture is None else mixture + weighted
        assert mixture is not None, "a header has at least one member"
        return mixture if self.reranker is None else self.reranker(mixture)

    def predict(self, features: np.ndarray, num_frames: np.ndarray | None = None) -> np.ndarray:
        """Probabilities float32 [B, V] (or [V]) from stored features [B, T, D] (or [T, D], one video).

        `features` are uint8 where every feature of the file is stored in bytes, float32 otherwise; `num_frames`
        int [B] is left out where no video is padded. B may be 0. Raises `InputError` where dtype or width do not fit.
        """
        single = features.ndim == 2
        features = features[None] if single else features
        spec = self.header.features
        expected = np.uint8 if spec.all_bytes else np.float32
        if features.ndim != 3 or features.shape[2] != spec.width or features.dtype != expected:
            raise InputError(
                f"features are {features.dtype} {list(features.shape)}; this model takes {np.dtype(expected)} "
                f"[videos, frames, {spec.width}]"
            )
        videos, frames = features.shape[:2]
        if num_frames is not None:
            num_frames = np.atleast_1d(num_frames)
            if num_frames.shape != (videos,) or ((num_frames < 1) | (num_frames > frames)).any():
                raise InputError(f"num_frames must be {videos} numbers from 1 to {frames}")
        if not videos:
            # Without videos there may be no frames either, which no model could pool.
            return np.zeros((0, self.header.classes), np.float32)
        if not frames:
            raise InputError(f"features are {features.dtype} {list(features.shape)}; a video has at least one frame")
        # A model of few weights takes hardly longer than Python around it, so little is done twice or for nothing.
        device = self.device
        if num_frames is None:
            counts = torch.full((videos,), frames, dtype=torch.int32, device=device)
        else:
            counts = torch.from_numpy(num_frames.astype(np.int32)).to(device)
        stored = torch.from_numpy(np.ascontiguousarray(features)).to(device)
        probabilities = self.predict_batch(Batch([""] * videos, stored, counts)).cpu().numpy()
        return probabilities[0] if single else probabilities


def load(
    path: str | os.PathLike,
    device: torch.device | str = "cpu",
    resident: Resident | None = None,
    precision: Precision = "float32",
) -> LoadedModel:
    """Open a model file for prediction on `device`.

    `resident` says what the large matrices of linear layers take in memory: `packed` one byte per weight (matrices
    stored as floats stay floats), `half` two bytes, bfloat16, `full` four bytes, float32. None means `packed` on a CPU,
    where it is fastest, and `full` elsewhere. With the `precision` bfloat16 the members' products are computed in it;
    packed float matrices then take two bytes per weight, rounded once here.

    Raises `InputError` in one sentence where the file is missing, truncated, malformed, of a newer version, or holds
    values that are not finite.
    """
    if resident is None:
        resident = default_resident(torch.device(device))
    header, stored = read_model_file(path)
    return assemble(header, MappedApart(path, stored), str(path), checked_resident(resident), precision).to(device)


def default_resident(device: torch.device) -> Resident:
    """The `resident` that `load` chooses for `device` when the caller gives none."""
    return "packed" if device.type == "cpu" else "full"


def assemble(
    header: Header,
    stored: Mapping[str, torch.Tensor],
    source: str,
    resident: Resident = "full",
    precision: Precision = "float32",
) -> LoadedModel:
    """The model of a header and its stored tensors. Raises `InputError` naming `source` where these do not fit."""
    entries: list[dict[str, TensorEncoding]] = [{} for _ in header.members]
    second: dict[str, TensorEncoding] = {}
    for full, entry in header.tensors.items():
        if full.startswith(RERANKER):
            second[full.removeprefix(RERANKER)] = entry
        else:
            _, index, name = full.split(".", 2)
            entries[int(index)][name] = entry
    taggers = []
    for place in range(len(header.members)):
        try:
            taggers.append(decode_member(header, place, entries[place], stored, resident, precision))
        except InputError as error:
            raise InputError(f"{source}: member {place}: {error}") from error.__cause__
    try:
        reranker = None if header.reranker is None else decode_reranker(header, header.reranker, second, stored)
    except InputError as error:
        raise InputError(f"{source}: second stage: {error}") from error.__cause__
    return LoadedModel(header, taggers, reranker, precision)


def assemble_stored(model: StoredModel, resident: Resident = "full", precision: Precision = "float32") -> LoadedModel:
    """The model of a `StoredModel`, ready to predict. Raises as `assemble` does."""
    return assemble(model.header, model.tensors, str(model.path), resident, precision)
