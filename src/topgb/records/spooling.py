"""Copy remote and gzip-compressed shards to temporary files, so that they can be mapped into memory."""

import gzip
import tempfile
import zlib
from typing import BinaryIO

from topgb.errors import TopgbError

_COPY_BYTES = 1 << 20


def spool(source: BinaryIO, path: str, compressed: bool) -> tuple[BinaryIO, str | None]:
    """Copy `source`, unpacked if `compressed`, to an unlinked temporary file at its beginning.

    Returns the file, and the reason why a broken gzip stream ends early or None. `path` names the source in the
    `TopgbError` that is raised if the temporary folder is full.
    """
    reader = gzip.GzipFile(fileobj=source, mode="rb") if compressed else source
    # read1 returns the bytes that were decompressed before a break; read would lose them.
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
            _write_chunk(copy, chunk, path)
        copy.flush()
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return copy, reason


def _write_chunk(copy: BinaryIO, chunk: bytes, path: str) -> None:
    try:
        copy.write(chunk)
    except OSError as error:
        raise TopgbError(
            f"cannot unpack {path} into the temporary folder {tempfile.gettempdir()}: {error.strerror}; "
            "free some room there, or set TMPDIR to a folder with more"
        ) from error
