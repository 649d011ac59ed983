"""Ensembles shrunk to a budget beside the best of the 2018 recipe from the same members: a table in docs/benchmarks.md.

    .venv/bin/python benchmarks/shrink.py [--draws 4] [--members 18] [--out runs/shrink]

Members are those of benchmarks/members.py on yt8m-2018-video (trained where they are missing: half an hour), drawn at
random from them. The 2018 recipe is k-means to 8 bits and equal weights; its members are chosen as ours are, one by one
by the score of the mixture. Both choose on shards held out of `train`; the table's figures are on `validate`, with a
paired bootstrap over its videos. What is done already is not done again.
"""

import argparse
import json
import os
import platform
import shutil
from pathlib import Path

import members
import numpy as np
import torch
from quantize import MeanOfPairs

from topgb.combining.ensemble import ensemble
from topgb.combining.search import QuantisedMember, best, search
from topgb.combining.shortlist import listed_scores, make_shortlist
from topgb.combining.shrink import ShrinkOptions, shrink
from topgb.evaluation.compare import compare_pairs, rank_pairs
from topgb.evaluation.opening import open_for
from topgb.modelfile import load
from topgb.progress import TerminalProgress
from topgb.quantizing.quantize import QuantizeOptions, quantize_file
from topgb.records.dataset import Dataset

BUDGETS = (5_000_000, 10_000_000, 20_000_000)
CPU = torch.device("cpu")
PROGRESS = TerminalProgress()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--draws", type=int, default=4)
    arguments.add_argument("--members", type=int, default=18, help="members of a draw (default 18)")
    arguments.add_argument("--out", type=Path, default=Path("runs/shrink"))
    chosen = arguments.parse_args()
    paths = members.train_members("yt8m")
    some = load(next(iter(paths.values())))
    held_out = open_for(some, members.held_out_pattern("yt8m"))
    validate = open_for(some, members.validate_pattern("yt8m"))
    names = list(paths)
    draws = [
        [names[place] for place in np.random.default_rng(seed).permutation(len(names))[: chosen.members]]
        for seed in range(chosen.draws)
    ]
    for seed, draw in enumerate(draws):
        for budget in BUDGETS:
            make(seed, draw, budget, paths, held_out, chosen.out)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}\n")
    print("| budget | draw | 2018: members | bytes | GAP | shrunk: members × bits | bytes | GAP | gain | 95 % |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for budget in BUDGETS:
        both: list[list] = [[], []]
        for seed in range(chosen.draws):
            files = [folder(chosen.out, seed, budget) / f"{name}.safetensors" for name in ("2018", "shrunk")]
            pairs = [rank_pairs(load(file, resident="full"), validate, CPU) for file in files]
            for kept, pair in zip(both, pairs, strict=True):
                kept.append(pair)
            bits = json.loads(files[1].with_name("choice.json").read_text())
            of_2018 = len(load(files[0]).members)
            sizes = [f"{file.stat().st_size:,}" for file in files]
            found = compare_pairs(*pairs)
            print(
                f"| {budget / 1e6:g} MB | {seed} | {of_2018} | {sizes[0]} | {found.gap_a:.4f} | {bits} | {sizes[1]} | "
                f"{found.gap_b:.4f} | {found.difference:+.4f} | {found.low:+.4f} … {found.high:+.4f} |",
                flush=True,
            )
        mean = compare_pairs(MeanOfPairs(both[0]), MeanOfPairs(both[1]))
        print(
            f"| {budget / 1e6:g} MB | **mean** | | | {mean.gap_a:.4f} | | | {mean.gap_b:.4f} | "
            f"**{mean.difference:+.4f}** | {mean.low:+.4f} … {mean.high:+.4f} |",
            flush=True,
        )


def folder(out: Path, seed: int, budget: int) -> Path:
    return out / f"draw-{seed}" / f"{budget}"


def make(seed: int, draw: list[str], budget: int, paths: dict[str, Path], held_out: Dataset, out: Path) -> None:
    """Both files of one draw and budget."""
    target = folder(out, seed, budget)
    target.mkdir(parents=True, exist_ok=True)
    if not (target / "2018.safetensors").exists():
        PROGRESS.say(f"draw {seed}, {budget:,} bytes: 2018")
        best_of_2018([paths[name] for name in draw], budget, held_out, out, target / "2018.safetensors")
    if not (target / "choice.json").exists():
        PROGRESS.say(f"draw {seed}, {budget:,} bytes: shrunk")
        models = [paths[name] for name in draw]
        found = shrink(
            models, budget, held_out, target / "shrunk.safetensors", ShrinkOptions(out / "work", force=True), PROGRESS
        )
        levels = [level for _, level in found.choice.bits]
        words = ", ".join(f"{levels.count(level)} × {level:g}" for level in sorted(set(levels)))
        (target / "choice.json").write_text(json.dumps(words))


def best_of_2018(models: list[Path], budget: int, held_out: Dataset, out: Path, target: Path) -> None:
    files = []
    for model in models:
        files.append(out / "2018" / f"{model.parent.name}.safetensors")
        if not files[-1].exists():
            quantize_file(model, files[-1], QuantizeOptions("quant_kmeans"))
    loaded = [load(file) for file in files]
    shortlist = make_shortlist(loaded, held_out, CPU)
    candidates = {
        (number, 8.0): QuantisedMember(number, 8.0, file.stat().st_size, listed_scores(model, shortlist, held_out, CPU))
        for number, (file, model) in enumerate(zip(files, loaded, strict=True))
    }
    choice = best(search(candidates, budget, shortlist.gap))
    members_of = [files[number] for number, _ in choice.bits]
    if len(members_of) == 1:
        shutil.copyfile(members_of[0], target)
    else:
        ensemble(members_of, None, target)


if __name__ == "__main__":
    main()
