"""Whether what a command left behind is whole: every file under a final name opens, and reads to its end."""

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors import safe_open

from topgb.errors import InputError
from topgb.files import UNFINISHED
from topgb.records.description import FILE, read_description
from topgb.records.framing import index_records
from topgb.records.shards import find_shards
from topgb.vocabulary import read_vocabulary


def check_whole(out: Path, sums: dict[str, str] | None = None) -> None:
    """Assert that every file below `out` is whole, but hidden ones that end in .partial and what grows line by line.

    Files of a set that has yet to be put in place are left to `check_sets`. `sums` are the MD5 sums of files whose
    bytes mean nothing else.
    """
    for path in sorted(out.rglob("*")):
        parts = path.relative_to(out).parts
        if path.is_dir() or any(_is_partial(part) or part == UNFINISHED for part in parts):
            continue
        if "tensorboard" in parts:
            continue
        if sums is not None:
            assert hashlib.md5(path.read_bytes()).hexdigest() == sums[path.name], path
        elif path.name == "metrics.jsonl":
            _check_lines(path)
        else:
            _READERS[path.suffix](path)
    for checkpoint in out.glob("*/checkpoints/[!.]*"):
        assert {path.name for path in checkpoint.iterdir()} == {
            *(f"{part}.safetensors" for part in ("weights", "optimizer", "ema")),
            "progress.json",
        }


def check_sets(out: Path, sets: Sequence[dict[str, bytes]]) -> None:
    """Assert that the files below `out`, hidden ones aside, are none or all of one of `sets`, if there are sets.

    If they are a part or a mixture, readers of records must refuse its shards.
    """
    if not sets:
        return
    names = [path.relative_to(out) for path in out.rglob("*") if path.is_file()]
    shown = {str(name): (out / name).read_bytes() for name in names if not any(p.startswith(".") for p in name.parts)}
    if shown in [{}, *sets]:
        return
    for shard in [out / name for name in shown if name.endswith(".tfrecord")]:
        with pytest.raises(InputError, match="only some are in place"):
            find_shards(str(shard))


def _is_partial(name: str) -> bool:
    return name.startswith(".") and name.endswith(".partial")


def leftovers(out: Path) -> list[Path]:
    """Everything below `out` that is not under a final name."""
    return [path for path in out.rglob("*") if path.name.startswith(".") or path.name.endswith(".partial")]


def _check_lines(path: Path) -> None:
    # Appended to line by line: only the last may be cut.
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            json.loads(line)


def _read_page(path: Path) -> None:
    assert path.read_text().endswith("\n")


def _read_tensors(path: Path) -> None:
    with safe_open(path, framework="np") as file:
        assert list(file.keys())


def _read_csv(path: Path) -> None:
    rows = list(csv.reader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))
    assert all(len(row) == 2 for row in rows)


def _read_records(path: Path) -> None:
    index = index_records(memoryview(path.read_bytes()))
    assert len(index)
    assert index.damage is None


def _read_arrays(path: Path) -> None:
    with np.load(path) as archive:
        assert all(len(archive[name]) for name in archive.files)


def _read_yaml(path: Path) -> None:
    if path.name == FILE:
        read_description(path)
    else:
        assert yaml.safe_load(path.read_text())["model"]


_READERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": _read_tensors,
    ".json": lambda path: json.loads(path.read_text()),
    ".yaml": _read_yaml,
    ".csv": read_vocabulary,
    ".gz": _read_csv,
    # What `shrink` notes without words.
    "": lambda path: path.stat(),
    ".tfrecord": _read_records,
    ".md": _read_page,
    ".npz": _read_arrays,
    ".parquet": lambda path: import_module("pyarrow.parquet").read_table(path),
}
