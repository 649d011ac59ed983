"""Recognise files that are not TFRecords by how they begin, and say what to do with them."""

import io
import os
import zlib
from collections.abc import Callable
from typing import NamedTuple

from google.protobuf.message import DecodeError

from topgb.records.folders import DESCRIPTION
from topgb.records.protos import SequenceExample

# How much of a file is looked at; a bare message is parsed whole up to `MOST_MESSAGE` bytes.
HEAD = 1024
MOST_MESSAGE = 64 << 20

_PACK = "topgb data pack makes records of features in such files"
_UNPACK = "unpack it first"
_MEDIA = "topgb reads features of videos, not the videos"
_SERVED = "a server sent it in place of the file, so look at what it says and download the file again"


class Foreign(NamedTuple):
    """The kind of a file that is not a TFRecord, and the remedy."""

    like: str
    remedy: str


_MAGIC: tuple[tuple[int, bytes, Foreign], ...] = (
    (0, b"version https://git-lfs", Foreign("a Git LFS pointer", "fetch the file that it stands for: git lfs pull")),
    (0, b"\x93NUMPY", Foreign("a NumPy array (.npy)", _PACK)),
    (0, b"PK\x03\x04", Foreign("a ZIP archive, such as NumPy's .npz", f"{_PACK}; unpack any other archive first")),
    (0, b"PAR1", Foreign("a Parquet table", _PACK)),
    (0, b"\x89HDF\r\n\x1a\n", Foreign("an HDF5 file", _PACK)),
    (0, b"BZh", Foreign("bzip2", _UNPACK)),
    (0, b"\xfd7zXZ\0", Foreign("xz", _UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", Foreign("zstd", _UNPACK)),
    (0, b"\x1f\x8b", Foreign("gzip, packed once more", "unpack it once")),
    (0, b"\x04\x22\x4d\x18", Foreign("LZ4", _UNPACK)),
    (0, b"\xff\x06\0\0sNaPpY", Foreign("snappy", _UNPACK)),
    (0, b"ARROW1", Foreign("an Arrow or Feather table", "write it as Parquet, which topgb data pack reads")),
    (0, b"Obj\x01", Foreign("an Avro file", "write it as Parquet, which topgb data pack reads")),
    (0, b"SQLite format 3\0", Foreign("an SQLite database", "write its features with numpy.save or as Parquet")),
    (0, b"Rar!", Foreign("a RAR archive", _UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", Foreign("a 7z archive", _UNPACK)),
    (257, b"ustar", Foreign("a tar archive", _UNPACK)),
    (4, b"ftyp", Foreign("an MP4 video", _MEDIA)),
    (0, b"\x1aE\xdf\xa3", Foreign("a Matroska or WebM video", _MEDIA)),
    (0, b"RIFF", Foreign("an AVI, WAV or WebP file", _MEDIA)),
    (0, b"\xff\xd8\xff", Foreign("a JPEG picture", _MEDIA)),
    (0, b"\x89PNG\r\n", Foreign("a PNG picture", _MEDIA)),
    (0, b"%PDF-", Foreign("a PDF", "name the files of records")),
    (0, b"\xff\xfe", Foreign("text in UTF-16", "name the files of records")),
    (0, b"\xfe\xff", Foreign("text in UTF-16", "name the files of records")),
)


def recognised(data: memoryview, path: str) -> Foreign | None:
    """The kind of the file `path` with these bytes, which hold no record; None if it is not known."""
    head = bytes(data[:HEAD])
    for offset, magic, foreign in _MAGIC:
        if head[offset:].startswith(magic):
            return foreign
    tests: tuple[Callable[[bytes, memoryview, str], Foreign | None], ...] = (_zlib, _safetensors, _pickle, _text, _bare)
    return next((foreign for foreign in (test(head, data, path) for test in tests) if foreign is not None), None)


def _zlib(head: bytes, _data: memoryview, _path: str) -> Foreign | None:
    if len(head) < 3 or head[0] & 0x0F != 8 or int.from_bytes(head[:2]) % 31:
        return None
    try:
        zlib.decompressobj().decompress(head, 64)
    except zlib.error:
        return None
    return Foreign("zlib", "write the records again without compression, or with GZIP, which topgb reads")


def _safetensors(head: bytes, data: memoryview, _path: str) -> Foreign | None:
    # The length of a JSON text, and the text.
    if head[8:9] != b"{" or not 2 <= int.from_bytes(head[:8], "little") <= len(data) - 8:
        return None
    return Foreign("a safetensors file, such as a model file", "name the files of records")


def _pickle(head: bytes, _data: memoryview, _path: str) -> Foreign | None:
    if head[:1] != b"\x80" or head[1:2] not in (b"\2", b"\3", b"\4", b"\5"):
        return None
    return Foreign("a pickle", "save its arrays with numpy.save, and topgb data pack them")


def _text(head: bytes, data: memoryview, path: str) -> Foreign | None:
    """Markup, JSON, a CSV, YAML, or other text."""
    # The last character may be cut in two.
    text = head.decode("utf-8-sig", "ignore" if len(data) > HEAD else "replace")
    if not text.strip() or any(not (c.isprintable() or c in "\t\n\r\f") for c in text):
        return None
    first = text.lstrip().split("\n", 1)[0].rstrip()
    # Two whole lines, if there are as many.
    lines = text.strip().split("\n", 2)[:2]
    folder = os.path.dirname(path)
    records = f"name the files of records alone, such as {os.path.join(folder, '*.tfrecord')} in quotes"
    if first.startswith("<"):
        kind = "HTML" if "html" in text[:200].lower() else "XML"
        return Foreign(kind, _SERVED)
    if os.path.basename(path) == DESCRIPTION:
        return Foreign("the description that topgb data pack writes beside records", records)
    if first.startswith(("{", "[")):
        return Foreign("JSON", records)
    if os.path.splitext(path)[1] in (".yaml", ".yml"):
        return Foreign("YAML", records)
    # In prose a blank follows a comma.
    dense = [line.replace(", ", "").replace("; ", "") for line in lines]
    if any(dense[0].count(sign) == dense[-1].count(sign) > 0 for sign in ",;\t"):
        return Foreign(f"a CSV ({first[:40]!r})", records)
    return Foreign(f"text ({first[:40]!r})", records)


def _bare(head: bytes, data: memoryview, _path: str) -> Foreign | None:
    """A single message without the framing of records around it."""
    # Both messages have a `Features` or `FeatureLists` as field 1 or 2.
    if head[:1] not in (b"\x0a", b"\x12") or len(data) > MOST_MESSAGE:
        return None
    message = SequenceExample()
    try:
        message.ParseFromString(io.BytesIO(data).getvalue())
    except DecodeError:
        return None
    if not message.context.feature and not message.feature_lists.feature_list:
        return None
    if message.feature_lists.feature_list:
        like = "a single SequenceExample without a TFRecord around it, as MediaPipe's extractor writes"
        return Foreign(like, "topgb data pack makes records of a folder of these")
    return Foreign("a single Example without a TFRecord around it", "write the messages into a TFRecord file")
