"""What a model file says of itself: the JSON under the metadata key `topgb` (docs/model-file.md)."""

import json
from dataclasses import dataclass, field
from typing import Any

from topgb.errors import InputError
from topgb.features import FeatureSpec
from topgb.models import ModelConfig, parse_model

METADATA_KEY = "topgb"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Member:
    """One model of the file: its share of the mixture and its architecture. An unmixed file has one, of weight 1."""

    weight: float
    model: ModelConfig


@dataclass(frozen=True)
class TensorEncoding:
    """How a member's tensor is stored: the encoding's name and the shape it decodes to."""

    encoding: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """The spec of a model file.

    `tensors` maps the full name of every stored weight, `members.I.NAME`, to its encoding. `origin` holds JSON values
    that say where the file came from (recipe, parents, scores, software); nothing in it changes a prediction.
    """

    features: FeatureSpec
    classes: int
    members: tuple[Member, ...]
    tensors: dict[str, TensorEncoding]
    class_names: tuple[str, ...] | None = None
    origin: dict[str, Any] = field(default_factory=dict)

    def class_name(self, index: int) -> str:
        """The name of class `index`, or its number where the file names none."""
        return str(index) if self.class_names is None else self.class_names[index]

    def dumps(self) -> str:
        """The header as JSON text with sorted keys, so that equal headers give equal bytes."""
        value = {
            "version": FORMAT_VERSION,
            "features": self.features.to_json(),
            "classes": self.classes,
            "class_names": None if self.class_names is None else list(self.class_names),
            "members": [{"weight": m.weight, "model": m.model.to_json()} for m in self.members],
            "tensors": {n: {"encoding": t.encoding, "shape": list(t.shape)} for n, t in self.tensors.items()},
            "origin": self.origin,
        }
        return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))

    @classmethod
    def loads(cls, text: str, path: str) -> "Header":
        """The header in `text`. Raises `InputError` naming `path` where it is malformed or of a newer version."""
        try:
            value = json.loads(text)
            version = value["version"]
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path}: the model file's header is not readable; get the file again") from None
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise InputError(
                f"{path} has model file format {version}; this topgb reads up to {FORMAT_VERSION}; upgrade topgb"
            )
        try:
            header = cls(
                features=FeatureSpec.from_json(value["features"]),
                classes=int(value["classes"]),
                class_names=None if value["class_names"] is None else tuple(map(str, value["class_names"])),
                members=tuple(Member(float(m["weight"]), parse_model(m["model"])) for m in value["members"]),
                tensors={
                    str(name): TensorEncoding(str(entry["encoding"]), tuple(int(size) for size in entry["shape"]))
                    for name, entry in value["tensors"].items()
                },
                origin=dict(value["origin"]),
            )
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: the model file's header is malformed ({error!r}); get the file again") from None
        header._check(path)
        return header

    def _check(self, path: str) -> None:
        if self.classes < 1:
            raise InputError(f"{path}: the model file says it has {self.classes} classes; get the file again")
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise InputError(f"{path}: {len(self.class_names)} class names for {self.classes} classes")
        total = sum(member.weight for member in self.members)
        if not self.members or abs(total - 1.0) > 1e-4:
            raise InputError(f"{path}: the members' weights sum to {total:g}, not 1; get the file again")
