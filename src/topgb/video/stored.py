"""The features of one video in a file, with a key that shows a later call that they need not be made again."""

import json
import os
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topgb.extractor_identity import Identity
from topgb.files import atomic_path
from topgb.json_reading import parse_json
from topgb.packing.arrays import BROKEN_ARCHIVE
from topgb.packing.made_by import EXTRACTOR, FFMPEG
from topgb.video.extract import Notes, VideoFeatures
from topgb.video.opening import ffmpeg_version


@dataclass(frozen=True)
class Key:
    """Everything that features depend on.

    content      SHA-256 of the video's file
    extractor    digest of the extractor's identity
    max_seconds  the greatest length that was asked for, or None
    """

    content: str
    extractor: str
    max_seconds: float | None = None


@dataclass(frozen=True)
class Summary:
    """The length of the extracted part in `seconds`, and the `notes`."""

    seconds: float
    notes: Notes


def write_features(path: Path, features: VideoFeatures, key: Key, extractor: Identity) -> None:
    """Write a `.npz` file that `numpy.load` and `topgb data pack` read; the same features give the same bytes.

    The extractor's identity and FFmpeg's version stand in it for `data pack`; neither is compared by `read_summary`.
    Raises `TopgbError` naming it if that fails.
    """
    said = {"key": asdict(key), "seconds": features.seconds, "notes": asdict(features.notes)}
    said |= {EXTRACTOR: extractor, FFMPEG: ffmpeg_version()}
    with atomic_path(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name, values in features.arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)
        archive.comment = json.dumps(said, sort_keys=True).encode()


def read_summary(path: Path, key: Key) -> Summary | None:
    """The summary of a file that holds the features for `key`; None if it is absent, broken, or of another key."""
    try:
        if os.path.getsize(path) == 0:
            return None
        with zipfile.ZipFile(path) as archive:
            said: Any = parse_json(archive.comment)
        if said["key"] != asdict(key):
            return None
        return Summary(float(said["seconds"]), Notes(**said["notes"]))
    except (*BROKEN_ARCHIVE, KeyError, TypeError):
        return None
