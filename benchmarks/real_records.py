"""Train the shipped recipes on the real records and score them on `validate`: the table in docs/benchmarks.md.

    .venv/bin/python benchmarks/real_records.py [RECIPE …] [--seeds N] [--out runs/real-records]

A run that was interrupted goes on where it was; a finished one is only scored again. Training's time and videos/s are
of the whole command, start-up and writing included. `validate` is looked at here and
nowhere else: settings were chosen on shards held out of `train`.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch

from topgb.modelfile import load
from topgb.training.recipe import shipped_recipes

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
RECORDS = {"yt8m-video": "yt8m-2018-video", "video-moe": "yt8m-2018-video"} | {
    name: "audioset-frame" for name in shipped_recipes() if name.startswith("audioset-")
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("recipes", nargs="*", default=list(RECORDS), help="of: " + ", ".join(RECORDS))
    arguments.add_argument("--seeds", type=int, default=1, help="runs of each recipe, with seeds 0, 1, …")
    arguments.add_argument("--out", type=Path, default=Path("runs/real-records"))
    chosen = arguments.parse_args()
    if not DATA.is_dir():
        sys.exit(f"the real records are absent: {DATA} is not there")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}\n")
    print("| recipe | seed | training | videos/s | GAP@20 | Hit@1 | PERR | MAP | MAP present | parameters | file |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for recipe in chosen.recipes:
        for seed in range(chosen.seeds):
            print(row(recipe, seed, chosen.out / f"{recipe}-{seed}"), flush=True)


def row(recipe: str, seed: int, run: Path) -> str:
    """Train if that is not done yet, score, and return a row of the table."""
    records = DATA / RECORDS[recipe]
    timing = run / "seconds.json"
    if not (run / "model.safetensors").exists():
        began = time.monotonic()
        topgb(
            *["train", recipe, "--data", str(records / "train/*.tfrecord"), "--out", str(run)],
            *["--set", f"training.seed={seed}", "--resume"],
        )
        timing.write_text(json.dumps(time.monotonic() - began))
    seconds = json.loads(timing.read_text()) if timing.exists() else float("nan")
    path = run / "model.safetensors"
    scores = json.loads(topgb("eval", str(path), str(records / "validate/*.tfrecord"), "--json"))
    progress = json.loads(max((run / "checkpoints").glob("step-*/progress.json"), key=_step).read_text())
    figures = " | ".join(f"{scores[name]:.4f}" for name in ("gap", "hit_at_1", "perr", "map", "map_present"))
    size = path.stat().st_size / 1e6
    speed = f"{seconds:.0f} s | {progress['examples'] / seconds:,.0f}"
    return f"| {recipe} | {seed} | {speed} | {figures} | {load(path).weights / 1e6:.2f} M | {size:.1f} MB |"


def _step(progress: Path) -> int:
    return int(progress.parent.name.removeprefix("step-"))


def topgb(*command: str) -> str:
    """Run the program as a user does; its standard output."""
    return subprocess.run(
        [sys.executable, "-m", "topgb", *command], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


if __name__ == "__main__":
    main()
