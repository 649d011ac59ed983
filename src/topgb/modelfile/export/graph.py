"""A model file as one module from stored features to probabilities, which keeps the weights encoded as in the file."""

import re
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import nn

from topgb.modelfile.encodings import Parts, checked_parts
from topgb.modelfile.export.decoding import kept_parts, traced_values
from topgb.modelfile.export.raw_values import RawValues
from topgb.modelfile.export.scanned import replace_recurrent
from topgb.modelfile.header import RERANKER, Header, TensorEncoding
from topgb.modelfile.member import IMPOSSIBLE_SIZES
from topgb.models import build_tagger
from topgb.models.frontend import Frontend
from topgb.models.initial_values import unfilled
from topgb.models.reranker import Reranker, RerankerOptions

INPUTS = ("features", "num_frames")
OUTPUT = "probabilities"


class _Weight(nn.Module):
    """One stored tensor; a call decodes it to float32."""

    def __init__(self, parts: Parts, entry: TensorEncoding):
        super().__init__()
        self.entry, self.suffixes = entry, list(parts)
        for suffix, part in parts.items():
            self.register_buffer(_part_name(suffix), part)

    def forward(self) -> torch.Tensor:
        return traced_values({suffix: getattr(self, _part_name(suffix)) for suffix in self.suffixes}, self.entry)


class ExportGraph(nn.Module):
    """Every member, their mixture, and the second stage over the mixture.

    `forward(features uint8 or float32 [B, T, D], num_frames int64 [B]) -> probabilities float32 [B, V]`, for any B and
    T of at least 1. Features are stored ones, or with `raw` float32 values that are encoded first. The state
    holds the stored tensors as buffers, and `forward` decodes them, so that `torch.export` traces the decoding too.
    Raises `InputError` where a tensor does not match the header.
    """

    def __init__(self, header: Header, stored: Mapping[str, torch.Tensor], raw: bool = False):
        super().__init__()
        has_bytes = any(feature.dtype == "uint8" for feature in header.features.features)
        self.encode = RawValues(header.features) if raw and has_bytes else nn.Identity()
        self.dtype = torch.uint8 if header.features.all_bytes and not raw else torch.float32
        self.shares = [member.weight for member in header.members]
        self.weights = nn.ModuleDict()
        # In a list, so that the architectures, emptied of their parameters, are no submodules.
        self._members = [_Member(header, stored, place, self.weights) for place in range(len(header.members))]
        # Members that look at the same frames share one frontend, which makes the graph smaller and quicker.
        self._frontends: dict[Hashable, _Stage] = {}
        for member in self._members:
            if member.seen not in self._frontends:
                prefix = f"frontends.{len(self._frontends)}."
                self._frontends[member.seen] = _Stage(member.frontend, prefix, header, stored, self.weights)
        self._second = None if header.reranker is None else _SecondStage(header, header.reranker, stored, self.weights)
        self.eval()

    def forward(self, features: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
        features = self.encode(features)
        frames = {key: frontend(features, num_frames) for key, frontend in self._frontends.items()}
        mixture = torch.zeros((), device=features.device)
        for share, member in zip(self.shares, self._members, strict=True):
            mixture = mixture + share * member(*frames[member.seen])
        return mixture if self._second is None else self._second(mixture)


class _Stage:
    """A module whose weights are decoded anew for each call, and freed after it."""

    def __init__(
        self, module: nn.Module, prefix: str, header: Header, stored: Mapping[str, torch.Tensor], weights: nn.ModuleDict
    ):
        self.module = module
        self._slots: list[tuple[nn.Module, str, nn.Module]] = []
        for path, part in module.named_modules():
            for leaf, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
                name = f"{prefix}{path}.{leaf}" if path else f"{prefix}{leaf}"
                weight = _weight(header, stored, name) or _Weight({"": tensor}, _as_it_is(tensor))
                weights[_identifier(name, weights)] = weight
                self._slots.append((part, leaf, weight))
                delattr(part, leaf)

    def __call__(self, *inputs: torch.Tensor) -> Any:
        for part, leaf, weight in self._slots:
            part.__dict__[leaf] = weight()
        try:
            return self.module(*inputs)
        finally:
            for part, leaf, _ in self._slots:
                del part.__dict__[leaf]


class _Member(_Stage):
    """A member's architecture without its `frontend`; those of members with equal `seen` give the same frames."""

    def __init__(self, header: Header, stored: Mapping[str, torch.Tensor], place: int, weights: nn.ModuleDict):
        config = header.members[place].model
        tagger = unfilled(lambda: build_tagger(header.features, header.classes, config), IMPOSSIBLE_SIZES)
        pads = tagger.frontend.pads_to_max_frames
        self.frontend = Frontend(header.features, config, pads).eval()
        self.seen = config.features, config.normalization, config.max_frames, pads
        del tagger.frontend
        replace_recurrent(tagger)
        super().__init__(tagger.eval(), f"members.{place}.", header, stored, weights)


class _SecondStage(_Stage):
    """The architecture of the second stage, which rescores the mixture's best classes."""

    def __init__(
        self, header: Header, options: RerankerOptions, stored: Mapping[str, torch.Tensor], weights: nn.ModuleDict
    ):
        reranker = unfilled(lambda: Reranker(header.classes, options), IMPOSSIBLE_SIZES).eval()
        super().__init__(reranker, RERANKER, header, stored, weights)


def _weight(header: Header, stored: Mapping[str, torch.Tensor], name: str) -> _Weight | None:
    """The stored tensor `name`; None if the file does not store it (the frontend's scale and offset)."""
    entry = header.tensors.get(name)
    return None if entry is None else _Weight(kept_parts(checked_parts(stored, entry, name), entry, name), entry)


def _as_it_is(tensor: torch.Tensor) -> TensorEncoding:
    return TensorEncoding("float32", tuple(tensor.shape))


def _part_name(suffix: str) -> str:
    return suffix.removeprefix(".") or "values"


def _identifier(name: str, taken: nn.ModuleDict) -> str:
    """`name` reduced to letters, digits and underscores, because feature names may hold any character."""
    identifier = re.sub(r"\W", "_", name, flags=re.ASCII)
    while identifier in taken:
        identifier += "_"
    return identifier
