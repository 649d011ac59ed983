"""Files that are gzipped where their name says so, written whole or not at all."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from topgb.files import atomic_write


@contextmanager
def atomic_write_named(path: Path) -> Iterator[BinaryIO]:
    """Like `atomic_write`; what is written is gzipped where `path` ends in .gz. The same writes give the same bytes."""
    with atomic_write(path) as file:
        if path.suffix != ".gz":
            yield file
            return
        # No name and no time in the gzip header.
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            yield cast(BinaryIO, packed)
