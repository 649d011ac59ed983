"""Recognise files that are not TFRecords, and say what to do with them."""

import io
import os
from collections.abc import Callable

from google.protobuf.message import DecodeError

from topgb.file_kinds import HEAD, FileKind, known_kind
from topgb.records.folders import DESCRIPTION
from topgb.records.protos import SequenceExample

# A bare message is parsed whole up to so many bytes.
MOST_MESSAGE = 64 << 20


def recognised(data: memoryview, path: str) -> FileKind | None:
    """The kind of the file `path` with these bytes, which hold no record; None if it is not known."""
    head = bytes(data[:HEAD])
    tests: tuple[Callable[[bytes, memoryview, str], FileKind | None], ...] = (_safetensors, _text, _bare)
    found = (kind for kind in (test(head, data, path) for test in tests) if kind is not None)
    return known_kind(head) or next(found, None)


def _safetensors(head: bytes, data: memoryview, _path: str) -> FileKind | None:
    # The length of a JSON text, and the text.
    if head[8:9] != b"{" or not 2 <= int.from_bytes(head[:8], "little") <= len(data) - 8:
        return None
    return FileKind("a safetensors file, such as a model file", "name the files of records")


def _text(head: bytes, data: memoryview, path: str) -> FileKind | None:
    """JSON, a CSV, YAML, or other text."""
    # The last character may be cut in two.
    text = head.decode("utf-8-sig", "ignore" if len(data) > HEAD else "replace")
    if not text.strip() or any(not (c.isprintable() or c in "\t\n\r\f") for c in text):
        return None
    first = text.lstrip().split("\n", 1)[0].rstrip()
    # Two whole lines, if there are as many.
    lines = text.strip().split("\n", 2)[:2]
    folder = os.path.dirname(path)
    records = f"name the files of records alone, such as {os.path.join(folder, '*.tfrecord')} in quotes"
    if os.path.basename(path) == DESCRIPTION:
        return FileKind("the description that topgb data pack writes beside records", records)
    if first.startswith(("{", "[")):
        return FileKind("JSON", records)
    if os.path.splitext(path)[1] in (".yaml", ".yml"):
        return FileKind("YAML", records)
    # In prose a blank follows a comma.
    dense = [line.replace(", ", "").replace("; ", "") for line in lines]
    if any(dense[0].count(sign) == dense[-1].count(sign) > 0 for sign in ",;\t"):
        return FileKind(f"a CSV ({first[:40]!r})", records)
    return FileKind(f"text ({first[:40]!r})", records)


def _bare(head: bytes, data: memoryview, _path: str) -> FileKind | None:
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
        return FileKind(like, "topgb data pack makes records of a folder of these")
    return FileKind("a single Example without a TFRecord around it", "write the messages into a TFRecord file")
