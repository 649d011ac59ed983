"""A model file ready to predict."""

import math
import os
from collections.abc import Callable, Mapping
from itertools import chain
from typing import TypeVar, cast

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from topgb.batch import Batch
from topgb.errors import InputError
from topgb.modelfile.encodings import checked_parts, decode, encode_plain
from topgb.modelfile.header import RERANKER, Header, TensorEncoding
from topgb.modelfile.mapped import MappedApart
from topgb.modelfile.packed import Resident, checked_resident, is_packed, packed_linear
from topgb.modelfile.store import read_model_file
from topgb.models import Tagger, build_tagger
from topgb.models.frontend import Frontend
from topgb.models.reranker import Reranker, RerankerOptions

Module = TypeVar("Module", bound=nn.Module)
# Frames of a model that looks at padding, which is made for every video: YouTube-8M has 300.
MOST_PADDING = 1 << 12


class LoadedModel(nn.Module):
    """The members of a model file, their mixture and the second stage over it, if there is one, in evaluation mode."""

    def __init__(self, header: Header, taggers: list[Tagger], reranker: Reranker | None = None):
        super().__init__()
        self.header = header
        self.members = nn.ModuleList(taggers)
        self.reranker = reranker
        self.eval()

    @property
    def max_frames(self) -> int:
        """The most frames that any member looks at."""
        return max(member.model.max_frames for member in self.header.members)

    @property
    def weights(self) -> int:
        """How many numbers were trained, statistics of batch norms left out; `parameters()` has no packed ones."""
        tensors = self.header.tensors.items()
        return sum(math.prod(e.shape) for name, e in tensors if not name.endswith(("running_mean", "running_var")))

    @torch.inference_mode()
    def predict_batch(self, batch: Batch) -> torch.Tensor:
        """Probabilities float32 [B, V] of a batch on the model's device.

        The weighted mean of the members', whose best classes a second stage judges anew.
        """
        mixture = torch.zeros(len(batch), self.header.classes, device=batch.features.device)
        for member, tagger in zip(self.header.members, self.members, strict=True):
            mixture += member.weight * cast(Tagger, tagger).predict_batch(batch)
        return mixture if self.reranker is None else self.reranker(mixture)

    def predict(self, features: np.ndarray, num_frames: np.ndarray | None = None) -> np.ndarray:
        """Probabilities float32 [B, V] (or [V]) from stored features [B, T, D] (or [T, D], one video).

        `features` are uint8 where every feature of the file is stored in bytes, float32 otherwise; `num_frames`
        int [B] is left out where no video is padded. Raises `InputError` where dtype or width do not fit.
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
        counts = np.full(len(features), features.shape[1]) if num_frames is None else np.atleast_1d(num_frames)
        if counts.shape != (len(features),) or counts.min() < 1 or counts.max() > features.shape[1]:
            raise InputError(f"num_frames must be {len(features)} numbers from 1 to {features.shape[1]}")
        device = next(chain(self.parameters(), self.buffers())).device
        batch = Batch(
            ids=[str(index) for index in range(len(features))],
            features=torch.from_numpy(np.ascontiguousarray(features)),
            num_frames=torch.from_numpy(counts.astype(np.int32)),
        )
        probabilities = self.predict_batch(batch.to(device)).cpu().numpy()
        return probabilities[0] if single else probabilities


def load(path: str | os.PathLike, device: torch.device | str = "cpu", resident: Resident | None = None) -> LoadedModel:
    """Open a model file for prediction on `device`.

    `resident` is what the large matrices of its linear layers take in memory: `packed` as many bytes as a weight has in
    an 8-bit file (those stored as floats stay floats), `half` two bytes, `full` four, float32. None is `packed` on a
    CPU, where it is fastest, and `full` elsewhere.

    Raises `InputError` in one sentence where the file is missing, truncated, malformed, of a newer version, or holds
    values that are not finite.
    """
    if resident is None:
        resident = default_resident(torch.device(device))
    header, stored = read_model_file(path)
    return assemble(header, MappedApart(path, stored), str(path), checked_resident(resident)).to(device)


def default_resident(device: torch.device) -> Resident:
    """What `load` takes on `device` where nothing is asked for."""
    return "packed" if device.type == "cpu" else "full"


def assemble(
    header: Header, stored: Mapping[str, torch.Tensor], source: str, resident: Resident = "full"
) -> LoadedModel:
    """The model of a header and its stored tensors; `source` names them in an `InputError` where they don't fit."""
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
            taggers.append(_tagger(header, place, entries[place], stored, resident))
        except InputError as error:
            raise InputError(f"{source}: member {place}: {error}") from error.__cause__
    try:
        reranker = None if header.reranker is None else _reranker(header, header.reranker, second, stored)
    except InputError as error:
        raise InputError(f"{source}: second stage: {error}") from error.__cause__
    return LoadedModel(header, taggers, reranker)


def pack_member(
    index: int, state: dict[str, torch.Tensor]
) -> tuple[dict[str, TensorEncoding], dict[str, torch.Tensor]]:
    """Entries and tensors, by full name, of member `index` from a `Tagger.state_dict()`, unquantised."""
    entries, tensors = {}, {}
    for name, tensor in state.items():
        full = f"members.{index}.{name}"
        entries[full], parts = encode_plain(tensor, "float32")
        tensors[full] = parts[""]
    return entries, tensors


def _tagger(
    header: Header,
    index: int,
    entries: dict[str, TensorEncoding],
    stored: Mapping[str, torch.Tensor],
    resident: Resident,
) -> Tagger:
    member, prefix = header.members[index], f"members.{index}."
    _check_modules(member.model.mixture * getattr(member.model.aggregator_options, "layers", 1), entries)
    tagger = _unfilled(lambda: build_tagger(header.features, header.classes, member.model))
    expected = {name: tensor.shape for name, tensor in tagger.state_dict().items()}
    modules = dict(tagger.named_modules())
    if tagger.frontend.pads_to_max_frames and member.model.max_frames > MOST_PADDING:
        raise InputError(
            f"it looks at padding up to {member.model.max_frames} frames, of at most {MOST_PADDING}; get the file again"
        )
    state, packed = {}, {}
    for name, entry in entries.items():
        path = name.removesuffix(".weight")
        linear = modules.get(path)
        if linear is not None and entry.shape == expected.get(name) and is_packed(linear, entry, resident):
            parts = checked_parts(stored, entry, prefix + name)
            packed[path] = packed_linear(linear, parts, entry, prefix + name, resident)
        else:
            state[name] = decode(stored, entry, prefix + name)
    _check_fit(entries, state, expected, prefix)
    for name, tensor in state.items():
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise InputError(f"tensor {prefix}{name} has a negative variance; the model is broken, build it again")
    for path, module in packed.items():
        parent, _, child = path.rpartition(".")
        # A feature's module may have the name of an attribute, which setattr would set instead.
        modules[parent]._modules[child] = module
    tagger.load_state_dict(state, assign=True)
    # Its buffers are as wide as the header says, which is known to be true only now.
    tagger.frontend = Frontend(header.features, member.model, tagger.frontend.pads_to_max_frames)
    return tagger.requires_grad_(False)


def _reranker(
    header: Header, options: RerankerOptions, entries: dict[str, TensorEncoding], stored: Mapping[str, torch.Tensor]
) -> Reranker:
    _check_modules(options.layers, entries)
    reranker = _unfilled(lambda: Reranker(header.classes, options))
    expected = {name: tensor.shape for name, tensor in reranker.state_dict().items()}
    state = {name: decode(stored, entry, RERANKER + name) for name, entry in entries.items()}
    _check_fit(entries, state, expected, RERANKER)
    reranker.load_state_dict(state, assign=True)
    return reranker.requires_grad_(False)


def _check_fit(
    entries: Mapping[str, TensorEncoding],
    state: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Size],
    prefix: str,
) -> None:
    """Raise `InputError` where the file has other tensors than the architecture, or of other shapes."""
    if entries.keys() != expected.keys():
        odd = sorted(entries.keys() ^ expected.keys())
        raise InputError(
            f"file and architecture disagree about the tensors {', '.join(map(repr, odd[:3]))}; get the file again"
        )
    for name, tensor in state.items():
        if tensor.shape != expected[name]:
            raise InputError(
                f"tensor {prefix}{name} is {list(tensor.shape)}, but its architecture needs {list(expected[name])}; "
                "get the file again"
            )


def _check_modules(modules: int, entries: Mapping[str, TensorEncoding]) -> None:
    # Each has tensors of its own. To build them takes time and memory, on the meta device too.
    if modules > len(entries):
        raise InputError("the sizes in the header make no model of its tensors; get the file again")


def _unfilled(build: Callable[[], Module]) -> Module:
    """What `build` makes on the meta device, where no weight is allocated only to be replaced by the file's."""
    try:
        with torch.device("meta"), _WithoutValues():
            return build()
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        # Each size may be sound and their product still too much for a tensor.
        raise InputError("the sizes in the header make no model; get the file again") from error


class _WithoutValues(TorchFunctionMode):
    """Gives a constructor's initial values their shapes alone.

    On the meta device, calculating them would be quick but for the import of PyTorch's compiler: 75 MB and a second.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, values = getattr(func, "__name__", ""), [*args, *(kwargs or {}).values()]
        if name in ("normal_", "mul", "add"):
            return next(value for value in values if isinstance(value, torch.Tensor))
        if name == "cat":
            return torch.empty(sum(len(part) for part in values[0]), *values[0][0].shape[1:])
        return (torch.empty if name == "randn" else func)(*args, **(kwargs or {}))
