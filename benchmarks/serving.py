"""Alternatives in processes of their own that work when they are asked to, so that several can take turns.

Standard library and NumPy only: it is imported by TensorFlow's Python, too.
"""

import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Ids, features uint8 [B, T, D], frames of each [B], labels bool [B, V].
Arrays = tuple[Sequence[str], np.ndarray, np.ndarray, np.ndarray]


def serve(hello: dict[str, Any], answer: Callable[[str], dict[str, Any]]) -> None:
    """Say `hello`, then answer each line of the standard input until it ends."""
    print(json.dumps(hello), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(line.strip())), flush=True)


def serve_reader(read: Callable[[], int], batches: Callable[[], Iterable[Arrays]] | None) -> None:
    """Tell what the records hold, then time `read`, which reads them all and returns the frames, whenever asked.

    `batches` gives the same as arrays, and is None where a reader makes no batches of records.
    """

    def timed(_: str) -> dict[str, float]:
        cpu, began = cpu_seconds(), time.perf_counter()
        frames = read()
        seconds = time.perf_counter() - began
        return {"frames": frames, "seconds": seconds, "cpu": cpu_seconds() - cpu}

    serve({"digest": batches and digest(batches())}, timed)


def digest(batches: Iterable[Arrays]) -> str:
    """A hash of every video's id, frames and labels, whatever their order, padding and division into batches."""
    videos = {}
    for ids, features, counts, labels in batches:
        for name, frames, count, row in zip(ids, features, counts, labels, strict=True):
            assert not frames[count:].any(), "the padding is not zero"
            videos[name] = hashlib.sha256(frames[:count].tobytes() + np.flatnonzero(row).astype("<i8").tobytes())
    return hashlib.sha256("".join(f"{k} {v.hexdigest()}\n" for k, v in sorted(videos.items())).encode()).hexdigest()


def cpu_seconds() -> float:
    """User and system time of this process, its threads and its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def memory(key: str = "VmRSS") -> int:
    """Bytes of this process in memory, or with `VmHWM` the most there ever were (Linux)."""
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{key}:")[1].split()[0])


@dataclass(frozen=True)
class Server:
    """A process that runs `serve`, and what it said first."""

    process: subprocess.Popen
    hello: dict[str, Any]

    def ask(self, question: str = "") -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        return _answer(self.process)

    def stop(self) -> None:
        self.process.communicate()


def start(
    python: str | Path,
    script: Path,
    arguments: Sequence[str],
    core: int | None = None,
    threads: int = 1,
    source: Path | None = None,
) -> Server:
    """Start `script`, pinned to `core` if there is one, and wait until it is ready; `threads` are OpenMP's.

    `source` is a folder whose packages come before the installed ones.
    """

    def pin() -> None:
        if core is not None:
            os.sched_setaffinity(0, {core})

    settings = {"OMP_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
    if source is not None:
        settings["PYTHONPATH"] = str(source)
    process = subprocess.Popen(
        [python, str(script), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, **settings}, preexec_fn=pin,
    )  # fmt: skip
    return Server(process, _answer(process))


def own_environment(name: str, requirements: str) -> Path:
    """The Python of the environment `name` beside topgb's, made of a file of `requirements` if it is not there."""
    here = Path(__file__).parent
    folder = here.parent / name
    python = folder / "bin/python"
    if not (folder / ".ready").exists():
        print(f"making {name}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "-r", here / requirements], check=True)
        (folder / ".ready").touch()
    return python


def machine() -> str:
    """The processor's model and how many of its cores this process may use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return f"{names[0] if names else 'unknown processor'}, {len(os.sched_getaffinity(0))} cores"


def _answer(process: subprocess.Popen) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        sys.exit(f"{process.args}\n{process.communicate()[1]}")
    return json.loads(line)
