"""Bytes and GAP of every way to quantise, on models of the real records: two tables in docs/benchmarks.md.

    .venv/bin/python benchmarks/quantize.py [yt8m|audioset …] [--out runs/quantize]

The models are those of benchmarks/members.py (trained where they are missing). `entropy` is calibrated on shards held
out of `train`; GAP is on `validate`. A row is the mean over the models; the interval is a bootstrap over the videos of
that mean's difference to float32. What is done already is not done again.
"""

import argparse
import os
import platform
from pathlib import Path

import members
import numpy as np
import torch

from topgb.evaluation.compare import RankedPairs, compare_pairs, rank_pairs
from topgb.evaluation.opening import open_for
from topgb.modelfile import load
from topgb.progress import TerminalProgress
from topgb.quantizing.quantize import QuantizeOptions, quantize_file

CPU = torch.device("cpu")
MODELS = {
    "yt8m": ["silu512-0", "relu512-0", "silu960-0", "dbof-0", "silu960-1"],
    "audioset": ["netvlad-0", "soft-dbof-0", "bigru-0"],
}
# A row's name, how to store the weights, and whether calibrated.
ROWS: list[tuple[str, QuantizeOptions, bool]] = [
    ("float16", QuantizeOptions("float16"), False),
    ("2018: uniform, 8 bits", QuantizeOptions("quant_uniform"), False),
    ("2018: quantile, 8 bits", QuantizeOptions("quant_quantile"), False),
    ("2018: k-means, 8 bits", QuantizeOptions("quant_kmeans"), False),
    ("int8", QuantizeOptions("int8"), False),
    ("int6", QuantizeOptions("int6"), False),
    ("int5", QuantizeOptions("int5"), False),
    ("int4", QuantizeOptions("int4"), False),
    ("int3", QuantizeOptions("int3"), False),
    *((f"entropy, {bits:g} bits", QuantizeOptions("entropy", bits), False) for bits in (4.5, 3.5, 3.0)),
    *(
        (f"entropy, {bits:g} bits, calibrated", QuantizeOptions("entropy", bits), True)
        for bits in (4.5, 3.5, 3.0, 2.5, 2.0)
    ),
]


class MeanOfPairs:
    """Several models' pairs over the same videos, whose GAP is the mean of theirs."""

    def __init__(self, parts: list[RankedPairs]):
        self.parts, self.ids, self.positives = parts, parts[0].ids, parts[0].positives

    def gap(self, counts: np.ndarray) -> float:
        return float(np.mean([part.gap(counts) for part in self.parts]))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("records", nargs="*", default=list(MODELS), help="of: " + ", ".join(MODELS))
    arguments.add_argument("--out", type=Path, default=Path("runs/quantize"))
    chosen = arguments.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    for records in chosen.records:
        table(records, chosen.out / records)


def table(records: str, out: Path) -> None:
    trained = members.train_members(records)
    paths = [trained[name] for name in MODELS[records]]
    some = load(paths[0])
    held_out = open_for(some, members.held_out_pattern(records))
    validate = open_for(some, members.validate_pattern(records))
    exact = MeanOfPairs([rank_pairs(load(path, resident="full"), validate, CPU) for path in paths])
    total = sum(path.stat().st_size for path in paths)
    print(f"\n{records}: the mean of {', '.join(MODELS[records])}\n")
    print("| stored as | bits a weight | file, mean | GAP@20 | against float32 | 95 % |")
    print("|---|---|---|---|---|---|")
    print(
        f"| float32 | 32.00 | {total / len(paths) / 1e6:.2f} MB | {exact.gap(np.ones(len(exact.ids), int)):.5f} | | |"
    )
    for name, settings, calibrated in ROWS:
        files, bits = [], []
        for path in paths:
            files.append(out / f"{name.replace(' ', '-').replace(':', '')}-{path.parent.name}.safetensors")
            if not files[-1].exists():
                quantize_file(path, files[-1], settings, held_out if calibrated else None, progress=TerminalProgress())
            bits.append(bits_of_large(files[-1], settings.min_elements))
        stored = MeanOfPairs([rank_pairs(load(file, resident="full"), validate, CPU) for file in files])
        found = compare_pairs(exact, stored)
        size = sum(file.stat().st_size for file in files) / len(files)
        print(
            f"| {name} | {np.mean(bits):.2f} | {size / 1e6:.2f} MB | {found.gap_b:.5f} | {found.difference:+.5f} | "
            f"{found.low:+.5f} … {found.high:+.5f} |",
            flush=True,
        )


def bits_of_large(path: Path, least: int) -> float:
    """Bits a weight of the quantised tensors, scales and codebooks included."""
    from topgb.modelfile import read_model_file
    from topgb.modelfile.encodings import stored_bytes
    from topgb.quantizing.quantize import large_tensors

    header, stored = read_model_file(path)
    names = large_tensors(header, least)
    elements = sum(int(np.prod(header.tensors[name].shape)) for name in names)
    return 8 * sum(stored_bytes(stored, header.tensors[name], name) for name in names) / elements


if __name__ == "__main__":
    main()
