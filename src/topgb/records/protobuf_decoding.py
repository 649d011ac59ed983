"""The general way of reading a record: protobuf parses it, and every way in which it can be wrong gets its sentence."""

from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from topgb.errors import InputError
from topgb.features import Feature
from topgb.records.framing import Place
from topgb.records.layout import Layout
from topgb.records.protos import Example, Features, SequenceExample

ID_KEYS = ("id", "video_id")
_KINDS = {"uint8": "bytes_list", "float32": "float_list"}
_KIND_WORDS = {"bytes_list": "bytes", "float_list": "floats", "int64_list": "integers", None: "nothing"}


def decode_generally(
    payload: memoryview, layout: Layout, place: Place
) -> tuple[str, list[int] | None, tuple[np.ndarray, ...]]:
    """Id, labels (None if unlabelled) and for each feature of the spec an array [N, size], uint8 or float32.

    Raises `InputError` where the record does not fit the spec, `DamagedRecordError` where it makes no sense.
    """
    video_level = layout.spec.level == "video"
    message = (Example if video_level else SequenceExample)()
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise _not_protobuf(place) from error
    context = message.features if video_level else message.context
    video_id, labels = identity(context, layout.classes, place)
    frames = []
    for feature in layout.spec.features:
        if video_level:
            stored = context.feature.get(feature.name)
            rows = None if stored is None else [stored]
        else:
            stored = message.feature_lists.feature_list.get(feature.name)
            rows = None if stored is None else stored.feature
        if rows is None:
            raise _missing_feature(feature, message, layout, place)
        if not len(rows):
            raise place.damaged(f"feature {feature.name!r} has no frames")
        frames.append(_stack(rows, feature, place))
    counts = [len(values) for values in frames]
    if len(set(counts)) != 1:
        told = ", ".join(f"{feature.name} {count}" for feature, count in zip(layout.spec.features, counts, strict=True))
        raise place.damaged(f"its features have unequal numbers of frames ({told})")
    return video_id, labels, tuple(frames)


def parse_message(payload: memoryview, layout: Layout, place: Place) -> Any:
    """The `Features` message of id and labels of any record. Raises `DamagedRecordError` where it is not protobuf."""
    # An Example's features and a SequenceExample's context have the same field number.
    message = (Example if layout.spec.level == "video" else SequenceExample)()
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise _not_protobuf(place) from error
    return message.features if layout.spec.level == "video" else message.context


def features_message(encoded: bytes | memoryview, place: Place) -> Any:
    """A `Features` message from its bytes. Raises `DamagedRecordError` where they are not one."""
    message = Features()
    try:
        message.ParseFromString(encoded)
    except DecodeError as error:
        raise _not_protobuf(place) from error
    return message


def identity(context: Any, classes: int, place: Place) -> tuple[str, list[int] | None]:
    """Id and labels (None if unlabelled) of a record, from its `Features` message.

    Raises `InputError` for labels outside the classes or not stored as integers, `DamagedRecordError` without an id.
    """
    feature = context.feature
    for key in ID_KEYS:
        stored = feature.get(key)
        if stored is not None and stored.bytes_list.value:
            video_id = stored.bytes_list.value[0].decode("utf-8", "backslashreplace")
            break
    else:
        raise place.damaged("it has no id (neither 'id' nor 'video_id' holds a bytes value)")
    stored = feature.get("labels")
    kind = stored.WhichOneof("kind") if stored is not None else None
    if kind is None:
        return video_id, None
    if kind != "int64_list":
        raise InputError(f"{place}: labels hold {_KIND_WORDS[kind]}, not integers; write them as an int64 list")
    labels = list(stored.int64_list.value)
    for label in labels:
        if not 0 <= label < classes:
            raise InputError(
                f"{place}: label {label} is outside the {classes} classes (0 to {classes - 1}); "
                "set the number of classes to the data's"
            )
    return video_id, labels


def _stack(rows: Any, feature: Feature, place: Place) -> np.ndarray:
    """The frames of one feature, [N, size]."""
    kind = _KINDS[feature.dtype]
    arrays = []
    for number, row in enumerate(rows):
        stored = row.WhichOneof("kind")
        if stored != kind:
            if number == 0:
                raise InputError(
                    f"{place}: feature {feature.name!r} holds {_KIND_WORDS[stored]}, but the feature spec says "
                    f"{feature.dtype}; correct its dtype in the spec"
                )
            raise place.damaged(f"frame {number} of feature {feature.name!r} holds {_KIND_WORDS[stored]}")
        if kind == "bytes_list":
            values = row.bytes_list.value
            if len(values) != 1:
                raise place.damaged(f"frame {number} of feature {feature.name!r} has {len(values)} values, not one")
            arrays.append(np.frombuffer(values[0], np.uint8))
        else:
            arrays.append(np.array(row.float_list.value, np.float32))
    widths = {len(array) for array in arrays}
    if len(widths) != 1:
        raise place.damaged(f"the frames of feature {feature.name!r} have unequal widths ({_list(sorted(widths))})")
    width = widths.pop()
    if width != feature.size:
        raise InputError(
            f"{place}: feature {feature.name!r} is {width} wide, but the feature spec says {feature.size}; "
            "correct its size in the spec"
        )
    return np.stack(arrays)


def _missing_feature(feature: Feature, message: Any, layout: Layout, place: Place) -> InputError:
    if layout.spec.level == "video":
        names = sorted(message.features.feature)
    else:
        names = sorted(message.feature_lists.feature_list)
        if not names:
            return InputError(
                f"{place} has no frame features, and so no {feature.name!r}; for the whole video it has: "
                f"{_list(sorted(message.context.feature))}; use a video-level spec if it is such a record"
            )
    return InputError(f"{place} has no feature {feature.name!r}; it has: {_list(names)}; correct the feature spec")


def _not_protobuf(place: Place) -> InputError:
    return place.damaged("its CRC holds, but protobuf cannot decode it")


def _list(items: list) -> str:
    return ", ".join(map(str, items)) or "none"
