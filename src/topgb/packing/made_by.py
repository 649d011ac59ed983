"""Find out what made features: the extractor and FFmpeg's version, which `topgb extract` notes in its files."""

import zipfile
from dataclasses import dataclass
from typing import Any

from topgb.errors import InputError
from topgb.extractor_identity import Identity, check_identity, difference, shown
from topgb.json_reading import parse_json
from topgb.packing.arrays import BROKEN_ARCHIVE
from topgb.packing.source import Source

# Keys of the JSON in the comment of a `.npz` file.
EXTRACTOR, FFMPEG = "extractor", "ffmpeg"
_MOST_VERSION = 40


@dataclass(frozen=True)
class MadeBy:
    """The extractor that made all features, and the versions of FFmpeg; None where that is not known."""

    extractor: Identity | None = None
    ffmpeg: str | None = None


UNKNOWN = MadeBy()


def made_by(source: Source) -> MadeBy:
    """Find the extractor that made all features of a source, if every file names it, and the versions of FFmpeg.

    Raises `InputError` naming both extractors where files were made by different ones: their features don't mix.
    """
    if source.tables or source.features:
        return UNKNOWN
    first: tuple[str, Identity] | None = None
    versions: set[str] = set()
    silent = False
    for entry in source.entries:
        path = entry.parts[0].found.path
        said = _comment(path) if path.endswith(".npz") else {}
        version, identity = said.get(FFMPEG), said.get(EXTRACTOR)
        if isinstance(version, str) and version.isprintable():
            versions.add(version[:_MOST_VERSION])
        try:
            identity = check_identity(identity)
        except InputError:
            silent = True
            continue
        if first is None:
            first = path, identity
        elif (how := difference(identity, first[1])) is not None:
            raise InputError(
                f"{path} was made by the extractor {shown(identity)}, {first[0]} by {shown(first[1])}: {how}; "
                "pack those of one extractor, or extract the videos anew"
            )
    ffmpeg = ", ".join(sorted(versions)) or None
    return MadeBy(None if first is None or silent else first[1], ffmpeg)


def _comment(path: str) -> dict[str, Any]:
    """The JSON in the comment of an archive; empty where there is none, or no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            said = parse_json(archive.comment)
    except BROKEN_ARCHIVE:
        return {}
    return said if isinstance(said, dict) else {}
