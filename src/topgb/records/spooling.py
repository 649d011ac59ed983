"""Copy remote and gzip-compressed shards to temporary files, so that they can be mapped into memory."""

import gzip
import tempfile
import zlib
from typing import BinaryIO

from topgb.errors import TopgbError
from topgb.unpacked_size import check_unpacked

_COPY_BYTES = 1 << 20


def spool(
    source: BinaryIO, path: str, compressed: bool, packed: int = 0, chosen: int | None = None
) -> tuple[BinaryIO, str | None]:
    """Copy `source`, unpacked if `compressed`, to an unlinked temporary file at its beginning.

    Returns the file, and the reason why a broken gzip stream ends early or None. `path` names the source in the
    `TopgbError` that is raised if the temporary folder is full. Raises `InputError` if a compressed source of `packed`
    bytes unpacks to more than `unpacked_size.most_unpacked` allows for the number `chosen`.
    """
    reader = gzip.GzipFile(fileobj=source, mode="rb") if compressed else source
    # read1 returns the bytes that were decompressed before a break; read would lose them.
    read = reader.read1 if compressed else reader.read  # type: ignore[union-attr]
    copy = tempfile.TemporaryFile(prefix="topgb-")  # noqa: SIM115 - the caller closes it
    reason, size = None, 0
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
            size += len(chunk)
            if compressed:
                check_unpacked(path, size, packed, chosen)
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
