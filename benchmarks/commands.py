"""What benchmarks that train share: the program as a user runs it, and trainings side by side that may be cut short."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = {"yt8m": "yt8m-2018-video", "audioset": "audioset-frame"}
TRAIN = {name: str(DATA / folder / "train/*.tfrecord") for name, folder in SETS.items()}
VALIDATE = {name: str(DATA / folder / "validate/*.tfrecord") for name, folder in SETS.items()}


@dataclass(frozen=True)
class Training:
    """A `topgb train` command: its run's directory, recipe, records, overrides and further options."""

    out: Path
    recipe: str
    data: str
    settings: Sequence[str] = ()
    options: Sequence[str] = ()

    @property
    def model(self) -> Path:
        """Where the trained model lies; the run is finished if it is there."""
        return self.out / "model.safetensors"


def require_records() -> None:
    if not DATA.is_dir():
        sys.exit(f"the real records are absent: {DATA} is not there")


def topgb(*command: str | Path, threads: int | None = None) -> str:
    """Run the program as a user does; its standard output."""
    limits = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-m", "topgb", *map(str, command)],
        env={**os.environ, **limits},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"topgb {' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout


def train_all(trainings: Sequence[Training], jobs: int) -> None:
    """Train what is not trained yet, `jobs` at a time; one that was interrupted goes on where it was."""

    def train(one: Training) -> None:
        if one.model.exists():
            return
        print(f"training {one.out}", file=sys.stderr, flush=True)
        settings = [part for setting in one.settings for part in ("--set", setting)]
        command = ["train", one.recipe, "--data", one.data, "--out", one.out, "--resume", *settings, *one.options]
        topgb(*command, threads=threads_of(jobs))

    in_parallel(train, trainings, jobs)


def score(model: Path, pattern: str, jobs: int = 1) -> dict[str, float]:
    """The figures of `topgb eval`; kept beside the model."""
    kept = model.with_suffix(".scores.json")
    known = json.loads(kept.read_text()) if kept.exists() else {}
    if pattern not in known:
        known[pattern] = json.loads(topgb("eval", model, pattern, "--json", threads=threads_of(jobs)))
        kept.write_text(json.dumps(known))
    return known[pattern]


def in_parallel(function: Callable[[Any], Any], items: Sequence[Any], jobs: int) -> list[Any]:
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(function, items))


def threads_of(jobs: int) -> int:
    """Threads for each of `jobs` processes side by side."""
    return max(1, (os.cpu_count() or 1) // jobs)
