"""Decode and encode records: tf.train.Example at video level, tf.train.SequenceExample at frame level.

Two decoders give the same arrays. The fast one reads regular records, which is what writers make: it checks the few
length fields around the values and returns strided NumPy views of the record's bytes. All other records go to the
general decoder, protobuf (`protobuf_decoding.py`), and only there are errors raised about how a record is laid out.
"""

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from topgb.errors import InputError
from topgb.features import MOST_RANGE
from topgb.records import wire
from topgb.records.framing import Place
from topgb.records.layout import FeatureLayout, Layout
from topgb.records.protobuf_decoding import (
    PREDICTIONS_KEY,
    RecordIdentity,
    decode_generally,
    features_message,
    identity,
    not_finite,
    parse_record,
)
from topgb.records.protos import Features, SequenceExample

IDENTITY_KEYS = (b"id", b"video_id", b"labels", PREDICTIONS_KEY.encode())


@dataclass(frozen=True)
class DecodedRecord:
    """One video as stored.

    id, labels, predictions  as in `RecordIdentity`
    frames  one array per feature, in the spec's order: uint8 or float32 [N, size] (N = 1 at video level). For a regular
            record these are read-only views of its bytes, valid as long as the buffer is
    """

    id: str
    labels: list[int] | None
    predictions: np.ndarray | None
    frames: tuple[np.ndarray, ...]

    @property
    def num_frames(self) -> int:
        """N, the number of frames."""
        return len(self.frames[0])

    def copy_frames(self, destination: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Fill `destination` [T, D], features joined, with the first T frames or with the frames `rows` (int [T])."""
        start = 0
        for values in self.frames:
            stop = start + values.shape[1]
            destination[:, start:stop] = values[: len(destination)] if rows is None else values[rows]
            start = stop


def decode_record(payload: memoryview, layout: Layout, place: Place) -> DecodedRecord:
    """Decode a record's data (`payload`), by the fast decoder if the record is regular.

    Raises `InputError` if the record does not fit the spec (a feature is missing or has another width or kind, a label
    is outside the classes), and `DamagedRecordError` if it makes no sense (it is not protobuf, has no id or no frames,
    has features with unequal frame counts or with values that are not finite). The fast decoder skips features that the
    spec does not name.
    """
    walk: Callable[[memoryview, Layout], tuple[bytes | memoryview, tuple[np.ndarray, ...]]]
    walk = _regular_sequence if layout.spec.level == "frame" else _regular_example
    try:
        context, frames = walk(payload, layout)
    except wire.IrregularError:
        who, frames = decode_generally(payload, layout, place)
    else:
        who = identity(features_message(context, place), layout, place)
    for feature, values in zip(layout.spec.features, frames, strict=True):
        # One NaN would spread through the whole model, and the square of a huge value is infinite, so that its frame
        # would count as silent. Bytes are always finite.
        if feature.dtype == "float32" and not (values.max() <= MOST_RANGE and values.min() >= -MOST_RANGE):
            raise place.unfit(not_finite(feature.name))
    return DecodedRecord(*who, frames)


def read_identity(payload: memoryview, layout: Layout, place: Place) -> RecordIdentity:
    """Read a record's id, and the labels and predictions that the layout asks for, without touching its frames.

    Raises the errors of `decode_record` for these.
    """
    return identity(read_context(payload, layout, place), layout, place)


def read_context(payload: memoryview, layout: Layout, place: Place) -> Any:
    """A record's context as a `Features` message, read without its frames; of an Example id, labels and predictions."""
    context: bytes | memoryview | None
    try:
        if layout.spec.level == "frame":
            context = payload[slice(*_sequence_spans(payload)[0])]
        else:
            context = _example_spans(payload, ())[0]
    except wire.IrregularError:
        context = None
    return parse_record(payload, place).context if context is None else features_message(context, place)


def count_frames(payload: memoryview, layout: Layout) -> int:
    """The number of frames of a SequenceExample, from its lengths alone; 0 if it has none or makes no sense."""
    try:
        _, (start, stop) = _sequence_spans(payload)
        for tag, entry_start, entry_stop in wire.field_spans(payload, start, stop):
            key, value_start, value_stop = wire.map_entry(payload, entry_start, entry_stop)
            if tag == wire.FIELD_1 and key in layout.by_key:
                frames, rest = divmod(value_stop - value_start, layout.by_key[key].stride)
                if rest:
                    raise wire.IrregularError
                return frames
    except wire.IrregularError:
        pass
    message = SequenceExample()
    try:
        message.ParseFromString(payload)
    except DecodeError:
        return 0
    lists = message.feature_lists.feature_list
    return max((len(lists[name].feature) for name in lists if name.encode() in layout.by_key), default=0)


def _sequence_spans(payload: memoryview) -> tuple[tuple[int, int], tuple[int, int]]:
    """(start, stop) of a SequenceExample's context, and of its feature lists. Raises `IrregularError`."""
    parts = {}
    for tag, start, stop in wire.field_spans(payload, 0, len(payload)):
        # Protobuf merges two messages of the same field; leave that to protobuf.
        if tag in parts:
            raise wire.IrregularError
        parts[tag] = (start, stop)
    if wire.FIELD_1 not in parts or wire.FIELD_2 not in parts:
        raise wire.IrregularError
    return parts[wire.FIELD_1], parts[wire.FIELD_2]


def _regular_sequence(payload: memoryview, layout: Layout) -> tuple[memoryview, tuple[np.ndarray, ...]]:
    """A SequenceExample's context, a `Features` message, and a view [N, size] per feature. Raises `IrregularError`."""
    (context_start, context_stop), (lists_start, lists_stop) = _sequence_spans(payload)
    found: list[np.ndarray | None] = [None] * len(layout.features)
    for tag, start, stop in wire.field_spans(payload, lists_start, lists_stop):
        if tag != wire.FIELD_1:
            continue
        key, value_start, value_stop = wire.map_entry(payload, start, stop)
        wanted = layout.by_key.get(key)
        if wanted is None:
            continue
        # The last of two entries with one key counts, as in protobuf.
        found[wanted.position] = _strided_frames(payload, value_start, value_stop, wanted)
    frames = _all_found(found)
    if len({len(values) for values in frames}) != 1:
        raise wire.IrregularError
    return payload[context_start:context_stop], frames


def _strided_frames(payload: memoryview, start: int, stop: int, layout: FeatureLayout) -> np.ndarray:
    """The N frames in `payload[start:stop]` as a view [N, size], uint8 or float32.

    Every frame of a regular feature list has the same `stride` bytes: the header, then the values. The bytes are
    therefore a matrix uint8 [N, stride]. Its first columns must equal the header in every row, and the view skips these
    columns. Raises `IrregularError` if the bytes are no such matrix.
    """
    header, stride, size = layout.header, layout.stride, layout.feature.size
    count, rest = divmod(stop - start, stride)
    if rest or not count:
        raise wire.IrregularError
    matrix: np.ndarray = np.ndarray((count, stride), np.uint8, payload, start)
    if matrix[:, : len(header)].tobytes() != header * count:
        raise wire.IrregularError
    if layout.feature.dtype == "uint8":
        return matrix[:, len(header) :]
    return np.ndarray((count, size), "<f4", payload, start + len(header), (stride, 4))


def _example_spans(payload: memoryview, keys: Container[bytes]) -> tuple[bytes, dict[bytes, tuple[int, int]]]:
    """An Example's entries of id, labels and predictions, joined, and (start, stop) of its features in `keys`."""
    tops = [span for span in wire.field_spans(payload, 0, len(payload)) if span[0] == wire.FIELD_1]
    if len(tops) != 1:
        raise wire.IrregularError
    _, entry_start, end = tops[0]
    context, spans = [], {}
    for tag, start, stop in wire.field_spans(payload, entry_start, end):
        if tag != wire.FIELD_1:
            raise wire.IrregularError
        key, value_start, value_stop = wire.map_entry(payload, start, stop)
        if key in keys:
            spans[key] = (value_start, value_stop)
        elif key in IDENTITY_KEYS:
            context.append(payload[entry_start:stop])
        entry_start = stop
    return b"".join(context), spans


def _regular_example(payload: memoryview, layout: Layout) -> tuple[bytes, tuple[np.ndarray, ...]]:
    """An Example's identity as a `Features` message, and a view [1, size] per feature. Raises `IrregularError`."""
    context, spans = _example_spans(payload, layout.by_key)
    found: list[np.ndarray | None] = [None] * len(layout.features)
    for key, (start, stop) in spans.items():
        wanted = layout.by_key[key]
        begin = start + len(wanted.header)
        if stop - start != wanted.stride or payload[start:begin] != wanted.header:
            raise wire.IrregularError
        kind = np.uint8 if wanted.feature.dtype == "uint8" else np.dtype("<f4")
        found[wanted.position] = np.ndarray((1, wanted.feature.size), kind, payload, begin)
    return context, _all_found(found)


def _all_found(found: list[np.ndarray | None]) -> tuple[np.ndarray, ...]:
    if any(values is None for values in found):
        raise wire.IrregularError
    return tuple(found)  # type: ignore[arg-type]


def encode_example(
    video_id: str,
    features: dict[str, np.ndarray],
    labels: list[int] | None,
    id_key: str = "id",
    predictions: np.ndarray | None = None,
) -> bytes:
    """Encode a video-level record. `features` are arrays [size]: float32 is stored as floats, uint8 as one bytes value.

    `labels` None makes an unlabelled record; `predictions` are a teacher's, float32 [V]. The same input gives the same
    bytes. Raises `InputError` for arrays of another dtype.
    """
    entries: list[bytes | memoryview] = []
    for name, values in features.items():
        entries += _feature_entry(name, _feature_messages(values[None]))
    return wire.field(wire.FIELD_1, _identity_entries(video_id, labels, id_key, predictions), *entries)


def encode_sequence_example(
    video_id: str,
    features: dict[str, np.ndarray],
    labels: list[int] | None,
    id_key: str = "id",
    predictions: np.ndarray | None = None,
    more: bytes = b"",
) -> bytes:
    """Encode a frame-level record. `features` are arrays [N, size]: float32 rows become float lists, uint8 rows bytes.

    `labels` None makes an unlabelled record; `predictions` are a teacher's, float32 [V]. `more` are further encoded
    entries of the context. The same input gives the same bytes. Raises `InputError` for arrays of another dtype.
    """
    lists: list[bytes | memoryview] = []
    for name, values in features.items():
        lists += _feature_entry(name, _feature_messages(values, framed=True))
    context = _identity_entries(video_id, labels, id_key, predictions)
    return b"".join((wire.field(wire.FIELD_1, context, more), *wire.field_parts(wire.FIELD_2, *lists)))


def _identity_entries(video_id: str, labels: list[int] | None, id_key: str, predictions: np.ndarray | None) -> bytes:
    # Protobuf does not promise an order of a map's entries, so the two entries are serialised one after the other.
    message = Features()
    message.feature[id_key].bytes_list.value.append(video_id.encode())
    encoded = message.SerializeToString()
    if labels is not None:
        message = Features()
        message.feature["labels"].int64_list.value.extend(int(label) for label in labels)
        # Write an empty list too: a record without the list counts as unlabelled.
        message.feature["labels"].int64_list.SetInParent()
        encoded += message.SerializeToString()
    if predictions is not None:
        encoded += b"".join(_feature_entry(PREDICTIONS_KEY, _feature_messages(predictions[None])))
    return encoded


def _feature_entry(name: str, value: np.ndarray) -> list[bytes | memoryview]:
    """The parts of an entry of a map whose value is the bytes of `value`, which are not copied."""
    content = wire.field_parts(wire.FIELD_2, value.reshape(-1).data)
    return wire.field_parts(wire.FIELD_1, wire.field(wire.FIELD_1, name.encode()), *content)


def _feature_messages(values: np.ndarray, framed: bool = False) -> np.ndarray:
    """Encode each row of `values` [N, size] as a `Feature` message: uint8 [N, bytes of a message].

    `framed` makes each an element of a list, as frames are.
    """
    if values.dtype == np.uint8:
        tag, data = wire.FIELD_1, np.ascontiguousarray(values)
    elif values.dtype == np.float32:
        tag, data = wire.FIELD_2, np.ascontiguousarray(values, "<f4").view(np.uint8)
    else:
        raise InputError(f"features are stored as uint8 or float32, not {values.dtype}; convert them first")
    inner = bytes((wire.FIELD_1,)) + wire.varint(data.shape[1])
    message = bytes((tag,)) + wire.varint(len(inner) + data.shape[1]) + inner
    if framed:
        message = bytes((wire.FIELD_1,)) + wire.varint(len(message) + data.shape[1]) + message
    header = np.frombuffer(message, np.uint8)
    return np.hstack([np.broadcast_to(header, (len(data), len(header))), data])
