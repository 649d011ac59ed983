"""`dataset.yaml`, which `topgb data pack` writes beside records: their features, classes and vocabulary."""

import json
import os
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

import yaml

from topgb.errors import InputError, option
from topgb.features import MOST_VALUES, YOUTUBE8M_MAX_FRAMES, Feature, FeatureSpec
from topgb.files import atomic_write, refuse_existing
from topgb.records.shards import find_shards

if TYPE_CHECKING:
    from topgb.extractor_identity import Identity

FILE = "dataset.yaml"
_KEYS = {"level", "features", "classes", "vocabulary", "max_frames", "extractor", "ffmpeg"}
# Longer videos are cut off unless a recipe says otherwise: time and memory grow with the frames.
MOST_FRAMES = 3000
_HEADER = """\
# What the records in this folder hold: the data section of a recipe, which takes this in its place.
"""


@dataclass(frozen=True)
class Description:
    """The features and classes of a folder's records.

    path        the `dataset.yaml`
    spec        the features
    classes     number of classes that labels may have, or None for records without labels
    vocabulary  name of the CSV of class names beside it, or None
    max_frames  frames of the longest video, or None if that is not known
    extractor   the identity of the extractor that made the features, or None if that is not known
    ffmpeg      the version of FFmpeg that decoded the videos, for information alone, or None if that is not known
    """

    path: Path
    spec: FeatureSpec
    classes: int | None
    vocabulary: str | None = None
    max_frames: int | None = None
    extractor: "Identity | None" = None
    ffmpeg: str | None = None

    @property
    def frames_to_look_at(self) -> int | None:
        """The `max_frames` of a model for these records: the longest video's, within bounds; None if not known."""
        if self.max_frames is None:
            return None
        return max(YOUTUBE8M_MAX_FRAMES, min(self.max_frames, MOST_FRAMES))

    def data_section(self) -> dict[str, Any]:
        """A recipe's `data` section that reads these records; without `classes` if they have no labels."""
        features = [
            {
                "name": f.name,
                "size": f.size,
                "dtype": f.dtype,
                **({"range": list(f.range)} if f.dtype == "uint8" else {}),
            }
            for f in self.spec.features
        ]
        section: dict[str, Any] = {"level": self.spec.level, "features": features}
        return section if self.classes is None else {**section, "classes": self.classes}

    def class_names(self) -> tuple[str, ...] | None:
        """The classes' names, or None without a vocabulary. Raises `InputError` if it does not name them all."""
        if self.vocabulary is None or self.classes is None:
            return None
        # Imported here, because most records have no description and are read without it.
        from topgb.vocabulary import check_names, read_vocabulary

        names = read_vocabulary(self.path.parent / self.vocabulary)
        check_names(names, self.classes)
        return names


def write_description(description: Description, force: bool = False) -> None:
    """Write the description to its path. Raises `InputError` if that exists and `force` is off."""
    refuse_existing(description.path, force)
    with atomic_write(description.path) as file:
        file.write(description_yaml(description))


def description_yaml(description: Description) -> bytes:
    """The bytes that `write_description` writes."""
    value = {**description.data_section(), "vocabulary": description.vocabulary, "max_frames": description.max_frames}
    value["ffmpeg"] = description.ffmpeg
    # One line per feature, as in recipes.
    lines = [f"  - {_yaml(entry, flow=True)}" for entry in value.pop("features")]
    rest = {key: entry for key, entry in value.items() if key != "level" and entry is not None}
    text = "".join((_HEADER, _yaml({"level": value["level"]}), "features:\n", *lines, _yaml(rest) if rest else ""))
    return (text + _extractor_yaml(description.extractor)).encode()


def _extractor_yaml(identity: "Identity | None") -> str:
    """The identity as JSON, which is YAML too: a hash such as 12e34 must come back as text. A line for each key."""
    if identity is None:
        return ""
    from topgb.extractor_identity import canonical

    entries = (f"  {json.dumps(key, ensure_ascii=False)}: {canonical(value)}" for key, value in identity.items())
    return "extractor: {\n" + ",\n".join(entries) + "\n  }\n"


def find_description(pattern: str | Sequence[str]) -> Description | None:
    """The description beside the shards of `pattern` (see `find_shards`), if all shards lie in one folder that has one.

    Remote records have none. Raises `InputError` if nothing matches, or if the file does not describe records.
    """
    paths = _description_files(pattern)
    return read_description(paths[0]) if len(paths) == 1 and paths[0].is_file() else None


def find_descriptions(pattern: str | Sequence[str]) -> list[Description | None]:
    """For every folder with shards of `pattern` its description, or None where it has none; none for remote records.

    Raises `InputError` if nothing matches, or if a file does not describe records.
    """
    return [read_description(path) if path.is_file() else None for path in _description_files(pattern)]


def check_descriptions(described: Sequence[Description | None], spec: FeatureSpec, names: Sequence[str] | None) -> None:
    """Raise `InputError` if records are described with other ranges than `spec`, or other classes than `names`.

    Sets that were packed separately have ranges and class numbers of their own, and their records do not hold these.
    """
    for description in described:
        if description is not None:
            _check_alike(description, spec, names)


def _description_files(pattern: str | Sequence[str]) -> list[Path]:
    """The possible descriptions of the local shards of `pattern`: one path per folder with shards."""
    pieces = [pattern] if isinstance(pattern, str) else pattern
    if any("://" in os.fspath(piece) for piece in pieces):
        return []
    return [Path(folder) / FILE for folder in sorted({os.path.dirname(shard.path) for shard in find_shards(pattern)})]


def _check_alike(found: Description, spec: FeatureSpec, names: Sequence[str] | None) -> None:
    for feature in found.spec.features:
        wanted = next((f for f in spec.features if f.name == feature.name), feature)
        if wanted.dtype == feature.dtype == "uint8" and wanted.range != feature.range:
            # Ten digits, short but exact: users copy these numbers.
            theirs, ours = (tuple(f"{end:.10g}" for end in f.range) for f in (feature, wanted))
            raise InputError(
                f"{found.path}: feature {feature.name!r} has the range {theirs[0]} to {theirs[1]}, "
                f"but {ours[0]} to {ours[1]} is expected; pack with {option('range', {feature.name: wanted.range})}"
            )
    named = found.class_names()
    if names is not None and named is not None and tuple(normalize("NFC", name) for name in names) != named:
        raise InputError(
            f"{found.path}: its classes are not named as those expected; pack with {option('vocabulary')} and the CSV "
            "of the training records"
        )


def read_description(path: Path) -> Description:
    """Read a `dataset.yaml`. Raises `InputError` naming what is wrong with it."""
    value = _mapping(_parse(path), _KEYS, path, "it")
    entries = value.get("features")
    if not isinstance(entries, list):
        raise _wrong(path, "'features' is not a list")
    try:
        spec = FeatureSpec(value.get("level"), tuple(_feature(entry, path) for entry in entries))  # type: ignore[arg-type]
    except InputError as error:
        raise error if str(path) in str(error) else _wrong(path, str(error)) from None
    classes, vocabulary = value.get("classes"), value.get("vocabulary")
    if classes is not None and not (_is_integer(classes) and 1 <= classes < 2**31):
        raise _wrong(path, f"'classes' is {reprlib.repr(classes)}; it must be a number of classes")
    # Bare file name only: an untrusted dataset.yaml must not make us read other files.
    if vocabulary is not None and not (
        isinstance(vocabulary, str) and vocabulary == os.path.basename(vocabulary) and "\0" not in vocabulary
    ):
        raise _wrong(path, f"'vocabulary' is {reprlib.repr(vocabulary)}; it must be the name of a file beside it")
    frames = value.get("max_frames")
    if frames is not None and not (_is_integer(frames) and 1 <= frames <= MOST_VALUES):
        raise _wrong(path, f"'max_frames' is {reprlib.repr(frames)}; it must be the frames of the longest video")
    extractor = _extractor(value["extractor"], path) if "extractor" in value else None
    ffmpeg = value.get("ffmpeg")
    return Description(path, spec, classes, vocabulary, frames, extractor, None if ffmpeg is None else str(ffmpeg))


def _extractor(value: Any, path: Path) -> "Identity":
    from topgb.extractor_identity import check_identity

    try:
        return check_identity(value)
    except InputError as error:
        raise _wrong(path, str(error)) from None


def _yaml(value: dict[str, Any], flow: bool = False) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=1 << 20)


def _feature(entry: Any, path: Path) -> Feature:
    value = _mapping(entry, {"name", "size", "dtype", "range"}, path, "a feature")
    name, size, ends = value.get("name"), value.get("size"), value.get("range", (-2.0, 2.0))
    if not isinstance(name, str) or not isinstance(size, int) or isinstance(size, bool):
        raise _wrong(path, "a feature needs a 'name' and a 'size', text and an integer")
    if not isinstance(ends, (list, tuple)) or len(ends) != 2 or not all(_is_number(end) for end in ends):
        raise _wrong(path, f"feature {name!r} has the range {reprlib.repr(ends)}; it must be [low, high]")
    try:
        low, high = map(float, ends)
    except OverflowError:
        low = high = float("inf")
    return Feature(name, size, value.get("dtype", "uint8"), (low, high))


def _parse(path: Path) -> Any:
    # Imported here, because most records have no description and are read without it.
    from topgb.yaml_reading import read_yaml

    try:
        return read_yaml(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    except ValueError as error:
        raise _wrong(path, f"it is not YAML: {error}") from None


def _mapping(value: Any, keys: set[str], path: Path, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(path, f"{what} is not a mapping")
    unknown = [key for key in value if key not in keys]
    if unknown:
        raise _wrong(path, f"{what} has the key {reprlib.repr(unknown[0])}; known are {', '.join(sorted(keys))}")
    return value


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_integer(value) or isinstance(value, float)


def _wrong(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} does not describe records: {reason}; pack them anew, or move it away and describe them in the recipe"
    )
