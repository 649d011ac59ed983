"""Files that predictions go into: the challenge's CSV, and tables with a row for each pair of a video and a class."""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch

from topgb.csv_rows import csv_field
from topgb.errors import InputError, install_extra, option
from topgb.evaluation.metrics import TOP_K
from topgb.files import atomic_write, atomic_write_named
from topgb.youtube8m.submission import HEADER

PredictionFormat = Literal["challenge", "csv", "jsonl", "parquet"]
FORMATS: tuple[PredictionFormat, ...] = get_args(PredictionFormat)
COLUMNS = ("id", "class", "name", "probability")
# The fewest rows to gather in memory and write as a row group of the file.
ROW_GROUP = 1 << 17


class RowFormat(Protocol):
    """The form of a file. The bytes of several batches can be joined, so those of a shard can be kept and sent."""

    def encode(self, ids: Sequence[str], probabilities: torch.Tensor) -> bytes:
        """The rows of the videos `ids`, with probabilities float32 [B, V]."""
        ...

    def open(self, path: Path) -> AbstractContextManager[Callable[[bytes], Any]]:
        """A block that writes `path`, whole or not at all; the function in it takes what `encode` returned."""
        ...

    def to_json(self) -> dict[str, Any]:
        """JSON values that determine the rows, besides the model and the records."""
        ...


@dataclass(frozen=True)
class Challenge:
    """The challenge's CSV: a video's `top` best classes in one row; `class_names` adds a column with theirs."""

    class_names: Sequence[str] | None = None
    top: int = TOP_K

    def encode(self, ids: Sequence[str], probabilities: torch.Tensor) -> bytes:
        return "".join(csv_rows(ids, probabilities, self.class_names, self.top)).encode()

    @contextmanager
    def open(self, path: Path) -> Iterator[Callable[[bytes], Any]]:
        with atomic_write_named(path) as file:
            file.write(f"{HEADER}\n".encode() if self.class_names is None else f"{HEADER},ClassNames\n".encode())
            yield file.write

    def to_json(self) -> dict[str, Any]:
        names = self.class_names and list(self.class_names)
        return {"class_names": names, **({} if self.top == TOP_K else {"top": self.top})}


@dataclass(frozen=True)
class Pairs:
    """A table with the columns `id`, `class`, `name` and `probability`, and a row for each pair, best first in a video.

    format       of the table
    class_names  V names; None: the classes' numbers stand for them
    top          a video has this many rows at most
    thresholds   float [V]: the least probability of each class; None: classes of any probability
    """

    format: Literal["csv", "jsonl", "parquet"]
    class_names: Sequence[str] | None = None
    top: int = TOP_K
    thresholds: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.format == "parquet":
            _require_pyarrow()

    def encode(self, ids: Sequence[str], probabilities: torch.Tensor) -> bytes:
        videos, classes, scores = best_pairs(probabilities, self.top, self.thresholds)
        chosen = [ids[video] for video in videos.tolist()]
        names = [str(c) if self.class_names is None else self.class_names[c] for c in classes.tolist()]
        if self.format == "parquet":
            return _packed(chosen, classes, names, scores)
        rows = zip(chosen, classes.tolist(), names, scores.tolist(), strict=True)
        if self.format == "jsonl":
            lines = (
                json.dumps(dict(zip(COLUMNS, (*row[:3], _short(row[3])), strict=True)), ensure_ascii=False)
                for row in rows
            )
        else:
            lines = (f"{csv_field(v)},{c},{csv_field(name)},{p:.6g}" for v, c, name, p in rows)
        return "".join(f"{line}\n" for line in lines).encode()

    @contextmanager
    def open(self, path: Path) -> Iterator[Callable[[bytes], Any]]:
        if self.format == "parquet":
            with _parquet(path) as write:
                yield write
            return
        with atomic_write_named(path) as file:
            if self.format == "csv":
                file.write((",".join(COLUMNS) + "\n").encode())
            yield file.write

    def to_json(self) -> dict[str, Any]:
        thresholds = None if self.thresholds is None else self.thresholds.tolist()
        names = self.class_names and list(self.class_names)
        return {"format": self.format, "class_names": names, "top": self.top, "thresholds": thresholds}


def chosen_format(path: Path, wanted: str | None) -> PredictionFormat:
    """The format of predictions in `path`: `wanted`, else the one that its ending means, else the challenge's CSV.

    Raises `InputError` if there is no such format, or the ending is that of another.
    """
    name = path.name.lower().removesuffix(".gz")
    by_ending: PredictionFormat | None = (
        "parquet" if name.endswith((".parquet", ".pq")) else "jsonl" if name.endswith(".jsonl") else None
    )
    if wanted is None:
        return by_ending or "challenge"
    found = next((each for each in FORMATS if each == wanted), None)
    if found is None:
        raise InputError(f"{option('format', wanted)} is none of {', '.join(FORMATS)}")
    if by_ending not in (None, found):
        raise InputError(f"{path} has the ending of {by_ending}, and {option('format', wanted)} is another; drop one")
    return found


def best_pairs(
    probabilities: torch.Tensor, top: int, thresholds: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, classes and scores [P] of the `top` best classes in each row of float32 [B, V] that reach `thresholds`."""
    best, classes = (each.cpu().numpy() for each in probabilities.topk(min(top, probabilities.shape[1]), dim=1))
    given = np.ones(best.shape, bool) if thresholds is None else best >= thresholds.astype(np.float32)[classes]
    return np.nonzero(given)[0], classes[given], best[given]


def csv_rows(
    ids: Sequence[str], probabilities: torch.Tensor, class_names: Sequence[str] | None = None, top: int = TOP_K
) -> list[str]:
    """Rows of the challenge's CSV, each with its newline, for the videos `ids` with probabilities float32 [B, V]."""
    best, classes = probabilities.topk(min(top, probabilities.shape[1]), dim=1)
    rows = []
    for video, row, scores in zip(ids, classes.tolist(), best.tolist(), strict=True):
        names = "" if class_names is None else "," + csv_field("; ".join(class_names[c] for c in row))
        pairs = " ".join(f"{c} {p:.6g}" for c, p in zip(row, scores, strict=True))
        rows.append(f"{csv_field(video)},{pairs}{names}\n")
    return rows


def _short(probability: float) -> float:
    return float(f"{probability:.6g}")


def _require_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise InputError(
            f"writing Parquet needs pyarrow, which is not installed here; {install_extra('parquet')}, or write .jsonl"
        ) from None


def _packed(ids: list[str], classes: np.ndarray, names: list[str], scores: np.ndarray) -> bytes:
    """The rows as a stream of Arrow, its length in front."""
    import pyarrow as pa

    arrays = [pa.array(ids, pa.string()), pa.array(classes, pa.int32()), pa.array(names, pa.string())]
    batch = pa.record_batch([*arrays, pa.array(scores, pa.float32())], names=list(COLUMNS))
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return len(sink.getvalue()).to_bytes(8, "little") + sink.getvalue()


@contextmanager
def _parquet(path: Path) -> Iterator[Callable[[bytes], Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = (pa.string(), pa.int32(), pa.string(), pa.float32())
    schema = pa.schema(list(zip(COLUMNS, types, strict=True)))
    waiting: list[Any] = []
    with atomic_write(path) as file, pq.ParquetWriter(file, schema) as writer:

        def flush(least: int) -> None:
            if waiting and sum(batch.num_rows for batch in waiting) >= least:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting.clear()

        def write(packed: bytes) -> None:
            view = memoryview(packed)
            while len(view):
                end = 8 + int.from_bytes(view[:8], "little")
                with pa.ipc.open_stream(view[8:end]) as stream:
                    waiting.extend(stream)
                view = view[end:]
                flush(ROW_GROUP)

        yield write
        flush(1)
