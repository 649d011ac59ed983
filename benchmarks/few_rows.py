"""Few rows times a large float32 matrix, by each of the ways between which a loaded model chooses, in turns.

    .venv/bin/python benchmarks/few_rows.py [--rounds 9]

The matrices are those of NetVLAD 64/512, `audioset-netvlad` and `yt8m-video`. Medians in microseconds: MKL as PyTorch
calls it, MKL from the other side (`models/few_rows.py`), oneDNN with the weight as it lies, oneDNN with a weight in its
own order, and an embedding bag over the weight's columns (one row alone). One row is as fast as its weight is read:
GB/s stand in brackets.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F

from topgb.matmul_library import onednn_linear, onednn_packed, processor, seconds_of
from topgb.models.few_rows import parts_of_sum, sum_of_columns

# [out, in] of hidden layers, gates, experts and output layers.
SHAPES = ((512, 69632), (512, 16384), (1024, 1152), (3862, 1024), (11586, 512), (1581, 512))
ROWS = (1, 2, 8, 32, 128)
CALLS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    print(f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| weight | rows | MKL | other side | oneDNN | its own order | columns |\n|---|---|---|---|---|---|---|")
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
    packed, columns, parts = onednn_packed(weight), weight.T.contiguous(), parts_of_sum(in_features)
    return [
        lambda: F.linear(values, weight),
        lambda: (weight @ values.T).T.contiguous(),
        lambda: onednn_linear(values, weight, None),
        lambda: onednn_linear(values, packed, None),
        (lambda: sum_of_columns(values[0], columns, *parts)) if rows == 1 else None,
    ]


def medians(calls: list[Callable[[], torch.Tensor] | None], rounds: int) -> list[float | None]:
    """The median over the rounds of the seconds that a call takes."""
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds + 1):
        for call, own in zip(calls, taken, strict=True):
            if call is not None:
                own.append(seconds_of(lambda call=call: [call() for _ in range(CALLS)]) / CALLS)
    # The first round warms up.
    return [statistics.median(own[1:]) if own else None for own in taken]


if __name__ == "__main__":
    main()
