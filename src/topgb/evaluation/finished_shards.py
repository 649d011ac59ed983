"""The finished shards of a prediction on a cluster, kept until there are all: a stopped command goes on with them."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topgb.errors import DamagedRecordError, InputError
from topgb.files import atomic_write, write_failure

_DESCRIPTION = "parts.json"
_VERSION = 1


@dataclass(frozen=True)
class Part:
    """The rows of a shard as bytes of the CSV, how many videos they are, and what could not be read."""

    rows: bytes
    videos: int
    damaged: list[DamagedRecordError]


class Parts:
    """The folder `.NAME.parts` beside the file `NAME` that the parts are for: a file for each finished shard.

    Opened with a `description` (JSON values: what the rows depend on), parts of another one are removed; None is like
    no other. Raises `InputError` where something else has that name, and `TopgbError` where it cannot be written.
    """

    def __init__(self, path: Path, description: dict[str, Any] | None):
        self.folder = path.resolve().with_name(f".{path.name}.parts")
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

    def write(self, shard: int, part: Part) -> None:
        """Keep the part of shard number `shard`."""
        damaged = [[error.path, error.record, error.offset, error.reason] for error in part.damaged]
        with atomic_write(self._path(shard)) as file:
            file.write(json.dumps({"videos": part.videos, "damaged": damaged}).encode() + b"\n")
            file.write(part.rows)

    def read(self, shard: int) -> Part:
        """The part of shard number `shard`, which must be there."""
        head, _, rows = self._path(shard).read_bytes().partition(b"\n")
        value = json.loads(head)
        return Part(rows, value["videos"], [DamagedRecordError(*error) for error in value["damaged"]])

    def remove(self) -> None:
        """Remove the folder with every part."""
        try:
            # Described first: without it no other file counts.
            for path in [self.folder / _DESCRIPTION, *self._files()]:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise write_failure(self.folder, error) from error
        with suppress(OSError):
            self.folder.rmdir()

    def _described(self) -> Any:
        with suppress(OSError, ValueError):
            return json.loads((self.folder / _DESCRIPTION).read_bytes())
        return None

    def _files(self) -> Iterator[Path]:
        # What a killed command was writing too.
        return (path for pattern in ("*.part", ".*.partial") for path in self.folder.glob(pattern))

    def _path(self, shard: int) -> Path:
        return self.folder / f"{shard:06d}.part"
