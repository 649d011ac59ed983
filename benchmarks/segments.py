"""MAP@K on synthetic rated segments: labels of videos, rated segments, and the two-step way, over several seeds.

    nice python benchmarks/segments.py

The table's rows: a model trained on whole videos; one trained on every segment with its video's labels; one trained on
rated segments alone; and the first and the second of these, fine-tuned on rated segments.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import topgb

CLASSES, WIDTH = 40, 96
VIDEOS, RATED, SCORED = 1000, 120, 400


def recipe(seed: int, epochs: int, rate: float, segments: dict[str, Any] | None = None) -> dict[str, Any]:
    """A mixture of experts on the mean of the frames."""
    value = {
        "data": {"level": "frame", "features": [{"name": "rgb", "size": WIDTH}], "classes": CLASSES},
        "model": {"aggregator": "average", "head": {"name": "moe", "mixtures": 2}},
        "training": {"batch_size": 64, "epochs": epochs, "seed": seed},
        "optimizer": {"learning_rate": rate, "schedule": "cosine"},
    }
    return value if segments is None else value | {"segments": segments}


def scores(folder: Path, seed: int) -> dict[str, float]:
    """MAP@K of each way under one seed."""
    made = {"classes": CLASSES, "features": {"rgb": WIDTH}, "frames": (40, 60), "noise": 2.0, "progress": False}
    data = {name: folder / name for name in ("videos", "rated", "scored")}
    for place, (name, count) in enumerate({"videos": VIDEOS, "rated": RATED, "scored": SCORED}.items()):
        topgb.synth(data[name], videos=count, segments=True, seed=10 * seed + place, **made)

    def train(name: str, of: str, value: dict[str, Any], start: str | None = None) -> None:
        parent = None if start is None else folder / start / "model.safetensors"
        topgb.train(value, data[of], folder / name, init_from=parent, progress=False)

    train("whole videos", "videos", recipe(seed, 15, 0.01))
    train("labels of videos spread", "videos", recipe(seed, 3, 0.01, {"rows": "every"}))
    tuning = {"mined_negatives": 4}
    # A model that starts from nothing goes on getting better for ten times as long.
    train("segments alone", "rated", recipe(seed, 300, 0.03, tuning))
    train("two steps, from whole videos", "rated", recipe(seed, 30, 0.005, tuning), "whole videos")
    train("two steps, from labels spread", "rated", recipe(seed, 30, 0.005, tuning), "labels of videos spread")
    runs = [run for run in folder.iterdir() if (run / "model.safetensors").exists()]
    return {
        run.name: topgb.evaluate(run, data["scored"], segments=True, progress=False).scores.map_at_k
        for run in sorted(runs, key=lambda run: (run / "recipe.yaml").stat().st_mtime)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    seeds, began = parser.parse_args().seeds, time.perf_counter()
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            for name, score in scores(Path(folder), seed).items():
                found.setdefault(name, []).append(score)
    print(f"| MAP@100,000 | {' | '.join(f'seed {seed}' for seed in range(seeds))} | mean ± deviation |")
    print("|---|" + "--:|" * (seeds + 1))
    for name, each in found.items():
        spread = f" ± {stdev(each):.3f}" if seeds > 1 else ""
        print(f"| {name} | {' | '.join(f'{score:.3f}' for score in each)} | {mean(each):.3f}{spread} |")
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
