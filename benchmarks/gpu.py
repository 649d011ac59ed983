"""Training and inference on a GPU, beside its own matrix-product peak and the speed at which records are read.

.venv/bin/python benchmarks/gpu.py [--only netvlad1,rnn2] [--seconds 4] [--workers 8] [--batch 160]

The recipes netvlad1, gated-dbof1, rnn2 and nextvlad at their full sizes and batches, in bfloat16, compiled or not, each
video 300 frames of 1024 + 128 bytes. *Reading* is the program's loader with `--workers` processes on synthetic records
from the page cache. A row is bound by its input where reading is slower than the model, and then the GPU waits.
`--device cpu` shows that the table is made where there is no GPU; a small `--batch` and `--only` let it end.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import torch
from train import VIDEOS, time_reading

from models import YOUTUBE8M_CLASSES, YOUTUBE8M_FRAMES, matrix_peak, measure
from topgb.devices import computes_in_bfloat16, keep_freed_memory
from topgb.records.synth import SynthOptions, write_synthetic
from topgb.training.recipe import load_recipe

RECIPES = ("netvlad1", "gated-dbof1", "rnn2", "nextvlad")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(RECIPES), help="recipes, separated by commas")
    parser.add_argument("--seconds", type=float, default=4.0, help="least time spent on each figure")
    parser.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1))
    parser.add_argument("--batch", type=int, help="videos in a batch (default: the recipe's)")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no GPU here; benchmarks/models.py measures a CPU")
    device, dtype = torch.device(options.device), torch.bfloat16
    if not computes_in_bfloat16(device):
        sys.exit(f"{_name(device)} does not compute in bfloat16; benchmarks/models.py --device cuda measures float32")
    keep_freed_memory()
    peak, reading = matrix_peak(device, dtype), read(options.workers, device, options.seconds)
    print(f"{_name(device)}, torch {torch.__version__}, bfloat16 peak {peak:,.0f} GFLOP/s")
    print(f"{options.workers} loader processes read {reading:,.0f} videos/s\n")
    print("| recipe | batch | compiled | task | videos/s | GFLOP/s | of peak | bound by |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.only.split(","):
        recipe = load_recipe(name)
        batch = options.batch or recipe.training.batch_size
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


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"


def read(workers: int, device: torch.device, seconds: float) -> float:
    """Videos/s of the loader alone."""
    with tempfile.TemporaryDirectory() as folder:
        options = SynthOptions(videos_per_shard=256, frames=(300, 300))
        write_synthetic(Path(folder), YOUTUBE8M_FRAMES, YOUTUBE8M_CLASSES, VIDEOS, options)
        return time_reading(str(Path(folder) / "*.tfrecord"), workers, device.type, seconds).speed


if __name__ == "__main__":
    main()
