"""Training and inference on a GPU, beside its own matrix-product peak and the speed at which records are read.

.venv/bin/python benchmarks/gpu.py [--only netvlad1,rnn2] [--seconds 4] [--workers 8]

The recipes netvlad1, gated-dbof1, rnn2 and nextvlad at their full sizes and batches, in bfloat16, compiled or not, each
video 300 frames of 1024 + 128 bytes. *Reading* is the program's loader with `--workers` processes on synthetic records
from the page cache. A row is bound by its input where reading is slower than the model, and then the GPU waits.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import torch
from train import VIDEOS, time_reading

from models import YOUTUBE8M_CLASSES, YOUTUBE8M_FRAMES, matrix_peak, measure
from topgb.devices import keep_freed_memory
from topgb.records.synth import SynthOptions, write_synthetic
from topgb.training.recipe import load_recipe

RECIPES = ("netvlad1", "gated-dbof1", "rnn2", "nextvlad")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(RECIPES), help="recipes, separated by commas")
    parser.add_argument("--seconds", type=float, default=4.0, help="least time spent on each figure")
    parser.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("there is no GPU here; benchmarks/models.py measures a CPU")
    keep_freed_memory()
    device, dtype = torch.device("cuda"), torch.bfloat16
    peak, reading = matrix_peak(device, dtype), read(options.workers, options.seconds)
    name = torch.cuda.get_device_name(device)
    print(f"{name}, torch {torch.__version__}, bfloat16 peak {peak:,.0f} GFLOP/s")
    print(f"{options.workers} loader processes read {reading:,.0f} videos/s\n")
    print("| recipe | batch | compiled | task | videos/s | GFLOP/s | of peak | bound by |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.only.split(","):
        recipe = load_recipe(name)
        batch = recipe.training.batch_size
        for compile_it in (False, True):
            row = measure(recipe.model, device, dtype, compile_it, [(True, batch), (False, batch)], options.seconds)
            for (training, _), speed in row.speeds.items():
                task = "training" if training else "inference"
                if isinstance(speed, str):
                    figures = [speed, "", "", ""]
                else:
                    bound = "input" if reading < speed[0] else "model"
                    figures = [f"{speed[0]:,.0f}", f"{speed[1]:,.0f}", f"{speed[1] / peak:.0%}", bound]
                print(
                    "| " + " | ".join([name, str(batch), "yes" if compile_it else "no", task, *figures]) + " |",
                    flush=True,
                )


def read(workers: int, seconds: float) -> float:
    """Videos/s of the loader alone."""
    with tempfile.TemporaryDirectory() as folder:
        options = SynthOptions(videos_per_shard=256, frames=(300, 300))
        write_synthetic(Path(folder), YOUTUBE8M_FRAMES, YOUTUBE8M_CLASSES, VIDEOS, options)
        return time_reading(str(Path(folder) / "*.tfrecord"), workers, "cuda", seconds).speed


if __name__ == "__main__":
    main()
