"""A feature spec compiled for the codec: the bytes before each feature's values in a regular record.

A feature of a frame is stored as a header, which depends on the spec alone, and then its values: `size` bytes (uint8)
or 4 · `size` bytes (float32). The N frames of a feature are therefore a matrix uint8 [N, stride], and the header is the
same in every row.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from topgb.features import Feature, FeatureSpec
from topgb.records import wire

# In protobuf's `Feature`, bytes_list is field 1 and float_list field 2.
KIND_TAGS = {"uint8": wire.FIELD_1, "float32": wire.FIELD_2}
VALUE_BYTES = {"uint8": 1, "float32": 4}
# Whether batches have labels; with "check" they have none, but labels that are no class numbers are errors.
LabelUse = bool | Literal["check"]


@dataclass(frozen=True)
class FeatureLayout:
    """One feature in a record.

    position    its place in the spec
    columns     its slice of a joined frame [D]
    header      the bytes before the values of a frame
    data_bytes  the number of bytes of these values
    """

    feature: Feature
    position: int
    columns: slice
    header: bytes
    data_bytes: int

    @cached_property
    def stride(self) -> int:
        """The number of bytes of a frame, header and values."""
        return len(self.header) + self.data_bytes


@dataclass(frozen=True)
class Layout:
    """The codec's view of a data set: its spec, its number of classes, and each feature's layout, also by key.

    `classes` None ignores labels; with `check_labels` they may then be any class numbers. `soft_classes` is the number
    of a teacher's predictions that each record must hold; None ignores predictions.
    """

    spec: FeatureSpec
    classes: int | None
    soft_classes: int | None = None
    check_labels: bool = False
    features: tuple[FeatureLayout, ...] = field(init=False)
    by_key: dict[bytes, FeatureLayout] = field(init=False, compare=False)

    def __post_init__(self):
        features = tuple(
            FeatureLayout(
                feature,
                position,
                self.spec.columns(feature.name),
                value_header(feature, in_list=self.spec.level == "frame"),
                feature.size * VALUE_BYTES[feature.dtype],
            )
            for position, feature in enumerate(self.spec.features)
        )
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "by_key", {layout.feature.name.encode(): layout for layout in features})

    @property
    def frame_bytes(self) -> int:
        """The fewest bytes that a frame of all features takes in a record."""
        return sum(layout.stride for layout in self.features)


def value_header(feature: Feature, in_list: bool) -> bytes:
    """A `Feature` message's bytes before its values; with `in_list`, also its own tag and length in a feature list."""
    data_bytes = feature.size * VALUE_BYTES[feature.dtype]
    values = bytes((wire.FIELD_1,)) + wire.varint(data_bytes)
    kind = bytes((KIND_TAGS[feature.dtype],)) + wire.varint(len(values) + data_bytes) + values
    return bytes((wire.FIELD_1,)) + wire.varint(len(kind) + data_bytes) + kind if in_list else kind
