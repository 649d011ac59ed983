"""Reading, evaluating and starting of this checkout beside another one's, alternating in the same minutes.

    .venv/bin/python benchmarks/unslowed.py ../earlier-checkout [--rounds 15] [--only read,eval,start]

Each checkout's `src/topgb` runs in a process of its own. Reading: frame-level records to padded batches, in one process
that opens the files anew, as benchmarks/read.py does. Evaluating: `topgb eval` as a whole process, on a model with
random weights and the real video-level records where they are there, else synthetic ones. Starting: `topgb --help`.
Both find their compiled files (`.pyc`), as installed programs do. Seconds of processor time and of the wall clock; a
ratio is the median of the rounds' own ratios, this checkout's seconds over the other's, so that a machine that gets
slower in between disturbs it least.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from commands import TRAIN
from readers import CLASSES, FRAMES, SPEC

from evaluation import SECTIONS, written
from serving import machine, start
from topgb.models import parse_model
from topgb.records.synth import SynthOptions, write_synthetic
from topgb.training.recipe import load_recipe

HERE = Path(__file__).resolve().parents[1]
VIDEOS = 256
# Wall-clock seconds and processor seconds.
Taken = tuple[float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="another checkout of topgb")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="read,eval,start", help="separated by commas")
    options = parser.parse_args()
    sources = [HERE / "src", options.other.resolve() / "src"]
    print(f"{machine()}, {options.rounds} rounds\n")
    print("| task | seconds | the other's | ratio | processor time: seconds | the other's | ratio |")
    print("|---|---|---|---|---|---|---|")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTHONPYCACHEPREFIX"] = f"{folder}/compiled"
        pattern = f"{folder}/*.tfrecord"
        shards = SynthOptions(videos_per_shard=VIDEOS // 4, frames=(FRAMES, FRAMES))
        write_synthetic(folder, SPEC, CLASSES, VIDEOS, shards)
        wanted = options.only.split(",")
        if "read" in wanted:
            readers = [reader(source, pattern) for source in sources]
            row("reading frames, a process that runs", readers, options.rounds)
        if "eval" in wanted:
            model = written(Path(folder), SPEC, CLASSES, parse_model(SECTIONS["mean of the frames, MLP"]))
            commands = [process(source, "eval", str(model), pattern, "--json") for source in sources]
            row("topgb eval, mean of the frames", commands, options.rounds)
            if Path(TRAIN["yt8m"]).parent.is_dir():
                recipe = load_recipe("yt8m-video")
                model = written(Path(folder), recipe.data.spec(), recipe.data.classes, recipe.model_section())
                commands = [process(source, "eval", str(model), TRAIN["yt8m"], "--json") for source in sources]
                row("topgb eval, video level, real records", commands, options.rounds)
            else:
                print("the real records are absent: no row", file=sys.stderr)
        if "start" in wanted:
            row("topgb --help", [process(source, "--help") for source in sources], options.rounds)


def reader(source: Path, pattern: str) -> Callable[[], Taken]:
    """A call reads all of `pattern` eight times."""
    arguments = [pattern, "topgb", "--passes", "8"]
    server = start(sys.executable, HERE / "benchmarks/readers.py", arguments, source=source)

    def read() -> Taken:
        answer = server.ask()
        return answer["seconds"], answer["cpu"]

    return read


def process(source: Path, *arguments: str) -> Callable[[], Taken]:
    """A call runs `topgb` with these arguments, from its start to its end."""

    def run() -> Taken:
        before, began = _used(), time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "topgb", *arguments],
            env={**os.environ, "PYTHONPATH": str(source)},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return time.perf_counter() - began, _used() - before

    return run


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def row(name: str, tasks: list[Callable[[], Taken]], rounds: int) -> None:
    taken: list[list[Taken]] = [[], []]
    for number in range(rounds + 1):
        # Whoever comes first in a round comes second in the next one.
        for which in (0, 1) if number % 2 else (1, 0):
            found = tasks[which]()
            # The first round fills the page cache.
            if number:
                taken[which].append(found)
    figures = []
    for kind in range(2):
        ours, theirs = ([one[kind] for one in of] for of in taken)
        ratio = statistics.median(mine / its for mine, its in zip(ours, theirs, strict=True))
        figures += [f"{statistics.median(ours):.3f}", f"{statistics.median(theirs):.3f}", f"{ratio:.3f}"]
    print(f"| {name} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
