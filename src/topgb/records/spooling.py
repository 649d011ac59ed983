"""Remote and gzip-compressed shards copied to temporary files, so that they can be mapped into memory."""

import gzip
import tempfile
import zlib
from typing import BinaryIO

from topgb.errors import TopgbError

_COPY_BYTES = 1 << 20


def spool(source: BinaryIO, path: str, compressed: bool) -> tuple[BinaryIO, str | None]:
    """Copy `source` to an unlinked file. Returns it, and for a broken gzip stream the reason why it ends early.

    `path` names the source in a `TopgbError`, raised where the temporary folder is full.
    """
    reader = gzip.GzipFile(fileobj=source, mode="rb") if compressed else source
    # read1 hands over what was decompressed before a break; read would lose it.
    read = reader.read1 if compressed else reader.read  # type: ignore[union-attr]
    copy = tempfile.TemporaryFile(prefix="topgb-")  # noqa: SIM115 - the caller closes it
    reason = None
    try:
        while True:
            try:
                chunk = read(_COPY_BYTES)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                if not compressed:
                    raise
                reason = f"the gzip stream is broken ({error})"
                break
            if not chunk:
                break
            _write(copy, chunk, path)
        copy.flush()
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return copy, reason


def _write(copy: BinaryIO, chunk: bytes, path: str) -> None:
    try:
        copy.write(chunk)
    except OSError as error:
        raise TopgbError(
            f"cannot unpack {path} into the temporary folder {tempfile.gettempdir()}: {error.strerror}; "
            "free some room there, or set TMPDIR to a folder with more"
        ) from error
