"""The best model file under 50 MB that topgb makes of `train` of YouTube-8M's video-level records, from nothing.

    .venv/bin/python benchmarks/best_under_50mb.py [--out runs/best-under-50mb] [--jobs 2]

Under two hours on 2 cores. What was interrupted goes on where it was; `validate` is looked at here alone. Sizes, bits
and shares were chosen on shards held out of `train` (docs/distilling.md). The steps:

  1. NETS nets on all of `train`, and a memory of each: the training videos by what its hidden layer sees.
  2. The nets to NET_BITS bits a weight and the memories to MEMORY_BITS, and all of them into one ensemble.
  3. For each fold of the shards the same with FOLD_NETS nets trained without it: scores of videos that nobody had seen.
  4. A second stage on these scores.
"""

import argparse
import os
import platform
import sys
import time
from pathlib import Path

import torch
from commands import DATA, VALIDATE, Training, in_parallel, require_records, score, threads_of, topgb, train_all

BUDGET = 50_000_000
SHARDS = [str(DATA / f"yt8m-2018-video/train/validate{number:04}.tfrecord") for number in range(44)]
RECIPE = "yt8m-video"
NETS, NET_BITS, MEMORY_BITS = 9, 2.5, 2
FOLDS, FOLD_NETS = 6, 3
# What the memories have of the mixture.
MEMORY_SHARE = 0.4
# More than the second stage looks at.
KEPT_CLASSES = 50


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, default=Path("runs/best-under-50mb"))
    arguments.add_argument("--jobs", type=int, default=2, help="processes side by side (default 2)")
    chosen = arguments.parse_args()
    require_records()
    began = time.monotonic()
    out, jobs = chosen.out, chosen.jobs
    final, plain = out / "best.safetensors", out / "ensemble.safetensors"
    nets = [_training(out / f"net-{seed}", SHARDS, seed) for seed in range(NETS)]
    folds = [
        [_training(out / f"fold-{fold}-{seed}", _others(fold), seed) for seed in range(FOLD_NETS)]
        for fold in range(FOLDS)
    ]
    train_all([*nets, *(net for fold in folds for net in fold)], jobs)
    in_parallel(lambda net: _remember(net, jobs), [*nets, *(net for fold in folds for net in fold)], jobs)
    in_parallel(lambda net: _shrink(net, jobs), nets, jobs)
    _mix(plain, [net.out / "small.safetensors" for net in nets], [net.out / "small-memory.safetensors" for net in nets])
    in_parallel(lambda fold: _score_fold(out, fold, folds[fold], jobs), range(FOLDS), jobs)
    if not final.exists():
        scores = ",".join(str(out / f"scores-{fold}") for fold in range(FOLDS))
        print(topgb("model", "rerank", plain, "--data", ",".join(SHARDS), "--scores", scores, "--out", final))
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    print(f"{(time.monotonic() - began) / 60:.0f} minutes, less what was there already\n")
    print("| file | bytes | GAP@20 | Hit@1 | PERR | MAP |")
    print("|---|---|---|---|---|---|")
    validate = VALIDATE["yt8m"]
    memories = out / "memories.safetensors"
    _mix(memories, [], [net.out / "small-memory.safetensors" for net in nets])
    for name, path in (
        ("one net", nets[0].model),
        ("one memory", nets[0].out / "memory.safetensors"),
        (f"{NETS} memories", memories),
        (f"{NETS} nets and memories", plain),
        ("with a second stage", final),
    ):
        found = score(path, validate)
        figures = " | ".join(f"{found[key]:.4f}" for key in ("gap", "hit_at_1", "perr", "map"))
        print(f"| {name} | {path.stat().st_size:,} | {figures} |")
    if final.stat().st_size > BUDGET:
        sys.exit(f"{final} has more than {BUDGET:,} bytes")


def _training(out: Path, shards: list[str], seed: int) -> Training:
    return Training(out, RECIPE, ",".join(shards), [f"training.seed={seed}"])


def _others(fold: int) -> list[str]:
    return [shard for number, shard in enumerate(SHARDS) if number % FOLDS != fold]


def _remember(net: Training, jobs: int) -> None:
    out = net.out / "memory.safetensors"
    if not out.exists():
        topgb("model", "remember", net.model, "--data", net.data, "--out", out, threads=threads_of(jobs))


def _shrink(net: Training, jobs: int) -> None:
    for path, bits, out in (
        (net.model, NET_BITS, net.out / "small.safetensors"),
        (net.out / "memory.safetensors", MEMORY_BITS, net.out / "small-memory.safetensors"),
    ):
        if not out.exists():
            options = ["--method", "entropy", "--bits", str(bits)]
            topgb("model", "quantize", path, *options, "--out", out, threads=threads_of(jobs))


def _mix(out: Path, nets: list[Path], memories: list[Path]) -> None:
    memory_share = MEMORY_SHARE if nets else 1.0
    weights = [(1 - memory_share) / len(nets) for _ in nets] + [memory_share / len(memories) for _ in memories]
    if not out.exists():
        topgb("model", "ensemble", *nets, *memories, "--weights", ",".join(map(repr, weights)), "--out", out)


def _score_fold(out: Path, fold: int, nets: list[Training], jobs: int) -> None:
    mixed = out / f"fold-{fold}.safetensors"
    _mix(mixed, [net.model for net in nets], [net.out / "memory.safetensors" for net in nets])
    unseen = ",".join(shard for number, shard in enumerate(SHARDS) if number % FOLDS == fold)
    command = ["distill", mixed, unseen, "--out", out / f"scores-{fold}", "--top-k", str(KEPT_CLASSES)]
    topgb(*command, threads=threads_of(jobs))


if __name__ == "__main__":
    main()
