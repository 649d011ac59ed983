"""The feature spec says what a data set's records hold; records, models and model files share it."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from topgb.errors import InputError

Level = Literal["video", "frame"]
Dtype = Literal["uint8", "float32"]

MOST_FEATURES = 1000
# The greatest size that 32-bit counts hold.
MOST_VALUES = 2**31 - 1
# Dequantised values beyond this overflow float32 once they are squared or summed.
MOST_RANGE = 1e15


@dataclass(frozen=True)
class Feature:
    """One feature of a record.

    `size` is its width. `dtype` is how it is stored: `uint8` is one byte per value, quantised linearly over `range`
    (low, high); `float32` values are stored as they are, and `range` means nothing.
    """

    name: str
    size: int
    dtype: Dtype = "uint8"
    range: tuple[float, float] = (-2.0, 2.0)

    @property
    def scale(self) -> float:
        """The factor of a stored value: (high - low) / 255 for bytes (4/255 in YouTube-8M), 1 for floats."""
        return (self.range[1] - self.range[0]) / 255.0 if self.dtype == "uint8" else 1.0

    @property
    def offset(self) -> float:
        """Added to a scaled value: (high - low) / 512 + low for bytes (4/512 - 2 in YouTube-8M), 0 for floats."""
        return (self.range[1] - self.range[0]) / 512.0 + self.range[0] if self.dtype == "uint8" else 0.0

    def exact_codes(self, values: Any) -> Any:
        """Values, a float64 array, to the codes of bytes before they are rounded; from 0 to 255 within the range."""
        return (values - self.offset) / self.scale


@dataclass(frozen=True)
class FeatureSpec:
    """The features of a data set, in the order in which their values are joined.

    `level` is `video` (one `Example` per video, float vectors, T = 1) or `frame` (one `SequenceExample` per video, one
    vector per frame). A batch of the spec has uint8 features if every feature is stored in bytes; otherwise they are
    float32 (stored values, bytes as 0.0 to 255.0).
    """

    level: Level
    features: tuple[Feature, ...]

    def __post_init__(self):
        names = [feature.name for feature in self.features]
        if not names:
            raise InputError("the feature spec names no feature; name at least one")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"the feature spec names the feature {twice!r} twice; give each a name of its own")
        if len(names) > MOST_FEATURES:
            raise InputError(f"the feature spec names {len(names)} features; there may be at most {MOST_FEATURES}")
        if self.level not in get_args(Level):
            raise InputError(f"the feature spec has the level {self.level!r}; it must be video or frame")
        for feature in self.features:
            _check_feature(feature)

    @cached_property
    def width(self) -> int:
        """The number of values of a frame, all features joined."""
        return sum(feature.size for feature in self.features)

    @cached_property
    def all_bytes(self) -> bool:
        """Whether every feature is stored in bytes, so that batches stay uint8."""
        return all(feature.dtype == "uint8" for feature in self.features)

    @cached_property
    def all_floats(self) -> bool:
        """Whether every feature is stored as float32."""
        return all(feature.dtype == "float32" for feature in self.features)

    def columns(self, name: str) -> slice:
        """The columns of feature `name` in the joined vector. Raises `InputError` if there is no such feature."""
        start = 0
        for feature in self.features:
            if feature.name == name:
                return slice(start, start + feature.size)
            start += feature.size
        known = ", ".join(feature.name for feature in self.features)
        raise InputError(f"there is no feature {name!r}; there are: {known}")

    def select(self, names: tuple[str, ...]) -> "FeatureSpec":
        """The spec of the named features alone, in this spec's order."""
        for name in names:
            self.columns(name)
        return FeatureSpec(self.level, tuple(f for f in self.features if f.name in names))

    def to_json(self) -> dict[str, Any]:
        return {"level": self.level, "features": [asdict(feature) for feature in self.features]}


def _check_feature(feature: Feature) -> None:
    # Names become parts of tensor names, which are split at dots.
    if not feature.name or "." in feature.name or not feature.name.isprintable():
        raise InputError(f"a feature is named {feature.name!r}; a name needs printable characters and no dot")
    if not 1 <= feature.size <= MOST_VALUES:
        raise InputError(f"feature {feature.name!r} has size {feature.size}; it must be from 1 to {MOST_VALUES}")
    if feature.dtype not in get_args(Dtype):
        raise InputError(f"feature {feature.name!r} has dtype {feature.dtype!r}; it must be uint8 or float32")
    low, high = feature.range
    if not (abs(low) <= MOST_RANGE and abs(high) <= MOST_RANGE):
        raise InputError(
            f"feature {feature.name!r} has range {feature.range}; low and high must be finite, at most {MOST_RANGE:g}"
        )
    if feature.dtype == "uint8" and not low < high:
        raise InputError(f"feature {feature.name!r} has range {feature.range}; low must be below high")


YOUTUBE8M_FRAMES = FeatureSpec("frame", (Feature("rgb", 1024), Feature("audio", 128)))
YOUTUBE8M_VIDEOS = FeatureSpec("video", (Feature("mean_rgb", 1024, "float32"), Feature("mean_audio", 128, "float32")))
YOUTUBE8M_CLASSES = 3862
YOUTUBE8M_MAX_FRAMES = 300
