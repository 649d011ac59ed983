"""The record decoder on any bytes: framing, both ways of decoding, batches, ids, teachers' scores."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from fuzz import repair
from fuzz.choices import Choices
from fuzz.refusals import unless_refused
from topgb.features import Feature, FeatureSpec
from topgb.records import wire
from topgb.records.codec import DecodedRecord, decode_record, encode_example, encode_sequence_example, read_identity
from topgb.records.dataset import Dataset, evaluation_batches
from topgb.records.framing import Place, frame_record
from topgb.records.ids import read_record_id
from topgb.records.labels import Targets
from topgb.records.layout import Layout
from topgb.records.protobuf_decoding import decode_generally
from topgb.records.shards import Shard
from topgb.records.teacher_scores import read_scores, write_scores

CLASSES, MAX_FRAMES, TOP = 5, 4, 2
SPECS = [
    FeatureSpec("frame", (Feature("rgb", 6), Feature("audio", 3))),
    FeatureSpec("video", (Feature("mean_rgb", 4, "float32"), Feature("mean_audio", 2, "float32"))),
    FeatureSpec("frame", (Feature("rgb", 40, "float32"), Feature("audio", 3))),
    FeatureSpec("video", (Feature("mean_rgb", 4), Feature("mean_audio", 2, "float32"))),
]
MODES = ["payload", "sound CRCs", "gzip", "bytes", "scores"]


class Target:
    """`run` reads a file or a record of the given bytes; `folder` is for the file."""

    tokens = (b"rgb", b"audio", b"mean_rgb", b"mean_audio", b"id", b"video_id", b"labels", b"predictions")

    def __init__(self, folder: Path):
        self._path = folder / "fuzzed.tfrecord"

    def run(self, data: bytes) -> None:
        choices = Choices(data)
        mode, spec, options = choices.pick(MODES), choices.pick(SPECS), choices.number()
        body = choices.rest()
        layout = Layout(spec, CLASSES if options & 1 else None, CLASSES if options & 2 else None)
        if mode == "payload":
            _decode(body, layout)
            return
        if mode == "sound CRCs":
            body = repair.tfrecord_crcs(body)
        elif mode == "gzip":
            packed = gzip.compress(repair.tfrecord_crcs(body), 1, mtime=0)
            body = packed[: -1 - options // 16] if options & 8 else packed
        elif mode == "scores":
            header, _, rest = body.partition(b"\0")
            body = repair.safetensors(header, rest)
        self._path.write_bytes(body)
        if mode == "scores":
            self._read_scores(options)
        else:
            self._read_batches(layout, options)

    def _read_batches(self, layout: Layout, options: int) -> None:
        dataset = unless_refused(
            lambda: Dataset(
                [Shard(str(self._path))],
                layout.spec,
                CLASSES,
                MAX_FRAMES,
                "skip" if options & 4 else "stop",
                Targets(layout.classes is not None, "records" if layout.soft_classes else None),
            ),
            self._path,
        )
        if dataset is None:
            return
        dataset.fingerprint()
        for record in range(min(dataset.num_records, 4)):
            unless_refused(lambda record=record: dataset.identity_of((0, record)), self._path)
        # Several, so that a batch is padded.
        batches = unless_refused(lambda: list(evaluation_batches(dataset, 3)), self._path)
        for batch in batches or []:
            videos, frames, width = batch.features.shape
            assert len(batch.ids) == videos == len(batch.num_frames)
            assert width == layout.spec.width
            assert 1 <= frames <= MAX_FRAMES
            assert batch.num_frames.min() >= 1
            assert batch.num_frames.max() == frames
            assert batch.features.isfinite().all()
            assert batch.labels is None or batch.labels.shape == (videos, CLASSES)
            assert layout.soft_classes is None or batch.teacher.shape == (videos, CLASSES)

    def _read_scores(self, options: int) -> None:
        top = TOP if options & 1 else None
        scores = unless_refused(lambda: read_scores(self._path, CLASSES, top), self._path)
        if scores is None:
            return
        row = np.empty(CLASSES, np.float16)
        for video in range(len(scores)):
            scores.id(video)
            with np.errstate(all="ignore"):
                scores.write_row(video, row)

    def seeds(self) -> list[bytes]:
        """Sound inputs of every mode and spec."""
        seeds = []
        for kind, spec in enumerate(SPECS):
            payloads = [_payload(spec, number) for number in range(3)]
            shard = b"".join(map(frame_record, payloads))
            for options in (0, 1, 2, 3, 5, 9):
                seeds += [bytes((0, kind, options)) + payload for payload in payloads[:2]]
                seeds += [bytes((mode, kind, options)) + shard for mode in (1, 2, 3)]
            seeds.append(bytes((3, kind, 1)) + zlib.compress(shard, wbits=31))
        for top in (None, TOP):
            raw = self._scores_file(top)
            size = int.from_bytes(raw[:8], "little")
            seeds.append(bytes((4, 0, top is not None)) + raw[8 : 8 + size] + b"\0" + raw[8 + size :])
        return seeds

    def _scores_file(self, top: int | None) -> bytes:
        import torch

        write_scores(self._path, [(["v0", "v1"], torch.full((2, CLASSES), 0.25))], CLASSES, top)
        return self._path.read_bytes()


def _decode(payload: bytes, layout: Layout) -> None:
    place = Place("fuzzed", 7, 42)
    view = memoryview(payload)
    fast = unless_refused(lambda: decode_record(view, layout, place), "fuzzed")
    general = unless_refused(lambda: decode_generally(view, layout, place), "fuzzed")
    unless_refused(lambda: read_identity(view, layout, place), "fuzzed")
    unless_refused(lambda: read_record_id(view, place), "fuzzed")
    # What the spec does not name, only the general way looks at; values that are not finite, only what both end in.
    if fast is not None and general is not None:
        _assert_same(fast, general)
        taken = fast.frames[0][:MAX_FRAMES]
        fast.copy_frames(np.empty((len(taken), layout.spec.width), np.float32))


def _assert_same(fast: DecodedRecord, general: tuple) -> None:
    who, frames = general
    assert (fast.id, fast.labels) == who[:2]
    np.testing.assert_equal(fast.predictions, who.predictions)
    for left, right in zip(fast.frames, frames, strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


def _payload(spec: FeatureSpec, number: int) -> bytes:
    shape = (number + 2,) if spec.level == "frame" else ()
    generator = np.random.default_rng(number)
    features = {
        feature.name: generator.integers(0, 256, (*shape, feature.size), np.uint8)
        if feature.dtype == "uint8"
        else generator.random((*shape, feature.size), np.float32)
        for feature in spec.features
    }
    predictions = np.linspace(0, 1, CLASSES, dtype=np.float32)
    encode = encode_sequence_example if spec.level == "frame" else encode_example
    payload = encode(f"v{number}", features, [number, 4], "id" if number else "video_id", predictions)
    # A field that nobody knows sends it the general way.
    return payload + wire.field(0x7A, b"unknown") + b"\x70\x05" if number == 2 else payload
