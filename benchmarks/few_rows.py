"""Few rows times a large float32 matrix, by each of the ways between which a loaded model chooses, in turns.

    .venv/bin/python benchmarks/few_rows.py [--rounds 25]

The matrices are those of NetVLAD 64/512, `audioset-netvlad` and `yt8m-video`. Medians in microseconds: MKL as PyTorch
calls it, MKL from the other side (`models/few_rows.py`), oneDNN with the weight as it lies, oneDNN with a weight in its
own order, and MKL block by block (one row alone). One row is as fast as its weight is read: GB/s stand in brackets,
beside those of a dot product of the weight with itself, which only reads. Before each call 64 MB of other numbers pass
through the caches, as a model's other weights do.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F

from topgb.matmul_library import onednn_linear, onednn_packed, processor, seconds_of
from topgb.models.few_rows import by_blocks

# [out, in] of hidden layers, gates, experts and output layers.
SHAPES = ((512, 69632), (512, 16384), (1024, 1152), (3862, 1024), (11586, 512), (1581, 512))
ROWS = (1, 2, 8, 32, 128)
OTHER_VALUES = 1 << 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    rounds = parser.parse_args().rounds
    print(f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| weight | rows | MKL | other side | oneDNN | its own order | blocks | dot |")
    print("|---|---|---|---|---|---|---|---|")
    with torch.inference_mode():
        for out_features, in_features in SHAPES:
            for rows in ROWS:
                taken = medians(ways(rows, out_features, in_features), rounds)
                size = out_features * in_features * 4
                cells = [
                    "" if own is None else f"{own * 1e6:,.0f}" + f" ({size / own / 1e9:.0f})" * (rows == 1)
                    for own in taken
                ]
                print(f"| {out_features:,} × {in_features:,} | {rows} | {' | '.join(cells)} |", flush=True)


def ways(rows: int, out_features: int, in_features: int) -> list[Callable[[], torch.Tensor] | None]:
    values, weight = torch.randn(rows, in_features), torch.randn(out_features, in_features)
    packed, read = onednn_packed(weight), weight.view(-1)
    return [
        lambda: F.linear(values, weight),
        lambda: (weight @ values.T).T.contiguous(),
        lambda: onednn_linear(values, weight, None),
        lambda: onednn_linear(values, packed, None),
        (lambda: by_blocks(values, weight)) if rows == 1 else None,
        (lambda: torch.dot(read, read)) if rows == 1 else None,
    ]


def medians(calls: list[Callable[[], torch.Tensor] | None], rounds: int) -> list[float | None]:
    """The median over the rounds of the seconds that a call takes."""
    taken: list[list[float]] = [[] for _ in calls]
    others = torch.ones(OTHER_VALUES)
    for _ in range(rounds + 1):
        for call, own in zip(calls, taken, strict=True):
            if call is not None:
                others.add_(1)
                own.append(seconds_of(call))
    # The first round warms up.
    return [statistics.median(own[1:]) if own else None for own in taken]


if __name__ == "__main__":
    main()
