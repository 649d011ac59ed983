"""A prediction's finished shards, kept on disk until all are there, so that a stopped command goes on with them."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topgb.errors import DamagedRecordError, InputError
from topgb.files import atomic_write, write_failure
from topgb.json_reading import parse_json, read_json

_DESCRIPTION = "parts.json"
_VERSION = 1


@dataclass(frozen=True)
class ShardRows:
    """A shard's rows as a `RowFormat` encodes them, the number of its videos, and its damaged records."""

    rows: bytes
    videos: int
    damaged: list[DamagedRecordError]


def parts_folder(path: Path) -> Path:
    """The folder for the finished shards of the file `path`."""
    return path.resolve().with_name(f".{path.name}.parts")


class FinishedShards:
    """The folder `.NAME.parts` beside the file `NAME` to be written, with a file for each finished shard.

    Opening it removes shards that were finished under another `description` (JSON values that determine the rows); None
    equals no description, so all are removed. Raises `InputError` if something else has that name, and `TopgbError` if
    the folder cannot be written.
    """

    def __init__(self, path: Path, description: dict[str, Any] | None):
        self.folder = parts_folder(path)
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file, and a folder for finished shards is needed there; move it away")
        value = {"version": _VERSION, "of": description}
        if description is None or self._described() != json.loads(json.dumps(value)):
            self.remove()
            with atomic_write(self.folder / _DESCRIPTION) as file:
                file.write(json.dumps(value).encode())

    def has(self, shard: int) -> bool:
        """Whether shard number `shard` is finished."""
        return self._path(shard).is_file()

    def write(self, shard: int, rows: ShardRows) -> None:
        """Keep the rows of shard number `shard`."""
        damaged = [[error.path, error.record, error.offset, error.reason] for error in rows.damaged]
        with atomic_write(self._path(shard)) as file:
            file.write(json.dumps({"videos": rows.videos, "damaged": damaged}).encode() + b"\n")
            file.write(rows.rows)

    def read(self, shard: int) -> ShardRows:
        """The rows of shard number `shard`, which must be finished."""
        head, _, rows = self._path(shard).read_bytes().partition(b"\n")
        value = parse_json(head)
        return ShardRows(rows, value["videos"], [DamagedRecordError(*error) for error in value["damaged"]])

    def remove(self) -> None:
        """Remove the folder with every finished shard."""
        try:
            # The description goes first: without it no other file counts.
            for path in [self.folder / _DESCRIPTION, *self._files()]:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise write_failure(self.folder, error) from error
        with suppress(OSError):
            self.folder.rmdir()

    def _described(self) -> Any:
        with suppress(OSError, ValueError):
            return read_json(self.folder / _DESCRIPTION)
        return None

    def _files(self) -> Iterator[Path]:
        # Including files that a killed command left half-written.
        return (path for pattern in ("*.part", ".*.partial") for path in self.folder.glob(pattern))

    def _path(self, shard: int) -> Path:
        return self.folder / f"{shard:06d}.part"
