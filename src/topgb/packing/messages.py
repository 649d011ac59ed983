"""Read features from files of one SequenceExample each, without a TFRecord around it, as MediaPipe's extractor writes.

MediaPipe stores floats in feature lists `RGB/feature/floats` and `AUDIO/feature/floats`, times beside them, and no id.
"""

import os
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from topgb.errors import InputError
from topgb.files import open_input
from topgb.packing.frame_counts import Frames
from topgb.packing.video import RawVideo, as_stored, check_name, raw_video
from topgb.records.framing import starts_with_record
from topgb.records.protos import SequenceExample

SUFFIXES = (".pb",)
# Some scripts give a single message the ending of a file of records.
MISLEADING_SUFFIX = ".tfrecord"
# Protobuf's own limit is 2 GiB.
MOST_BYTES = 1 << 30
_MEDIAPIPE = "/feature/floats"
# MediaPipe's sound may have a frame more than its picture, or one less.
_MOST_APART = 1


def read_message(path: str, video_id: str | None = None, frames: Frames = "equal") -> RawVideo:
    """Read the video in a file with one SequenceExample; its id is `video_id`, or the file's name without the suffix.

    Feature lists of floats (float32) or byte strings (uint8) are features: `RGB/feature/floats` is called `rgb`, others
    keep their names. Lists of integers, such as times, are left out. If the numbers of frames differ by one, the longer
    features lose their last frame. Raises `InputError` naming the file if it cannot be read, or holds no such features.
    """
    try:
        with open_input(path) as file:
            if os.fstat(file.fileno()).st_size > MOST_BYTES:
                raise InputError(f"{path} has more than {MOST_BYTES >> 30} GiB, too much for one video's features")
            raw = file.read()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; check the path and its permissions") from None
    if starts_with_record(raw[:12]):
        raise InputError(f"{path} is a TFRecord already; topgb data inspect says whether topgb can read it as it is")
    message = SequenceExample()
    try:
        message.ParseFromString(raw)
    except DecodeError:
        raise InputError(f"{path} is no SequenceExample, or is damaged; leave it out, or write it anew") from None
    features = {}
    for key, rows in sorted(message.feature_lists.feature_list.items()):
        values = _frames(rows.feature, f"{path}: {key!r}")
        if values is not None:
            name = key.removesuffix(_MEDIAPIPE).lower() if key.endswith(_MEDIAPIPE) else key
            check_name(name, path)
            if name in features:
                raise InputError(f"{path} holds the feature {name!r} twice, under other names; leave one of them out")
            features[name] = values
    if not features:
        raise InputError(f"{path} holds no feature lists of floats or bytes; make its features anew, or leave it out")
    fewest = min(map(len, features.values()))
    if max(map(len, features.values())) - fewest <= _MOST_APART:
        features = {name: values[:fewest] for name, values in features.items()}
    # A message does not keep the order of its lists: the widest first, as `topgb data inspect` suggests.
    features = dict(sorted(features.items(), key=lambda item: (-item[1].shape[1], item[0])))
    stem = os.path.splitext(os.path.basename(path))[0]
    return raw_video(stem if video_id is None else video_id, path, features, frames=frames)


def _frames(rows: Any, where: str) -> np.ndarray | None:
    """The frames of a feature list, float32 or uint8 [T, D]; None if it holds integers or nothing."""
    kinds = {row.WhichOneof("kind") for row in rows}
    if not kinds & {"float_list", "bytes_list"}:
        return None
    if len(kinds) > 1:
        raise InputError(f"{where} has frames of different kinds; write all frames alike")
    if kinds == {"float_list"}:
        arrays = [np.array(row.float_list.value, np.float32) for row in rows]
    else:
        if any(len(row.bytes_list.value) != 1 for row in rows):
            raise InputError(f"{where} has frames of several byte strings; write one for each frame")
        arrays = [np.frombuffer(row.bytes_list.value[0], np.uint8) for row in rows]
    if len({len(array) for array in arrays}) > 1:
        raise InputError(f"{where} has frames of unequal widths; write all frames alike")
    return as_stored(np.stack(arrays))
