"""Whole gzip files of any bytes, as shards and as CSVs: their members, headers, deflate streams and checksums."""

import gzip
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np

from fuzz.choices import Choices
from fuzz.refusals import unless_refused
from topgb.csv_rows import csv_rows
from topgb.features import Feature, FeatureSpec
from topgb.records.codec import encode_sequence_example
from topgb.records.dataset import Dataset, evaluation_batches
from topgb.records.framing import frame_record
from topgb.records.shards import Shard

MODES = ["bytes", "sound checksums", "members"]
_SPEC = FeatureSpec("frame", (Feature("rgb", 6),))
_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\2\3"
_MOST_BYTES = 16 << 20


class Target:
    """`run` reads a gzip file of the given bytes, which lies in `folder`, as a shard or as a CSV."""

    tokens = (_HEADER, b"\x1f\x8b\x08\x08", b"\x1f\x8b\x08\x04", b"\x1f\x8b\x08\x02", b"\0\0\xff\xff", b"\3\0")

    def __init__(self, folder: Path):
        self._shard, self._table = folder / "fuzzed.tfrecord.gz", folder / "fuzzed.csv.gz"

    def run(self, data: bytes) -> None:
        choices = Choices(data)
        mode, as_table = choices.pick(MODES), choices.number() % 2
        if mode == "bytes":
            packed = _HEADER[:2] + choices.rest()
        elif mode == "sound checksums":
            packed = _member(choices.rest())
        else:
            packed = b"".join(_member(choices.take(choices.number(2))) for _ in range(choices.number() % 4))
            packed += choices.rest()
        if not packed.startswith(_HEADER[:2]):
            return
        path = self._table if as_table else self._shard
        path.write_bytes(packed)
        if as_table:
            unless_refused(lambda: sum(1 for _ in csv_rows(path)), path)
            return
        dataset = unless_refused(lambda: Dataset([Shard(str(path))], _SPEC, 5, 4, "skip"), path)
        if dataset is not None:
            unless_refused(lambda: [len(batch) for batch in evaluation_batches(dataset, 3)], path)

    def seeds(self) -> list[bytes]:
        """Sound files of one member and of several, of records and of text."""
        rows = np.arange(12, dtype=np.uint8).reshape(2, 6)
        shard = b"".join(frame_record(encode_sequence_example(f"v{n}", {"rgb": rows}, [n])) for n in range(3))
        text, empty = b'id,labels\n"a, b","x;y"\n' * 3, frame_record(b"") * 40
        files = [gzip.compress(content, level, mtime=0) for content in (shard, text, empty) for level in (0, 9)]
        streams = [_deflated(content) for content in (shard, text, empty)]
        named = b"\x1f\x8b\x08\x18\0\0\0\0\0\3name\0note\0" + streams[1] + files[2][-8:]
        members = b"".join(struct.pack("<H", len(stream)) + stream for stream in streams[:2])
        bodies = [
            *((b"\0", file[2:]) for file in (*files, files[0] + files[1] + bytes(9), named)),
            *((b"\1", stream) for stream in (*streams, _deflated(bytes(1 << 20)))),
            *((b"\2", b"\2" + members + rest) for rest in (b"", bytes(20), files[0])),
        ]
        return [mode + kind + body for mode, body in bodies for kind in (b"\0", b"\1")]


def _deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(content) + packer.flush()


def _member(stream: bytes) -> bytes:
    """A member of a deflate stream; its checksum is right if the stream is sound."""
    decoder, content = zlib.decompressobj(-15), b""
    with suppress(zlib.error):
        content = decoder.decompress(stream, _MOST_BYTES)
    stream = stream[: len(stream) - len(decoder.unused_data)]
    return _HEADER + stream + struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)
