"""A feature spec compiled for the codec: how each feature's bytes begin in a regular record."""

from dataclasses import dataclass, field

from topgb.features import Feature, FeatureSpec
from topgb.records import wire

# A Feature's oneof: bytes_list is field 1, float_list field 2.
KIND_TAGS = {"uint8": wire.FIELD_1, "float32": wire.FIELD_2}
VALUE_BYTES = {"uint8": 1, "float32": 4}


@dataclass(frozen=True)
class FeatureLayout:
    """One feature on the wire: `position` in the spec, `columns` in the joined frame, `header` before the values."""

    feature: Feature
    position: int
    columns: slice
    header: bytes
    data_bytes: int

    @property
    def stride(self) -> int:
        """Bytes of a frame, header and values."""
        return len(self.header) + self.data_bytes


@dataclass(frozen=True)
class Layout:
    """What the codec needs to know of a data set: its spec, its number of classes, and each feature by its key.

    With `classes` None labels are not looked at. `soft_classes` is how many predictions of a teacher a record must
    hold, None where they are not looked at.
    """

    spec: FeatureSpec
    classes: int | None
    soft_classes: int | None = None
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
        """The fewest bytes that a frame of all features takes on the wire."""
        return sum(layout.stride for layout in self.features)


def value_header(feature: Feature, in_list: bool) -> bytes:
    """The bytes of a `Feature` message before its values; `in_list` counts its tag and length in a feature list too."""
    data_bytes = feature.size * VALUE_BYTES[feature.dtype]
    values = bytes((wire.FIELD_1,)) + wire.varint(data_bytes)
    kind = bytes((KIND_TAGS[feature.dtype],)) + wire.varint(len(values) + data_bytes) + values
    return bytes((wire.FIELD_1,)) + wire.varint(len(kind) + data_bytes) + kind if in_list else kind
