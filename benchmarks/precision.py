"""Scores of a shipped recipe trained on the real records in float32 and in bfloat16, beside what a seed changes.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/precision.py [RECIPE …] [--seeds N] [--out runs/precision]

Each run is scored on `validate` by the arithmetic that it was trained in. A run that was interrupted goes on where it
was; a finished one is only scored again. The last line of a recipe compares the means with twice the standard error
of the seeds in float32, which needs two seeds.
"""

import argparse
import json
import math
import statistics
import sys
from pathlib import Path

from real_records import DATA, RECORDS, topgb

PRECISIONS = ("float32", "bfloat16")
SCORES = ("gap", "map")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("recipes", nargs="*", default=["yt8m-video", "audioset-netvlad"])
    arguments.add_argument("--seeds", type=int, default=3, help="runs of each recipe and arithmetic, seeds 0, 1, …")
    arguments.add_argument("--out", type=Path, default=Path("runs/precision"))
    chosen = arguments.parse_args()
    if not DATA.is_dir():
        sys.exit(f"the real records are absent: {DATA} is not there")
    for recipe in chosen.recipes:
        print(f"| {recipe}, seed | GAP@20, float32 | bfloat16 | MAP, float32 | bfloat16 |\n|---|---|---|---|---|")
        rows = []
        for seed in range(chosen.seeds):
            runs = [scored(recipe, seed, precision, chosen.out) for precision in PRECISIONS]
            rows.append([run[name] for name in SCORES for run in runs])
            print(f"| {seed} | " + " | ".join(f"{value:.5f}" for value in rows[-1]) + " |", flush=True)
        print("\n" + (compared(rows) if len(rows) > 1 else "one seed says nothing of what a seed changes") + "\n")


def scored(recipe: str, seed: int, precision: str, out: Path) -> dict[str, float]:
    """Train if that is not done yet, and score."""
    records, run = DATA / RECORDS[recipe], out / f"{recipe}-{precision}-{seed}"
    if not (run / "model.safetensors").exists():
        topgb(
            *["train", recipe, "--data", str(records / "train/*.tfrecord"), "--out", str(run), "--resume"],
            *["--set", f"training.seed={seed}", "--set", f"training.precision={precision}"],
        )
    model, validate = str(run / "model.safetensors"), str(records / "validate/*.tfrecord")
    return json.loads(topgb("eval", model, validate, "--precision", precision, "--json"))


def compared(rows: list[list[float]]) -> str:
    """What the means differ by, beside twice the standard error of float32's."""
    texts = []
    for score, (ours, theirs) in zip(SCORES, ((0, 1), (2, 3)), strict=True):
        full, half = ([row[column] for row in rows] for column in (ours, theirs))
        difference = statistics.mean(half) - statistics.mean(full)
        error = statistics.stdev(full) / math.sqrt(len(full))
        texts.append(f"{score.upper()}: bfloat16 − float32 {difference:+.5f}, two standard errors {2 * error:.5f}")
    return "; ".join(texts)


if __name__ == "__main__":
    main()
