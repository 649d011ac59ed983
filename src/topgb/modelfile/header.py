"""The header of a model file: the JSON under the metadata key `topgb` (docs/model-file.md)."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any
from unicodedata import normalize

import numpy as np
from pydantic import Field

from topgb.errors import InputError, option
from topgb.features import MOST_VALUES, Dtype, Feature, FeatureSpec, Level
from topgb.json_reading import parse_json
from topgb.models import ModelConfig, parse_model
from topgb.models.options import Options, validate
from topgb.models.reranker import RerankerOptions

if TYPE_CHECKING:
    from topgb.extractor_identity import Identity

METADATA_KEY = "topgb"
# The remedy for contents that no topgb writes: another copy of the same file would not help.
CHANGED = "it is not as topgb wrote it; use an unchanged copy, or make the model anew"
# Files without a second stage and without extras are of version 1, those without extras of version 2, so that older
# readers open the files that they understand.
FORMAT_VERSION = 3
# Tensors of the second stage are named `reranker.NAME`.
RERANKER = "reranker."
MOST_MEMBERS = 1000
# The key of `extras` with the least probability at which each class is given.
THRESHOLDS = "thresholds"
# The key of `extras` with the identity of the extractor that made the features.
EXTRACTOR = "extractor"
# The key of `extras` that says that the model predicts segments: the frames that it sees, and its rated classes.
SEGMENTS = "segments"
# The sum of the members' weights may differ from 1 by this much.
WEIGHT_TOLERANCE = 1e-4
# Largest product of a tensor's dimensions, zeros left out: torch overflows soon above, even where there are no values.
MOST_PRODUCT = 1 << 60

_MEMBER_TENSOR = re.compile(r"members\.(0|[1-9]\d{0,3})\..+")


class _FeatureEntry(Options):
    name: str
    size: int
    dtype: Dtype
    range: list[float] = Field(min_length=2, max_length=2)


class _FeaturesEntry(Options):
    level: Level
    features: list[_FeatureEntry]


class _MemberEntry(Options):
    weight: float = Field(ge=0.0)
    model: dict[str, Any]


class _TensorEntry(Options):
    encoding: str
    shape: list[Annotated[int, Field(ge=0, le=MOST_VALUES)]]
    bits: int | None = None
    group: int | None = None


class _HeaderEntry(Options):
    """The header's JSON, key by key."""

    version: int = Field(ge=1)
    features: _FeaturesEntry
    classes: int = Field(ge=1, le=MOST_VALUES)
    class_names: list[str] | None
    members: list[_MemberEntry] = Field(min_length=1, max_length=MOST_MEMBERS)
    tensors: dict[str, _TensorEntry]
    origin: dict[str, Any]
    reranker: RerankerOptions | None = None
    extras: dict[str, Any] = Field(default_factory=dict)


class _ThresholdsEntry(Options, extra="ignore"):
    """The value of `extras.thresholds`; later versions may say more."""

    goal: str
    common: float = Field(ge=0.0, le=1.0)
    values: list[Annotated[float, Field(ge=0.0, le=1.0)]]


@dataclass(frozen=True)
class Member:
    """One model of the file: its share of the mixture and its architecture. A single model has weight 1."""

    weight: float
    model: ModelConfig


@dataclass(frozen=True)
class TensorEncoding:
    """How a tensor is stored: the encoding's name and the shape that the tensor decodes to.

    `bits` (per code) and `group` (values per group) belong to the encoding `groups`; they are None for the others.
    """

    encoding: str
    shape: tuple[int, ...]
    bits: int | None = None
    group: int | None = None

    def to_json(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"encoding": self.encoding, "shape": list(self.shape)}
        return entry if self.bits is None else entry | {"bits": self.bits, "group": self.group}


@dataclass(frozen=True)
class Header:
    """The header of a model file.

    `tensors` maps the full name of every stored weight, `members.I.NAME` or `reranker.NAME`, to its encoding. `origin`
    holds JSON values that say where the file came from (recipe, parents, scores, software); nothing in it changes a
    prediction. `reranker` holds the sizes of the second stage over the members' mixture, None where there is none.
    `extras` holds JSON values that users of the predictions need, such as thresholds; unknown ones are kept.
    """

    features: FeatureSpec
    classes: int
    members: tuple[Member, ...]
    tensors: dict[str, TensorEncoding]
    class_names: tuple[str, ...] | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    reranker: RerankerOptions | None = None
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def thresholds(self) -> np.ndarray | None:
        """float64 [V]: the least probability at which each class is given, where the file says so."""
        entry = self.extras.get(THRESHOLDS)
        return None if entry is None else np.array(entry["values"], np.float64)

    @property
    def extractor(self) -> "Identity | None":
        """The identity of the extractor that made the features, where the file says so."""
        return self.extras.get(EXTRACTOR)

    def thresholds_for(self, given: str | float | None) -> tuple[np.ndarray, str | float]:
        """The thresholds float64 [V] that `given` means, and what to call them: their one number, or "model".

        `given` is a probability for all classes, "model" for the file's own, or None: these if there are some, else
        0.5. Raises `InputError` for anything else, and where the file has none.
        """
        own = self.thresholds
        if own is not None and given in (None, "model"):
            return own, "model"
        if given == "model":
            raise InputError(
                f"the model's file has no thresholds; topgb thresholds finds some, or give {option('threshold', 0.5)}"
            )
        try:
            value = 0.5 if given is None else float(given)
        except (TypeError, ValueError):
            value = math.nan
        if not 0 <= value <= 1:
            raise InputError(f"{option('threshold', given)} is no probability; use a number from 0 to 1, or model")
        return np.full(self.classes, value), value

    @property
    def max_frames(self) -> int:
        """The most frames of a video that any member looks at."""
        return max(member.model.max_frames for member in self.members)

    def class_name(self, index: int) -> str:
        """The name of class `index`, or its number where the file names none."""
        return str(index) if self.class_names is None else self.class_names[index]

    def dumps(self) -> str:
        """The header as JSON text with sorted keys, so that equal headers give equal bytes."""
        value = {
            "version": FORMAT_VERSION if self.extras else 1 if self.reranker is None else 2,
            "features": self.features.to_json(),
            "classes": self.classes,
            "class_names": None if self.class_names is None else list(self.class_names),
            "members": [{"weight": m.weight, "model": m.model.to_json()} for m in self.members],
            "tensors": {name: entry.to_json() for name, entry in self.tensors.items()},
            "origin": self.origin,
        }
        if self.reranker is not None:
            value["reranker"] = self.reranker.model_dump(mode="json")
        if self.extras:
            value["extras"] = self.extras
        return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))

    @classmethod
    def loads(cls, text: str, path: str) -> "Header":
        """The header in `text`. Raises `InputError` naming `path` where it is malformed or of a newer version."""
        value = _parse(text, path)
        try:
            entry = validate(_HeaderEntry, value, "", if_missing="every header has it")
            # Bring names to one Unicode form, so that they compare equal whatever form the writer's vocabulary had.
            names = None if entry.class_names is None else tuple(normalize("NFC", name) for name in entry.class_names)
            features = [Feature(f.name, f.size, f.dtype, (f.range[0], f.range[1])) for f in entry.features.features]
            header = cls(
                features=FeatureSpec(entry.features.level, tuple(features)),
                classes=entry.classes,
                class_names=names,
                members=tuple(_member(index, member) for index, member in enumerate(entry.members)),
                tensors={
                    name: TensorEncoding(t.encoding, tuple(t.shape), t.bits, t.group)
                    for name, t in entry.tensors.items()
                },
                origin=entry.origin,
                reranker=entry.reranker,
                extras=entry.extras,
            )
            _check_thresholds(entry.extras, entry.classes)
            _check_extractor(entry.extras)
            _check_segments(entry.extras, entry.classes)
        except InputError as error:
            raise InputError(f"{path}: the model file's header is malformed: {error}; {CHANGED}") from None
        header._check(path)
        return header

    def _check(self, path: str) -> None:
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise InputError(f"{path}: {len(self.class_names)} class names for {self.classes} classes; {CHANGED}")
        fault = weights_fault([member.weight for member in self.members])
        if fault is not None:
            raise InputError(f"{path}: {fault}; {CHANGED}")
        for name, entry in self.tensors.items():
            if math.prod(max(size, 1) for size in entry.shape) > MOST_PRODUCT:
                raise InputError(f"{path}: the shape of the tensor {name!r} is not possible; {CHANGED}")
            if self.reranker is not None and name.startswith(RERANKER):
                continue
            match = _MEMBER_TENSOR.fullmatch(name)
            if match is None or int(match[1]) >= len(self.members):
                raise InputError(f"{path}: the tensor {name!r} belongs to no member; {CHANGED}")


def _check_thresholds(extras: dict[str, Any], classes: int) -> None:
    if THRESHOLDS in extras:
        entry = validate(_ThresholdsEntry, extras[THRESHOLDS], f"extras.{THRESHOLDS}", if_missing="thresholds have it")
        if len(entry.values) != classes:
            raise InputError(f"there are {len(entry.values)} thresholds for {classes} classes")


def _check_extractor(extras: dict[str, Any]) -> None:
    if EXTRACTOR in extras:
        # Imported here, because most features come from elsewhere.
        from topgb.extractor_identity import check_identity

        check_identity(extras[EXTRACTOR])


def _check_segments(extras: dict[str, Any], classes: int) -> None:
    if SEGMENTS in extras:
        # Imported here, because most models are of whole videos.
        from topgb.modelfile.segments_entry import check_segments

        check_segments(extras[SEGMENTS], classes)


def weights_fault(weights: Sequence[float]) -> str | None:
    """The fault of `weights` as shares of a mixture, in words; None if each is at least 0 and their sum is 1."""
    for weight in weights:
        if not 0 <= weight < math.inf:
            return f"the weight {weight:g} is not a number from 0 to 1"
    total = math.fsum(weights)
    return f"the weights sum to {total:g}, not 1" if abs(total - 1.0) > WEIGHT_TOLERANCE else None


def _parse(text: str, path: str) -> dict[str, Any]:
    try:
        value = parse_json(text)
    except ValueError:
        value = None
    if not isinstance(value, dict) or "version" not in value:
        raise InputError(f"{path}: the model file's header is not readable; {CHANGED}")
    version = value["version"]
    if type(version) is int and version > FORMAT_VERSION:
        raise InputError(
            f"{path} has model file format {version}; this topgb reads up to {FORMAT_VERSION}; upgrade topgb"
        )
    return value


def _member(index: int, entry: _MemberEntry) -> Member:
    try:
        return Member(entry.weight, parse_model(entry.model))
    except InputError as error:
        raise InputError(f"member {index}: {error}") from None
