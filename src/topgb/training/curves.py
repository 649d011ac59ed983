"""Write a run's curves as lines of JSON and for TensorBoard."""

import json
import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from topgb.errors import TopgbError, option
from topgb.evaluation.metrics import Metrics, Scores
from topgb.files import atomic_write, write_failure
from topgb.json_reading import parse_json

METRICS_FILE = "metrics.jsonl"
# Seconds between logged steps: reading figures from the device makes it wait.
LOG_SECONDS = 1.0
RUNNING_BATCHES = 5


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The run's log, one object per logged step or validation, oldest first; a truncated line is left out."""
    path = folder / METRICS_FILE
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            entries.append(parse_json(line))
        except ValueError:
            continue
    return entries


def _step_of(entry: Any) -> float:
    """The step of a line of the log; beyond every step if somebody else wrote the line."""
    step = entry.get("step") if isinstance(entry, dict) else None
    return step if type(step) is int else math.inf


class Curves:
    """Writes the curves of the run in `folder`, continuing after `step`.

    Every method that writes raises `TopgbError` where it cannot.
    """

    def __init__(self, folder: Path, step: int):
        self._path = folder / METRICS_FILE
        kept = [entry for entry in read_metrics(folder) if _step_of(entry) <= step]
        with atomic_write(self._path) as file:
            file.writelines(json.dumps(entry).encode() + b"\n" for entry in kept)
        with self._writing():
            self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        self._last = -math.inf
        self._recent: deque[list[Metrics]] = deque(maxlen=RUNNING_BATCHES)

    def due(self, last: bool) -> bool:
        """Whether to log this step: at most once per `LOG_SECONDS`, and always for the run's `last` step."""
        if not last and time.monotonic() - self._last < LOG_SECONDS:
            return False
        self._last = time.monotonic()
        return True

    def write_step(self, step: int, examples: int, rate: float, parts: list[tuple[float, Metrics | None]]) -> str:
        """Log a training step, and return its loss and the running GAP of the last logged batches, in words.

        `parts` holds each rank's share of the loss and the metrics of its batch. A batch without labels has metrics
        None, and then there is no GAP. Raises `TopgbError` where the loss is not finite.
        """
        value = sum(loss for loss, _ in parts)
        if not math.isfinite(value):
            raise diverged(step, self._path.parent)
        entry = {"step": step, "examples": examples, "loss": value, "learning_rate": rate}
        batch = [metrics for _, metrics in parts if metrics is not None]
        if not batch:
            self._write(entry)
            self._draw(step, "training", {"loss": value, "learning rate": rate})
            return f"loss {value:.3f}"
        self._recent.append(batch)
        running = Metrics(len(batch[0].positives))
        for part in chain.from_iterable(self._recent):
            running.merge(part)
        gap = running.compute().gap
        self._write(entry | {"gap": gap})
        self._draw(step, "training", {"loss": value, "GAP": gap, "learning rate": rate})
        return f"loss {value:.3f}  GAP {gap:.3f}"

    def write_validation(self, step: int, scores: Scores) -> None:
        """Log the scores on the validation records."""
        self._write({"step": step, "validation": scores.to_json()})
        self._draw(step, "validation", scores.to_json())

    def close(self) -> None:
        """Write what is pending and close both files."""
        with self._writing():
            self._file.close()
            self._board.close()

    def _write(self, entry: dict[str, Any]) -> None:
        with self._writing():
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()

    def _draw(self, step: int, group: str, figures: dict[str, float]) -> None:
        with self._writing():
            for name, figure in figures.items():
                self._board.add_scalar(f"{group}/{name}", figure, step)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise write_failure(self._path.parent, error) from error


def diverged(step: int, run: Path) -> TopgbError:
    """The error for the run in folder `run`, whose loss or weights are no longer finite."""
    kept = max(run.glob("checkpoints/step-*"), default=None)
    clip = option("set", {"optimizer.clip_norm": 1.0})
    before = "" if kept is None else f"; what was learned before is kept in {kept}"
    return TopgbError(
        f"training diverged: loss or weights are not finite after step {step}; start anew with a lower learning rate "
        f"({option('set', {'optimizer.learning_rate': '…'})}) or clipped gradients ({clip}){before}"
    )
