"""Seconds that quantising takes, beside scikit-learn's KMeans as 2018's quantize.py called it: for docs/benchmarks.md.

    .venv/bin/pip install -r benchmarks/requirements.txt
    .venv/bin/python benchmarks/quantize_speed.py [--weights 1000000,10000000] [--no-sklearn]

Gaussian weights as a matrix of 1,000 columns. scikit-learn runs on the first size only: 256 clusters, ten starts (its
default of 2018), and SciPy's `vq` for the codes.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable

import numpy as np
import torch

from topgb.features import Feature, FeatureSpec
from topgb.modelfile import Header, Member, TensorEncoding
from topgb.modelfile.encodings import values
from topgb.models import parse_model
from topgb.quantizing.quantize import METHODS, QuantizeOptions, quantize

COLUMNS = 1000
NAME = "members.0.w"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--weights", default="1000000,10000000")
    arguments.add_argument("--no-sklearn", action="store_true", help="leave out scikit-learn's minutes")
    chosen = arguments.parse_args()
    torch.set_num_threads(2)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}\n")
    print("| method | weights | seconds | relative error |")
    print("|---|---|---|---|")
    sizes = [int(size) for size in chosen.weights.split(",")]
    for size in sizes:
        weights = torch.randn(size // COLUMNS, COLUMNS, generator=torch.Generator().manual_seed(0))
        for method in METHODS:
            row(method, weights, lambda method=method, weights=weights: ours(method, weights))
    if not chosen.no_sklearn:
        weights = torch.randn(sizes[0] // COLUMNS, COLUMNS, generator=torch.Generator().manual_seed(0))
        row("scikit-learn's KMeans and SciPy's vq", weights, lambda: sklearn(weights))


def row(name: str, weights: torch.Tensor, run: Callable[[], torch.Tensor]) -> None:
    began = time.perf_counter()
    rounded = run()
    seconds = time.perf_counter() - began
    error = float((rounded - weights).norm() / weights.norm())
    print(f"| {name} | {weights.numel():,} | {seconds:.2f} | {error:.5f} |", flush=True)


def ours(method: str, weights: torch.Tensor) -> torch.Tensor:
    config = parse_model({"aggregator": "average", "head": "logistic"})
    entries = {NAME: TensorEncoding("float32", tuple(weights.shape))}
    header = Header(FeatureSpec("video", (Feature("rgb", 1),)), 1, (Member(1.0, config),), entries)
    entry, parts = quantize(header, {NAME: weights}, QuantizeOptions(method))[NAME]
    return values(parts, entry)


def sklearn(weights: torch.Tensor) -> torch.Tensor:
    from scipy.cluster.vq import vq
    from sklearn.cluster import KMeans

    flat = weights.numpy().reshape(-1)
    found = KMeans(n_clusters=256, n_init=10).fit(flat[:, None].astype(np.float64))
    levels = np.sort(found.cluster_centers_.ravel())
    codes = vq(flat, levels)[0]
    return torch.from_numpy(levels.astype(np.float32)[codes].reshape(weights.shape))


if __name__ == "__main__":
    main()
