"""The codec: the fast and the general way agree, and everything wrong gets its own sentence."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topgb.errors import DamagedRecordError, InputError, RecordError, UnfitRecordError
from topgb.features import Feature, FeatureSpec
from topgb.records import codec as example
from topgb.records import wire
from topgb.records.codec import decode_record, encode_example, encode_sequence_example, read_identity
from topgb.records.framing import Place
from topgb.records.layout import Layout
from topgb.records.protobuf_decoding import decode_generally
from topgb.records.protos import SequenceExample

PLACE = Place("set/a.tfrecord", 7, 4242)
CLASSES = 50

names = st.sampled_from(["rgb", "audio", "mean_rgb", "é", "x" * 200])
features = st.builds(
    Feature, names, st.one_of(st.integers(1, 5), st.integers(120, 140)), st.sampled_from(["uint8", "float32"])
)
specs = st.builds(
    FeatureSpec,
    st.sampled_from(["video", "frame"]),
    st.lists(features, min_size=1, max_size=3, unique_by=lambda f: f.name).map(tuple),
)
labels = st.one_of(st.none(), st.lists(st.integers(0, CLASSES - 1), max_size=4, unique=True))


def random_features(spec, frames, seed):
    generator = np.random.default_rng(seed)
    values = {}
    for feature in spec.features:
        shape = (frames, feature.size) if spec.level == "frame" else (feature.size,)
        if feature.dtype == "uint8":
            values[feature.name] = generator.integers(0, 256, shape, np.uint8)
        else:
            values[feature.name] = generator.standard_normal(shape).astype(np.float32)
    return values


def encode(spec, *arguments):
    return (encode_example if spec.level == "video" else encode_sequence_example)(*arguments)


def both_ways(payload, layout):
    """The decoded record, after checking that protobuf alone gives the same."""
    decoded = decode_record(memoryview(payload), layout, PLACE)
    who, frames = decode_generally(memoryview(payload), layout, PLACE)
    assert (decoded.id, decoded.labels) == who[:2]
    np.testing.assert_equal(decoded.predictions, who.predictions)
    np.testing.assert_equal(read_identity(memoryview(payload), layout, PLACE), who)
    for fast, general in zip(decoded.frames, frames, strict=True):
        assert fast.dtype == general.dtype
        np.testing.assert_array_equal(fast, general)
    return decoded


@given(specs, st.integers(1, 6), labels, st.sampled_from(["id", "video_id"]), st.integers(0, 99))
def test_round_trip_is_regular(spec, frames, found_labels, id_key, seed):
    values = random_features(spec, frames, seed)
    payload = encode(spec, "víd", values, found_labels, id_key)
    assert payload == encode(spec, "víd", values, found_labels, id_key)
    layout = Layout(spec, CLASSES)
    walk = example._regular_sequence if spec.level == "frame" else example._regular_example
    walk(memoryview(payload), layout)
    decoded = both_ways(payload, layout)
    assert (decoded.id, decoded.labels) == ("víd", found_labels)
    assert decoded.num_frames == (frames if spec.level == "frame" else 1)
    for feature, array in zip(spec.features, decoded.frames, strict=True):
        np.testing.assert_array_equal(array, np.atleast_2d(values[feature.name]))


def long_varint(draw, value):
    """A varint, perhaps of more bytes than it needs."""
    encoded = wire.varint(value)
    extra = draw(st.integers(0, 2))
    if not extra:
        return encoded
    return encoded[:-1] + bytes([encoded[-1] | 0x80]) + b"\x80" * (extra - 1) + b"\x00"


def odd_field(draw, tag, *parts):
    content = b"".join(parts)
    return bytes([tag]) + long_varint(draw, len(content)) + content


def maybe(draw, odds, value):
    return value if draw(st.integers(0, odds)) == 0 else b""


def odd_feature(draw, values):
    """A Feature message as no usual writer makes it: long varints, unpacked floats, fields nobody knows."""
    if values.dtype == np.uint8:
        feature = odd_field(draw, 0x0A, odd_field(draw, 0x0A, values.tobytes()))
    elif draw(st.booleans()):
        feature = odd_field(draw, 0x12, odd_field(draw, 0x0A, values.tobytes()))
    else:
        feature = odd_field(draw, 0x12, *(b"\x0d" + value.tobytes() for value in values))
    return feature + maybe(draw, 5, odd_field(draw, 0x7A, b"unknown"))


def odd_entry(draw, key, value):
    parts = [odd_field(draw, 0x0A, key.encode()), odd_field(draw, 0x12, value)]
    if draw(st.booleans()):
        parts.reverse()
    return odd_field(draw, 0x0A, *parts)


@st.composite
def odd_records(draw):
    spec = draw(specs)
    values = random_features(spec, draw(st.integers(1, 4)), draw(st.integers(0, 99)))
    context = [odd_entry(draw, draw(st.sampled_from(["id", "video_id"])), b"\x0a\x03\x0a\x01v")]
    found_labels = draw(labels)
    if found_labels is not None:
        if draw(st.booleans()):
            body = odd_field(draw, 0x0A, *map(wire.varint, found_labels))
        else:
            body = b"".join(b"\x08" + wire.varint(label) for label in found_labels)
        context.append(odd_entry(draw, "labels", odd_field(draw, 0x1A, body)))
    if draw(st.booleans()):
        context.append(odd_entry(draw, "other", odd_field(draw, 0x12, odd_field(draw, 0x0A, b"\x00\x00\x80\x3f"))))
    unknown = b"\x9a\x01\x02hi" + b"\x70\x05"
    if spec.level == "video":
        entries = context + [odd_entry(draw, name, odd_feature(draw, array)) for name, array in values.items()]
        entries = draw(st.permutations(entries))
        # A message that is given in two parts is their sum.
        cut = draw(st.integers(0, len(entries)))
        parts = [odd_field(draw, 0x0A, *entries[:cut]), odd_field(draw, 0x0A, *entries[cut:])]
        return spec, values, found_labels, b"".join(parts) + maybe(draw, 4, unknown)
    lists = []
    for name, array in values.items():
        frames = [odd_field(draw, 0x0A, odd_feature(draw, row)) for row in array]
        lists.append(odd_entry(draw, name, b"".join(frames)))
        # Of two entries with one key the last counts.
        if draw(st.integers(0, 5)) == 0:
            other = odd_feature(draw, np.zeros_like(array[0])) if draw(st.booleans()) else b"\x0a\x03\x0a\x01z"
            lists.insert(0, odd_entry(draw, name, odd_field(draw, 0x0A, other)))
    parts = [odd_field(draw, 0x0A, *context), odd_field(draw, 0x12, *lists)]
    return spec, values, found_labels, b"".join(draw(st.permutations(parts))) + maybe(draw, 4, unknown)


@settings(max_examples=400)
@given(odd_records())
def test_irregular_records_agree(case):
    spec, values, found_labels, payload = case
    decoded = both_ways(payload, Layout(spec, CLASSES))
    assert (decoded.id, decoded.labels) == ("v", found_labels)
    for feature, array in zip(spec.features, decoded.frames, strict=True):
        np.testing.assert_array_equal(array, np.atleast_2d(values[feature.name]))


def outcome(function):
    try:
        return function()
    except DamagedRecordError as error:
        return error
    except InputError as error:
        return error


@settings(max_examples=400)
@given(st.binary(max_size=120), specs)
def test_random_bytes_give_documented_errors(payload, spec):
    layout = Layout(spec, CLASSES)
    assert isinstance(outcome(lambda: decode_record(memoryview(payload), layout, PLACE)), InputError)
    assert isinstance(outcome(lambda: decode_generally(memoryview(payload), layout, PLACE)), InputError)
    outcome(lambda: read_identity(memoryview(payload), layout, PLACE))


@settings(max_examples=400)
@given(specs, st.integers(0, 99), st.data())
def test_garbled_records_agree_or_give_documented_errors(spec, seed, data):
    payload = bytearray(encode(spec, "v", random_features(spec, 3, seed), [1, 2]))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    layout = Layout(spec, CLASSES)
    fast = outcome(lambda: decode_record(memoryview(bytes(payload)), layout, PLACE))
    general = outcome(lambda: decode_generally(memoryview(bytes(payload)), layout, PLACE))
    if not isinstance(fast, InputError) and not isinstance(general, InputError):
        assert (fast.id, fast.labels) == general[0][:2]
        for left, right in zip(fast.frames, general[1], strict=True):
            np.testing.assert_array_equal(left, right)


def test_views_are_not_copies():
    spec = FeatureSpec("frame", (Feature("rgb", 4), Feature("audio", 2)))
    values = random_features(spec, 3, 0)
    payload = encode_sequence_example("v", values, [])
    decoded = decode_record(memoryview(payload), Layout(spec, CLASSES), PLACE)
    assert not decoded.frames[0].flags.owndata
    assert not decoded.frames[0].flags.writeable
    joined = np.full((5, 6), 9, np.uint8)
    decoded.copy_frames(joined[:2])
    np.testing.assert_array_equal(joined[:2], np.hstack([values["rgb"], values["audio"]])[:2])
    assert (joined[2:] == 9).all()
    decoded.copy_frames(joined, np.array([2, 2, 0, 1, 2]))
    np.testing.assert_array_equal(joined, np.hstack([values["rgb"], values["audio"]])[[2, 2, 0, 1, 2]])


FRAMES = FeatureSpec("frame", (Feature("rgb", 4), Feature("audio", 2)))
VECTORS = FeatureSpec("video", (Feature("mean_rgb", 4, "float32"),))


def refused(payload, spec, kind, *words, classes=CLASSES):
    """Both ways refuse `payload` with an error of exactly `kind` that has all of `words`."""
    layout = Layout(spec, classes)
    for decode in (decode_record, decode_generally):
        with pytest.raises(kind) as caught:
            decode(memoryview(payload), layout, PLACE)
        assert type(caught.value) is kind
        for word in ("set/a.tfrecord", "record 7", "4242", *words):
            assert re.search(word, str(caught.value)), f"{word!r} is not in: {caught.value}"


def frame_record_of(rgb=(3, 4), audio=(3, 2), labels=(1,)):
    values = {"rgb": np.zeros(rgb, np.uint8), "audio": np.zeros(audio, np.uint8)}
    return encode_sequence_example("v", values, labels and list(labels))


def test_wrong_feature_name():
    spec = FeatureSpec("frame", (Feature("speech", 4),))
    refused(frame_record_of(), spec, InputError, "no feature 'speech'", "audio, rgb")
    payload = encode_example("v", {"mean_rgb": np.zeros(4, np.float32)}, [1])
    spec = FeatureSpec("video", (Feature("rgb", 4, "float32"),))
    refused(payload, spec, InputError, "no feature 'rgb'", "it has: mean_rgb;", "must name the same features")


def test_wrong_level():
    payload = encode_example("v", {"mean_rgb": np.zeros(4, np.float32)}, [1])
    refused(payload, FRAMES, InputError, "of the video: mean_rgb;", "video-level record.*expects frame-level")
    refused(
        frame_record_of(), VECTORS, InputError, "of the frame: audio, rgb;", "frame-level record.*expects video-level"
    )


@pytest.mark.parametrize("spec", [FRAMES, VECTORS])
@pytest.mark.parametrize("encoder", [encode_example, encode_sequence_example])
def test_no_features_at_all(spec, encoder):
    refused(encoder("v", {}, [1]), spec, UnfitRecordError, "neither frames nor features")


def test_wrong_width():
    refused(frame_record_of(rgb=(3, 5)), FRAMES, InputError, "'rgb' is 5 wide", "expects 4")
    payload = encode_example("v", {"mean_rgb": np.zeros(3, np.float32)}, [1])
    refused(payload, VECTORS, InputError, "'mean_rgb' is 3 wide", "expects 4")


def test_wrong_kind():
    payload = encode_example("v", {"mean_rgb": np.zeros(4, np.uint8)}, [1])
    refused(payload, VECTORS, InputError, "'mean_rgb' holds bytes", "float32")
    message = SequenceExample()
    message.context.feature["id"].bytes_list.value.append(b"v")
    message.context.feature["mean_rgb"].float_list.value.extend([0] * 4)
    message.context.feature["labels"].float_list.value.append(1)
    refused(message.SerializeToString(), VECTORS, RecordError, "labels hold floats")


@pytest.mark.parametrize("label", [50, 2**40])
def test_label_outside_the_classes(label):
    payload = encode_sequence_example(
        "v", {"rgb": np.zeros((1, 4), np.uint8), "audio": np.zeros((1, 2), np.uint8)}, [3, label]
    )
    refused(payload, FRAMES, InputError, f"label {label} ", "the 50 classes")


def test_zero_frames():
    refused(frame_record_of(rgb=(0, 4), audio=(0, 2)), FRAMES, UnfitRecordError, "no frames")


def test_unequal_frame_counts():
    refused(frame_record_of(audio=(2, 2)), FRAMES, UnfitRecordError, "unequal numbers of frames", "rgb 3, audio 2")


def test_unequal_widths_in_one_list():
    message = SequenceExample.FromString(frame_record_of())
    message.feature_lists.feature_list["rgb"].feature[1].bytes_list.value[0] = b"123"
    refused(message.SerializeToString(), FRAMES, UnfitRecordError, "unequal widths", "3, 4")

    # Widths that together make as many bytes as the right ones would.
    message.feature_lists.feature_list["rgb"].feature[2].bytes_list.value[0] = b"12345"
    refused(message.SerializeToString(), FRAMES, UnfitRecordError, "unequal widths", "3, 4, 5")


def test_other_kinds_of_the_same_length():
    payload = encode_sequence_example("v", {"rgb": np.zeros((2, 1), np.float32)}, [1])
    refused(payload, FeatureSpec("frame", (Feature("rgb", 4),)), InputError, "'rgb' holds floats")
    payload = encode_example("v", {"mean_rgb": np.zeros(16, np.uint8)}, [1])
    refused(payload, VECTORS, InputError, "'mean_rgb' holds bytes")


def test_the_last_of_two_entries_counts():
    first, last = (random_features(VECTORS, 1, seed) for seed in (1, 2))
    # Concatenated messages are merged, and a map's entries with them.
    both = encode_example("a", first, [1]), encode_example("b", last, [2])
    bodies = [payload[slice(*wire.field_spans(memoryview(payload), 0, len(payload))[0][1:])] for payload in both]
    decoded = both_ways(wire.field(0x0A, *bodies), Layout(VECTORS, CLASSES))
    assert (decoded.id, decoded.labels) == ("b", [2])
    np.testing.assert_array_equal(decoded.frames[0][0], last["mean_rgb"])


@pytest.mark.parametrize("data", [b"\x0a\x05abc", b"\x0a", b"\x0a\x80", b"\x0a\xff\xff\xff\xff\xff\x01", b"\x08\x01"])
def test_fields_that_exceed_their_message_are_not_walked(data):
    with pytest.raises(wire.IrregularError):
        wire.field_spans(memoryview(data), 0, len(data))
    with pytest.raises(wire.IrregularError):
        wire.field_spans(memoryview(data + b"x" * 300), 0, len(data))


def test_two_values_in_one_frame():
    message = SequenceExample.FromString(frame_record_of())
    message.feature_lists.feature_list["rgb"].feature[1].bytes_list.value.append(b"1234")
    refused(message.SerializeToString(), FRAMES, UnfitRecordError, "frame 1 .*has 2 values")


def test_no_id():
    message = SequenceExample.FromString(frame_record_of())
    del message.context.feature["id"]
    refused(message.SerializeToString(), FRAMES, UnfitRecordError, "no id")


@pytest.mark.parametrize(
    "spec", [VECTORS, FeatureSpec("frame", (Feature("rgb", 4), Feature("mean_rgb", 4, "float32")))]
)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("irregular", [b"", b"\x70\x05"])
def test_floats_that_are_not_finite(spec, wrong, irregular):
    values = random_features(spec, 3, 0)
    values["mean_rgb"][..., 2] = wrong
    payload = encode(spec, "v", values, [1]) + irregular
    with pytest.raises(UnfitRecordError, match="record 7 .*'mean_rgb' holds values that are not finite"):
        decode_record(memoryview(payload), Layout(spec, CLASSES), PLACE)


def test_great_floats_are_read():
    payload = encode_example("v", {"mean_rgb": np.full(4, 9e14, np.float32)}, [1])
    assert both_ways(payload, Layout(VECTORS, CLASSES)).num_frames == 1


def test_an_id_that_is_not_text():
    payload = frame_record_of().replace(b"\x0a\x01v", b"\x0a\x01\xff")
    assert both_ways(payload, Layout(FRAMES, CLASSES)).id == "\\xff"


def test_labels_that_are_not_looked_at():
    for found_labels in (None, [], [3], [-1]):
        assert both_ways(frame_record_of(labels=found_labels), Layout(FRAMES, None)).labels is None


def test_no_protobuf():
    refused(b"\xff" * 30, FRAMES, UnfitRecordError, "no Example or SequenceExample")
    refused(b"\xff" * 30, VECTORS, UnfitRecordError, "no Example or SequenceExample")


def test_unlabelled_is_not_labelled_with_none():
    for found_labels in (None, []):
        decoded = both_ways(frame_record_of(labels=found_labels), Layout(FRAMES, CLASSES))
        assert decoded.labels == found_labels


def test_encoding_other_types_is_refused():
    with pytest.raises(InputError, match="not float64"):
        encode_example("v", {"mean_rgb": np.zeros(4)}, None)
