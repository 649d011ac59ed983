"""The general way of reading a record: protobuf parses it, and every way in which it can be wrong gets its sentence."""

from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from topgb.errors import InputError
from topgb.features import Feature
from topgb.records.framing import Place
from topgb.records.layout import Layout
from topgb.records.protos import Features, SequenceExample

ID_KEYS = ("id", "video_id")
_KINDS = {"uint8": "bytes_list", "float32": "float_list"}
_KIND_WORDS = {"bytes_list": "bytes", "float_list": "floats", "int64_list": "integers", None: "nothing"}


def decode_generally(
    payload: memoryview, layout: Layout, place: Place
) -> tuple[str, list[int] | None, tuple[np.ndarray, ...]]:
    """Id, labels (None if unlabelled) and for each feature of the spec an array [N, size], uint8 or float32.

    Raises `InputError` where the record does not fit the spec, `DamagedRecordError` where it makes no sense.
    """
    message = parse_record(payload, place)
    video_id, labels = identity(message.context, layout.classes, place)
    frames = []
    for feature in layout.spec.features:
        if layout.spec.level == "video":
            stored = message.context.feature.get(feature.name)
            rows = None if stored is None else [stored]
        else:
            stored = message.feature_lists.feature_list.get(feature.name)
            rows = None if stored is None else stored.feature
        if rows is None:
            check_holds_features(message, place)
            raise _missing_feature(feature, message, layout, place)
        if not len(rows):
            raise place.damaged(f"feature {feature.name!r} has no frames")
        frames.append(_stack(rows, feature, place))
    counts = [len(values) for values in frames]
    if len(set(counts)) != 1:
        told = ", ".join(f"{feature.name} {count}" for feature, count in zip(layout.spec.features, counts, strict=True))
        raise place.damaged(f"its features have unequal numbers of frames ({told})")
    return video_id, labels, tuple(frames)


def parse_record(payload: memoryview, place: Place) -> Any:
    """Any record as a SequenceExample message. Raises `DamagedRecordError` where it is not protobuf.

    An Example is a SequenceExample without feature lists: its features and the other's context are the same field.
    """
    message = SequenceExample()
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise _not_protobuf(place) from error
    return message


def check_holds_features(message: Any, place: Place) -> None:
    """Raise `DamagedRecordError` for a record that has no features, neither of frames nor of the whole video."""
    # That the field of the lists is there tells nothing: YouTube-8M's video-level records have it, empty.
    if not message.feature_lists.feature_list and not feature_names(message.context):
        raise place.damaged("it has neither frames nor features")


def feature_names(context: Any) -> list[str]:
    """The features of the whole video, by a record's `Features` message: all but id and labels."""
    return sorted(set(context.feature) - {*ID_KEYS, "labels"})


def features_message(encoded: bytes | memoryview, place: Place) -> Any:
    """A `Features` message from its bytes. Raises `DamagedRecordError` where they are not one."""
    message = Features()
    try:
        message.ParseFromString(encoded)
    except DecodeError as error:
        raise _not_protobuf(place) from error
    return message


def identity(context: Any, classes: int | None, place: Place) -> tuple[str, list[int] | None]:
    """Id and labels of a record, from its `Features` message.

    Labels are None if it is unlabelled; with `classes` None they are not looked at and None too.
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
    if classes is None:
        return video_id, None
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
                "the model or recipe needs as many classes as the data has"
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
                    f"{place}: feature {feature.name!r} holds {_KIND_WORDS[stored]}, but the model or recipe expects "
                    f"{feature.dtype}; the two must agree"
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
            f"{place}: feature {feature.name!r} is {width} wide, but the model or recipe expects {feature.size}; "
            "the two must agree"
        )
    return np.stack(arrays)


def _missing_feature(feature: Feature, message: Any, layout: Layout, place: Place) -> InputError:
    lists = sorted(message.feature_lists.feature_list)
    names = lists or feature_names(message.context)
    level = "frame" if lists else "video"
    if level != layout.spec.level:
        return InputError(
            f"{place} has no feature {feature.name!r} of the {layout.spec.level}, but of the {level}: {_list(names)}; "
            f"it looks like a {level}-level record, while the model or recipe expects {layout.spec.level}-level ones"
        )
    return InputError(
        f"{place} has no feature {feature.name!r}; it has: {_list(names)}; "
        "the model or recipe and the records must name the same features"
    )


def _not_protobuf(place: Place) -> InputError:
    return place.damaged("its CRC holds, but protobuf cannot decode it")


def _list(items: list) -> str:
    return ", ".join(map(str, items))
