"""The training path from file to weights: reading alone, the model alone, and both together, and memory over time.

    .venv/bin/python benchmarks/train.py [--only netvlad,average] [--workers 0,1] [--device auto]

Everything is the program's own training loop on synthetic frame-level records of full length (300 frames of 1024 + 128
bytes, 3,862 classes) from the page cache. *Reading* asks its loader for batches and drops them. *Model* trains on a few
batches that lie in memory. *Together* trains from the files. Each is timed after a warm-up, in rounds taken in turn,
and the median is printed, with the share of the slower of the two alone that together reaches. Memory is that of the
process and its loader's workers at the start of timing, in the middle and at the end, without the page cache that
mapped files share.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
import yaml
from families import FAMILIES

from topgb.devices import choose_device, flush_subnormals, keep_freed_memory
from topgb.features import YOUTUBE8M_CLASSES, YOUTUBE8M_FRAMES, YOUTUBE8M_MAX_FRAMES
from topgb.matmul_library import choose, keep_few_products, use
from topgb.progress import Progress
from topgb.records.dataset import open_dataset
from topgb.records.sampling import FrameSampling
from topgb.records.synth import SynthOptions, write_synthetic
from topgb.records.training_batches import TrainingBatches, load_batches
from topgb.training import loop
from topgb.training.recipe import Recipe, load_recipe

VIDEOS = 2048
BATCH = 32
ROUNDS = 3
RESIDENT_BATCHES = 4
DEFAULT = "average,netvlad,gated_dbof,nextvlad,bilstm"
MB = 1e6


class EnoughError(Exception):
    """The time of a measurement is over."""


@dataclass
class Clock(Progress):
    """Counts the videos of the training stage between the warm-up and the end, and looks at memory."""

    seconds: float
    warm_up: float
    videos: int = 0
    memory: list[float] = field(default_factory=list)
    began: float = 0.0
    first: float = 0.0

    def advance(self, count: int, note: str = "") -> None:
        now = time.monotonic()
        self.began = self.began or now
        if now - self.began < self.warm_up:
            return
        if not self.first:
            self.first = now
            self.memory.append(memory())
            return
        self.videos += count
        elapsed = now - self.first
        if elapsed > self.seconds * len(self.memory) / 2:
            self.memory.append(memory())
        if elapsed > self.seconds:
            self.speed = self.videos / elapsed
            raise EnoughError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=DEFAULT, help=f"families, separated by commas (default {DEFAULT})")
    parser.add_argument("--workers", default="0,1", help="numbers of loader workers, separated by commas (default 0,1)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=15.0, help="time for each figure (default 15)")
    chosen = parser.parse_args()
    keep_freed_memory()
    flush_subnormals()
    device = choose_device(chosen.device)
    if device.type == "cpu":
        # As the command does.
        keep_few_products()
        use(choose().path)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    print(f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, batch {BATCH}\n")
    print("| model | workers | reading | model | together | of the slower | memory, MB |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        write_synthetic(
            Path(folder),
            YOUTUBE8M_FRAMES,
            YOUTUBE8M_CLASSES,
            VIDEOS,
            SynthOptions(videos_per_shard=256, frames=(300, 300)),
        )
        for family in chosen.only.split(","):
            for workers in map(int, chosen.workers.split(",")):
                print(row(Path(folder), family, workers, str(device), chosen.seconds / ROUNDS), flush=True)


def row(folder: Path, family: str, workers: int, device: str, seconds: float) -> str:
    recipe, pattern = recipe_of(family, folder), str(folder / "*.tfrecord")
    batches = resident(pattern)
    alone: list[Callable[[], Clock]] = [
        lambda: time_reading(pattern, workers, device, seconds),
        lambda: time_training(recipe, pattern, 0, device, seconds, batches),
        lambda: time_training(recipe, pattern, workers, device, seconds, None),
    ]
    rounds = [[measure() for measure in alone] for _ in range(ROUNDS)]
    reading, model, together = (statistics.median(clock.speed for clock in kind) for kind in zip(*rounds, strict=True))
    held = rounds[-1][-1].memory
    figures = " | ".join(f"{speed:,.0f}" for speed in (reading, model, together))
    return (
        f"| {family} | {workers} | {figures} | {together / min(reading, model):.0%} | "
        f"{' → '.join(f'{amount:,.0f}' for amount in held)} |"
    )


def recipe_of(family: str, folder: Path) -> Recipe:
    path = folder / "recipe.yaml"
    data = {
        "level": "frame",
        "features": [{"name": feature.name, "size": feature.size} for feature in YOUTUBE8M_FRAMES.features],
        "classes": YOUTUBE8M_CLASSES,
    }
    model = {**FAMILIES[family], "max_frames": YOUTUBE8M_MAX_FRAMES}
    training = {"batch_size": BATCH, "epochs": 1000, "frames": "all"}
    sections = {"data": data, "model": model, "training": training, "optimizer": {"learning_rate": 1e-3}}
    path.write_text(yaml.safe_dump(sections))
    return load_recipe(str(path))


def training_batches(pattern: str) -> TrainingBatches:
    dataset = open_dataset(pattern, YOUTUBE8M_FRAMES, YOUTUBE8M_CLASSES, YOUTUBE8M_MAX_FRAMES)
    return TrainingBatches(dataset, BATCH, 0, FrameSampling())


def resident(pattern: str) -> list:
    return list(islice(load_batches(training_batches(pattern), range(RESIDENT_BATCHES)), RESIDENT_BATCHES))


def time_reading(pattern: str, workers: int, device: str, seconds: float) -> Clock:
    batches, clock = training_batches(pattern), Clock(seconds, seconds / 4)
    try:
        for batch, _ in load_batches(batches, range(10**6), workers, device.startswith("cuda")):
            clock.advance(len(batch))
    except EnoughError:
        pass
    return clock


def time_training(
    recipe: Recipe, pattern: str, workers: int, device: str, seconds: float, batches: list | None
) -> Clock:
    def in_memory(_: TrainingBatches, steps: range, *__: object) -> Iterator:
        return (batches[step % len(batches)] for step in steps) if batches else iter(())

    clock, from_files = Clock(seconds, seconds / 4), loop.load_batches
    with tempfile.TemporaryDirectory() as out:
        job = loop.TrainingJob(recipe, pattern, Path(out) / "run", workers=workers, device=device)
        if batches is not None:
            loop.load_batches = in_memory
        try:
            loop.train(job, clock)
        except EnoughError:
            pass
        finally:
            loop.load_batches = from_files
    return clock


def memory() -> float:
    """MB that this process and its children hold."""
    own = Path("/proc/self")
    children = (own / "task" / str(int((own / "stat").read_text().split()[0])) / "children").read_text().split()
    return sum(_resident(process) for process in ("self", *children))


def _resident(process: str) -> float:
    rows = [line.split() for line in Path(f"/proc/{process}/status").read_text().splitlines()]
    return sum(int(row[1]) * 1024 / MB for row in rows if row[0] in ("RssAnon:", "RssShmem:"))


if __name__ == "__main__":
    main()
