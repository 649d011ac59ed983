"""Compare ways to choose thresholds on the real records: the table in docs/thresholds.md.

    .venv/bin/python benchmarks/thresholds.py [--seeds 3] [--out runs/real-records]

Trains each recipe with each seed (runs that `real_records.py` left are used), divides the videos of `validate` into
halves, finds thresholds on one half and scores them on the other, and the other way round.
"""

import argparse
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from real_records import DATA, RECORDS, topgb

from topgb.evaluation.metrics import Metrics
from topgb.evaluation.opening import open_for
from topgb.evaluation.predictions import predictions
from topgb.evaluation.thresholds import F1, Curves, Goal, find_thresholds
from topgb.modelfile import load

RECIPES = ("yt8m-video", "audioset-average")
BATCH = 512
CPU = torch.device("cpu")
FIGURES = ("f1", "f1_micro", "f1_macro")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--out", type=Path, default=Path("runs/real-records"))
    chosen = arguments.parse_args()
    print("| records | thresholds | mean of both | F1, all pairs | F1, mean of classes |\n|---|---|---|---|---|")
    for recipe in RECIPES:
        found: dict[str, list[dict[str, float]]] = defaultdict(list)
        for seed in range(chosen.seeds):
            probabilities, labels = predicted(recipe, seed, chosen.out / f"{recipe}-{seed}")
            order = np.random.default_rng(seed).permutation(len(labels))
            halves = order[::2], order[1::2]
            for fitting, scoring in (halves, halves[::-1]):
                for way, values in ways(probabilities[fitting], labels[fitting]).items():
                    found[way].append(scored(probabilities[scoring], labels[scoring], values))
        for way, scores in found.items():
            means = [np.mean([each[name] for each in scores]) for name in FIGURES]
            print(f"| {RECORDS[recipe]} | {way} | " + " | ".join(f"{mean:.4f}" for mean in means) + " |", flush=True)


def predicted(recipe: str, seed: int, run: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities and labels [N, V] of `validate`, by the recipe trained with this seed."""
    records = DATA / RECORDS[recipe]
    if not (run / "model.safetensors").exists():
        topgb(
            *["train", recipe, "--data", str(records / "train/*.tfrecord"), "--out", str(run)],
            *["--set", f"training.seed={seed}", "--resume"],
        )
    model = load(run / "model.safetensors")
    batches = predictions(model, open_for(model, str(records / "validate/*.tfrecord")), CPU)
    # Later batches reuse the memory of a batch.
    both = [(scores.clone(), batch.labels.clone()) for batch, scores in batches]
    return torch.cat([scores for scores, _ in both]), torch.cat([labels for _, labels in both])


def ways(probabilities: torch.Tensor, labels: torch.Tensor) -> dict[str, np.ndarray]:
    curves = Curves(labels.shape[1])
    for scores, truth in zip(probabilities.split(BATCH), labels.split(BATCH), strict=True):
        curves.add(scores, truth)
    everywhere = np.ones(labels.shape[1])
    own = find_thresholds(curves, Goal("f1_macro"), shrink=False)
    return {
        "0.5": 0.5 * everywhere,
        "one common": own.common * everywhere,
        "one a class": own.values,
        **{f"shrunk, `--for {goal}`": find_thresholds(curves, Goal(goal)).values for goal in F1},
    }


def scored(probabilities: torch.Tensor, labels: torch.Tensor, thresholds: np.ndarray) -> dict[str, float]:
    metrics = Metrics(labels.shape[1], thresholds)
    metrics.add(probabilities, labels)
    found = metrics.decisions()
    return {
        "f1": (found.f1_micro + found.f1_macro) / 2,
        "f1_micro": found.f1_micro,
        "f1_macro": found.f1_macro,
    }


if __name__ == "__main__":
    os.nice(10)
    main()
