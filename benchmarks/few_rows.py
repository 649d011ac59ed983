"""Few rows times a large matrix, by each of the ways between which a loaded model chooses, in turns.

    .venv/bin/python benchmarks/few_rows.py [--rounds 25]

The matrices are those of NetVLAD 64/512, `audioset-netvlad` and `yt8m-video`. Medians in microseconds. In float32: MKL
as PyTorch calls it, MKL from the other side (`models/few_rows.py`), oneDNN with the weight as it lies, oneDNN from the
other side, as in training (`models/factored.py`), oneDNN with a weight in its own order, and MKL block by block (one
row alone). One row is as fast as its weight is read: GB/s stand in brackets, beside those of a dot product of the
weight with itself, which only reads. In bfloat16: the weight as it lies, from the other side, and in oneDNN's order. In
int8: PyTorch's kernel, three digits in integers (`modelfile/integer_products.py`), and codes that are widened to
float32, all of them at once. Before each call 64 MB of other numbers pass through the caches, as a model's other
weights do.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F

from topgb.matmul_library import onednn_linear, onednn_packed, prefer_faster, prefers_onednn, processor, seconds_of
from topgb.modelfile.integer_products import by_integers, packed_codes
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
    prefer_faster()
    with torch.inference_mode():
        for name, (columns, ways) in WAYS.items():
            print(f"{name}:\n\n| weight | rows | {' | '.join(columns)} |\n|---|---|{'---|' * len(columns)}")
            for out_features, in_features in SHAPES:
                for rows in ROWS:
                    taken = medians(ways(rows, out_features, in_features), rounds)
                    size = out_features * in_features * BYTES[name]
                    cells = [
                        "" if own is None else f"{own * 1e6:,.0f}" + f" ({size / own / 1e9:.0f})" * (rows == 1)
                        for own in taken
                    ]
                    print(f"| {out_features:,} × {in_features:,} | {rows} | {' | '.join(cells)} |", flush=True)
            print()


def in_float32(rows: int, out_features: int, in_features: int) -> list[Callable[[], torch.Tensor] | None]:
    values, weight = torch.randn(rows, in_features), torch.randn(out_features, in_features)
    packed, read = onednn_packed(weight), weight.view(-1)
    return [
        lambda: F.linear(values, weight),
        lambda: (weight @ values.T).T.contiguous(),
        lambda: onednn_linear(values, weight, None),
        lambda: onednn_linear(weight, values, None).T.contiguous(),
        lambda: onednn_linear(values, packed, None),
        (lambda: by_blocks(values, weight, None)) if rows == 1 else None,
        (lambda: torch.dot(read, read)) if rows == 1 else None,
    ]


def in_bfloat16(rows: int, out_features: int, in_features: int) -> list[Callable[[], torch.Tensor] | None]:
    values, weight = torch.randn(rows, in_features).bfloat16(), torch.randn(out_features, in_features).bfloat16()
    packed = onednn_packed(weight)
    return [
        lambda: F.linear(values, weight),
        lambda: F.linear(weight, values).T.contiguous(),
        lambda: onednn_linear(values, packed, None),
    ]


def in_int8(rows: int, out_features: int, in_features: int) -> list[Callable[[], torch.Tensor] | None]:
    values = torch.randn(rows, in_features)
    codes = torch.randint(-127, 128, (out_features, in_features), dtype=torch.int8)
    packed, scales = packed_codes(codes), torch.ones(out_features, dtype=torch.bfloat16)
    return [
        lambda: torch._weight_int8pack_mm(values.bfloat16(), codes, scales),
        lambda: by_integers(values, packed),
        lambda: (onednn_linear if prefers_onednn() else F.linear)(values, codes.float(), None),
    ]


Ways = Callable[[int, int, int], list[Callable[[], torch.Tensor] | None]]
WAYS: dict[str, tuple[tuple[str, ...], Ways]] = {
    "float32": (("MKL", "its other side", "oneDNN", "its other side", "its own order", "blocks", "dot"), in_float32),
    "bfloat16": (("as it lies", "other side", "oneDNN's order"), in_bfloat16),
    "int8": (("kernel", "three digits", "widened"), in_int8),
}
BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}


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
