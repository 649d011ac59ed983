"""From made clips to tags, end to end: the table in docs/own-videos.md.

    .venv/bin/python benchmarks/own_videos.py [--seeds 3] [--clips 150] [--out runs/own-videos]

Each seed makes clips to train on, a fifth of them held out to choose the epoch, and half as many others that chose
nothing: their backgrounds, the pitch of their sounds and their encoders are other ones. `topgb extract`, `train` and
`eval` do the rest: with all three features, and with those of the picture or of the sound alone.
"""

import argparse
import os
import shutil
from pathlib import Path

import numpy as np

import topgb
from topgb.video.made_clips import ELSEWHERE, HOME, make_clips, write_labels
from topgb.video_demonstration import RECIPE, SHARE

# Seeds of clips on which nothing was chosen, the recipe included.
FIRST, OTHERS = 100, 1000
# The features of each row, None for all.
ROWS = {"picture, speech and mel": None, "the picture alone": ["image"], "the sound alone": ["speech", "mel"]}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--clips", type=int, default=150, help="to train and to choose the epoch")
    arguments.add_argument("--out", type=Path, default=Path("runs/own-videos"))
    arguments.add_argument("--recipe", default=RECIPE)
    chosen = arguments.parse_args()
    gaps = {name: [] for name in ROWS}
    for seed in range(chosen.seeds):
        folder = chosen.out / str(seed)
        shutil.rmtree(folder, ignore_errors=True)
        make_records(folder, chosen.clips, seed)
        for name, features in ROWS.items():
            gaps[name].append(scores(folder, chosen.recipe, seed, features))
            print(
                f"seed {seed}, {name}: held out {gaps[name][-1][0]:.4f}, elsewhere {gaps[name][-1][1]:.4f}", flush=True
            )
    print("\n| features | GAP@20 of clips held out | of clips from elsewhere |\n|---|---|---|")
    for name, found in gaps.items():
        cells = (f"{mean:.3f} ± {spread:.3f}" for mean, spread in zip(np.mean(found, 0), np.std(found, 0), strict=True))
        print(f"| {name} | {' | '.join(cells)} |")
    whole, picture = (np.array(gaps[name])[:, 1] for name in list(ROWS)[:2])
    print(
        f"\nsound adds {np.mean(whole - picture):.3f} (from {min(whole - picture):.3f} to {max(whole - picture):.3f})"
    )


def make_records(folder: Path, clips: int, seed: int) -> None:
    """Fill `folder` with the records `data`, of clips at home, and `other`, of half as many from elsewhere."""
    for name, count, look, number in (
        ("home", clips, HOME, FIRST + seed),
        ("elsewhere", clips // 2, ELSEWHERE, OTHERS + seed),
    ):
        write_labels(folder / f"{name}.csv", make_clips(folder / name, count, number, look))
    data, other = folder / "data", folder / "other"
    topgb.extract(folder / "home", data, labels=folder / "home.csv", validate=SHARE, progress=False)
    topgb.extract(folder / "elsewhere", other, labels=folder / "elsewhere.csv", like=data, progress=False)


def scores(folder: Path, recipe: str, seed: int, features: list[str] | None) -> tuple[float, float]:
    """GAP@20 on the held-out clips and on those from elsewhere, of a model that sees these features."""
    run = folder / ("run" if features is None else "-".join(features))
    changes = {"training.seed": seed, **({} if features is None else {"model.features": features})}
    topgb.train(recipe, folder / "data", run, set=changes, progress=False)
    return tuple(topgb.evaluate(run, folder / name, progress=False).gap for name in ("data", "other"))


if __name__ == "__main__":
    os.nice(10)
    main()
