"""The sums of a video's frames under its clusters' weights, by the two ways between which topgb chooses, in turns.

    .venv/bin/python benchmarks/pooling.py [--rounds 15]

Microseconds, medians: framesᵀ · weights, and (weightsᵀ · frames)ᵀ, whose result is turned (`models/framesums.py`).
"""

import argparse
import statistics

import torch

from topgb.devices import keep_freed_memory
from topgb.matmul_library import processor, seconds_of

# Videos, frames, values, clusters: of AudioSet's recipes, NetVLAD 64 and 256, NeXtVLAD's groups.
SHAPES = (
    (32, 10, 128, 128), (1, 300, 1024, 64), (2, 300, 1024, 64), (32, 300, 1024, 64), (32, 300, 1024, 128),
    (32, 300, 128, 32),
    (1, 300, 1024, 256), (8, 300, 1024, 256), (80, 300, 128, 8),
)  # fmt: skip
# Name, PyTorch's precision of float32 products, dtype.
ARITHMETIC = (
    ("float32 by MKL", "highest", torch.float32),
    ("float32 by oneDNN", "medium", torch.float32),
    ("bfloat16", "highest", torch.bfloat16),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    keep_freed_memory()
    print(f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| videos × frames × values, clusters | arithmetic | direct | turned |")
    print("|---|---|---|---|")
    for videos, frames, width, clusters in SHAPES:
        for name, precision, dtype in ARITHMETIC:
            torch.set_float32_matmul_precision(precision)
            # A feature's frames are a part of all features'.
            values = torch.randn(videos, frames, width + 128, dtype=dtype)[..., :width]
            weights = torch.randn(videos, frames, clusters, dtype=dtype)
            calls = (
                lambda values=values, weights=weights: values.mT @ weights,
                lambda values=values, weights=weights: (weights.mT @ values).mT.contiguous(),
            )
            with torch.inference_mode():
                taken = [[seconds_of(call) for call in calls] for _ in range(rounds)]
            cells = [f"{statistics.median(own) * 1e6:,.0f}" for own in zip(*taken, strict=True)]
            print(f"| {videos} × {frames} × {width}, {clusters} | {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
