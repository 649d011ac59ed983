"""Whether what a command left behind is whole: every file under a final name opens, and reads to its end."""

import csv
import gzip
import hashlib
import io
import json
from pathlib import Path

import yaml
from safetensors import safe_open

from topgb.records.framing import index_records


def check_whole(out: Path, sums: dict[str, str] | None = None) -> None:
    """Assert that every file below `out` is whole, but hidden ones that end in .partial and what grows line by line.

    `sums` are the MD5 sums of files whose bytes mean nothing else.
    """
    for path in sorted(out.rglob("*")):
        parts = path.relative_to(out).parts
        if path.is_dir() or any(part.startswith(".") and part.endswith(".partial") for part in parts):
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


def leftovers(out: Path) -> list[Path]:
    """Everything below `out` that is not under a final name."""
    return [path for path in out.rglob("*") if path.name.startswith(".") or path.name.endswith(".partial")]


def _check_lines(path: Path) -> None:
    # Appended to line by line: only the last may be cut.
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            json.loads(line)


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


_READERS = {
    ".safetensors": _read_tensors,
    ".json": lambda path: json.loads(path.read_text()),
    ".yaml": lambda path: yaml.safe_load(path.read_text())["model"],
    ".gz": _read_csv,
    ".tfrecord": _read_records,
}
