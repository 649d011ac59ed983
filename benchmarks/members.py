"""Train the members that benchmarks/quantize.py and benchmarks/shrink.py compress, on `train` less its held-out shards.

    .venv/bin/python benchmarks/members.py [yt8m|audioset] [--jobs 2]

A member that was interrupted goes on where it was; a finished one is left alone. The shards held out here (`HELD_OUT`)
are those that settings, bits, members and weights are chosen on; `validate` is not looked at.
"""

import argparse
from pathlib import Path

from commands import DATA, VALIDATE, Training, require_records, train_all

OUT = Path("runs/members")

RECORDS = {
    "yt8m": ("yt8m-2018-video/train/validate00{}.tfrecord", range(36), range(36, 44)),
    "audioset": ("audioset-frame/train/bal_train-{}-of-16.tfrecord", range(13), range(13, 16)),
}

# Kind: recipe, overrides, how many seeds. The yt8m kinds have 2.6, 2.6, 3.9, 4.8 and 2.8 million weights.
KINDS = {
    "yt8m": {
        "silu512": ("yt8m-video", ["model.head.width=512", "model.head.dropout=0.5"], 6),
        "relu512": ("yt8m-video", ["model.head.width=512", "model.head.dropout=0.5", "model.head.activation=relu"], 6),
        "silu768": ("yt8m-video", ["model.head.width=768", "model.head.dropout=0.55"], 8),
        "silu960": ("yt8m-video", ["model.head.width=960"], 8),
        "dbof": (
            "yt8m-video",
            [
                *["model.aggregator=dbof", "model.clusters=512", "model.hidden=512", "model.dropout=0.65"],
                "model.head={name: logistic}",
            ],
            4,
        ),
    },
    "audioset": {
        "netvlad": ("audioset-netvlad", ["training.epochs=16"], 1),
        "soft-dbof": ("audioset-soft-dbof", [], 1),
        "bigru": ("audioset-bigru", [], 1),
    },
}


def train_pattern(records: str) -> str:
    return _pattern(records, RECORDS[records][1])


def held_out_pattern(records: str) -> str:
    return _pattern(records, RECORDS[records][2])


def validate_pattern(records: str) -> str:
    return VALIDATE[records]


def _pattern(records: str, shards: range) -> str:
    return ",".join(str(DATA / RECORDS[records][0].format(f"{shard:02}")) for shard in shards)


def member_paths(records: str) -> dict[str, Path]:
    """Model file by member's name (kind and seed), trained or not; every kind's first seed comes before a second."""
    most = max(seeds for _, _, seeds in KINDS[records].values())
    return {
        f"{kind}-{seed}": OUT / records / f"{kind}-{seed}" / "model.safetensors"
        for seed in range(most)
        for kind, (_, _, seeds) in KINDS[records].items()
        if seed < seeds
    }


def train_members(records: str, jobs: int = 2) -> dict[str, Path]:
    require_records()
    paths = member_paths(records)
    trainings = []
    for name, path in paths.items():
        kind, _, seed = name.rpartition("-")
        recipe, overrides, _ = KINDS[records][kind]
        trainings.append(Training(path.parent, recipe, train_pattern(records), [*overrides, f"training.seed={seed}"]))
    train_all(trainings, jobs)
    return paths


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("records", nargs="?", choices=RECORDS, default="yt8m")
    arguments.add_argument("--jobs", type=int, default=2, help="members trained side by side (default 2)")
    chosen = arguments.parse_args()
    train_members(chosen.records, chosen.jobs)
