"""The general decoder of records: protobuf parses a record, and each fault it can have gets a sentence."""

from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from topgb.errors import InputError, printable
from topgb.features import MOST_RANGE, Feature
from topgb.records.framing import Place
from topgb.records.labels import LABELS_KEY, first_improbable, label_list
from topgb.records.layout import Layout
from topgb.records.protos import Features, SequenceExample

ID_KEYS = ("id", "video_id")
# 2018: the key that prepare_distill_dataset.py adds to a record.
PREDICTIONS_KEY = "predictions"
_KINDS = {"uint8": "bytes_list", "float32": "float_list"}
NO_FRAMES = "leave such videos out"
_KIND_WORDS = {"bytes_list": "bytes", "float_list": "floats", "int64_list": "integers", None: "nothing"}


class RecordIdentity(NamedTuple):
    """A record's id, labels and predictions.

    id           the video's id
    labels       its class numbers, or None if it is unlabelled or labels were not asked for
    predictions  float16 [V], a teacher's probabilities, or None if they were not asked for
    """

    id: str
    labels: list[int] | None
    predictions: np.ndarray | None


def decode_generally(
    payload: memoryview, layout: Layout, place: Place
) -> tuple[RecordIdentity, tuple[np.ndarray, ...]]:
    """The record's identity, and for each feature of the spec an array [N, size], uint8 or float32.

    Raises `InputError` if the record does not fit the spec, `DamagedRecordError` if it makes no sense.
    """
    message = parse_record(payload, place)
    who = identity(message.context, layout, place)
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
            raise place.unfit(f"feature {feature.name!r} has no frames; {NO_FRAMES}")
        frames.append(_stack(rows, feature, place))
    counts = [len(values) for values in frames]
    if len(set(counts)) != 1:
        frame_counts = ", ".join(
            f"{feature.name} {count}" for feature, count in zip(layout.spec.features, counts, strict=True)
        )
        raise place.unfit(unequal_frames(frame_counts))
    return who, tuple(frames)


def unequal_frames(counts: str) -> str:
    """The reason to refuse a record whose features have the listed, unequal numbers of frames."""
    return f"its features have unequal numbers of frames ({printable(counts)}); cut them to the same number"


def not_finite(name: str) -> str:
    """The reason to refuse a record with NaN, or with values beyond `MOST_RANGE`, in the feature of that name."""
    return (
        f"feature {name!r} holds values that are not finite, or beyond {MOST_RANGE:g}; leave the video out, or make "
        "its features anew"
    )


def parse_record(payload: memoryview, place: Place) -> Any:
    """Parse any record as a SequenceExample message. Raises `DamagedRecordError` if it is not protobuf.

    An Example parses as a SequenceExample without feature lists, because an Example's `features` and a
    SequenceExample's `context` are the same field.
    """
    message = SequenceExample()
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise _not_protobuf(place) from error
    return message


def check_holds_features(message: Any, place: Place) -> None:
    """Raise `DamagedRecordError` if a record has no features, neither of frames nor of the whole video."""
    # The lists' field alone proves nothing: YouTube-8M's video-level records have it, empty.
    if not message.feature_lists.feature_list and not feature_names(message.context):
        raise place.unfit(f"it has neither frames nor features; {NO_FRAMES}")


def feature_names(context: Any) -> list[str]:
    """The sorted names of the whole video's features in a `Features` message: not id, labels and predictions."""
    return sorted(set(context.feature) - {*ID_KEYS, LABELS_KEY, PREDICTIONS_KEY})


def features_message(encoded: bytes | memoryview, place: Place) -> Any:
    """Parse a `Features` message. Raises `DamagedRecordError` if the bytes are not one."""
    message = Features()
    try:
        message.ParseFromString(encoded)
    except DecodeError as error:
        raise _not_protobuf(place) from error
    return message


def identity(context: Any, layout: Layout, place: Place) -> RecordIdentity:
    """The id in a record's `Features` message, and the labels and predictions that `layout` asks for.

    Raises `InputError` for labels that are outside the classes or no class numbers, and for predictions that are
    missing or are no probabilities of the classes; raises `DamagedRecordError` if there is no id.
    """
    video_id = read_id(context, place)
    labels = None
    if layout.classes is not None:
        labels = label_list(context, place, layout.classes)
    elif layout.check_labels:
        labels = label_list(context, place)
    predictions = None
    if layout.soft_classes is not None:
        predictions = _predictions(context, video_id, layout.soft_classes, place)
    return RecordIdentity(video_id, labels, predictions)


def read_id(context: Any, place: Place) -> str:
    """The id in a record's `Features` message. Raises `DamagedRecordError` if there is none."""
    feature = context.feature
    for key in ID_KEYS:
        stored = feature.get(key)
        if stored is not None and stored.bytes_list.value and stored.bytes_list.value[0]:
            return stored.bytes_list.value[0].decode("utf-8", "backslashreplace")
    integers = next((key for key in ID_KEYS if key in feature and feature[key].int64_list.value), None)
    if integers is not None:
        raise place.unfit(f"its id, under {integers!r}, is an integer; write it as bytes: b'17'")
    raise place.unfit(
        "it has no id (neither 'id' nor 'video_id' holds a bytes value that is not empty); write one into each record"
    )


def read_predictions(context: Any, place: Place) -> np.ndarray | None:
    """A teacher's probabilities in a record's `Features` message, float32 [V], or None if it holds none.

    Raises `RecordError` if they are not floats, or not all from 0 to 1.
    """
    stored = context.feature.get(PREDICTIONS_KEY)
    kind = stored.WhichOneof("kind") if stored is not None else None
    if kind is None:
        return None
    if kind != "float_list":
        raise place.unusable(
            f"{PREDICTIONS_KEY!r} hold {_KIND_WORDS[kind]}, not floats; write probabilities, as a float list"
        )
    values = np.array(stored.float_list.value, np.float32)
    wrong = first_improbable(values)
    if wrong is not None:
        raise place.unusable(
            f"{PREDICTIONS_KEY!r} are not all from 0 to 1 ({values[wrong]:g} for class {wrong}); write a teacher's "
            "probabilities"
        )
    return values


def _predictions(context: Any, video_id: str, classes: int, place: Place) -> np.ndarray:
    """The teacher's probabilities in the record, float16 [classes]."""
    values = read_predictions(context, place)
    if values is None:
        raise InputError(
            f"{place}: video {video_id!r} holds no {PREDICTIONS_KEY!r} of a teacher; "
            "topgb distill writes them, beside the records or into copies of them"
        )
    if len(values) != classes:
        raise InputError(
            f"{place}: there are {len(values)} predictions for {classes} classes; "
            "teacher and student need the same classes"
        )
    return values.astype(np.float16)


def _stack(rows: Any, feature: Feature, place: Place) -> np.ndarray:
    """The frames of one feature, uint8 or float32 [N, size]."""
    kind = _KINDS[feature.dtype]
    stored = rows[0].WhichOneof("kind")
    if stored != kind:
        raise InputError(
            f"{place}: feature {feature.name!r} holds {_KIND_WORDS[stored]}, but the model or recipe expects "
            f"{feature.dtype}; the two must agree"
        )
    width = frame_width(feature.name, rows, place)
    if width != feature.size:
        raise InputError(
            f"{place}: feature {feature.name!r} is {width} wide, but the model or recipe expects {feature.size}; "
            "the two must agree"
        )
    if kind == "bytes_list":
        return np.stack([np.frombuffer(row.bytes_list.value[0], np.uint8) for row in rows])
    return np.stack([np.array(row.float_list.value, np.float32) for row in rows])


def frame_width(name: str, rows: Any, place: Place) -> int:
    """The width that all frames of a feature have. Raises `UnfitRecordError` where they differ in kind or width."""
    kind = rows[0].WhichOneof("kind")
    widths = set()
    for number, row in enumerate(rows):
        stored = row.WhichOneof("kind")
        if stored != kind:
            held = _KIND_WORDS[stored]
            raise place.unfit(f"frame {number} of feature {name!r} holds {held}; write all frames alike")
        values: Any = [] if kind is None else getattr(row, kind).value
        if kind == "bytes_list" and len(values) != 1:
            raise place.unfit(
                f"frame {number} of feature {name!r} has {len(values)} values, not one; write one value per frame, "
                "with all bytes of the frame"
            )
        widths.add(len(values[0] if kind == "bytes_list" else values))
    if len(widths) != 1:
        raise place.unfit(
            f"the frames of feature {name!r} have unequal widths ({_join(sorted(widths))}); write all frames alike"
        )
    return widths.pop()


def _missing_feature(feature: Feature, message: Any, layout: Layout, place: Place) -> InputError:
    lists = sorted(message.feature_lists.feature_list)
    names = lists or feature_names(message.context)
    level = "frame" if lists else "video"
    if level != layout.spec.level:
        return InputError(
            f"{place} has no feature {feature.name!r} of the {layout.spec.level}, but of the {level}: {_join(names)}; "
            f"it looks like a {level}-level record, while the model or recipe expects {layout.spec.level}-level ones"
        )
    return InputError(
        f"{place} has no feature {feature.name!r}; it has: {_join(names)}; "
        "the model or recipe and the records must name the same features"
    )


def _not_protobuf(place: Place) -> InputError:
    return place.unfit("its CRC holds, but it is no Example or SequenceExample; write the records anew")


def _join(items: list) -> str:
    return printable(", ".join(map(str, items)))
