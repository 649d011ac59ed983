"""How fast frame-level records become a padded uint8 batch: topgb beside the tfrecord package, protobuf and memcpy.

One process, one thread, from the page cache, every video into its rows of a fresh batch. Run from the repository:

    pip install -r benchmarks/requirements.txt
    PYTHONPATH=src python benchmarks/read.py [--json]
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from topgb.features import YOUTUBE8M_CLASSES, YOUTUBE8M_FRAMES, YOUTUBE8M_MAX_FRAMES, Feature
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.protos import SequenceExample
from topgb.records.shards import find_shards, open_shard
from topgb.records.synth import write_synthetic

VIDEOS = 512
BATCH = 64
ROUNDS = 7
SPEC = YOUTUBE8M_FRAMES
FRAMES = YOUTUBE8M_MAX_FRAMES


def topgb_reader(pattern: str) -> int:
    """Every CRC checked, labels and ids read, files opened anew."""
    dataset = open_dataset(pattern, SPEC, YOUTUBE8M_CLASSES, FRAMES)
    return sum(int(batch.num_frames.sum()) for batch in evaluation_batches(dataset, BATCH))


def tfrecord_reader(pattern: str) -> int:
    """The package's own loader; it checks no CRC."""
    from tfrecord.reader import sequence_loader

    def videos() -> Iterator[list]:
        for shard in find_shards(pattern):
            for context, features in sequence_loader(
                shard.path, None, {"id": "byte", "labels": "int"}, {f.name: "byte" for f in SPEC.features}
            ):
                assert len(context["id"])
                yield [join(features[feature.name], feature) for feature in SPEC.features]

    return fill_batches(videos())


def protobuf_reader(pattern: str) -> int:
    """protobuf's C decoder, then one join of each feature's frames; no CRC is checked."""

    def videos() -> Iterator[list]:
        for shard in find_shards(pattern):
            opened = open_shard(shard)
            for record in range(len(opened)):
                message = SequenceExample.FromString(opened.data(record))
                lists = message.feature_lists.feature_list
                assert message.context.feature["id"].bytes_list.value[0]
                assert len(message.context.feature["labels"].int64_list.value)
                yield [
                    join([frame.bytes_list.value[0] for frame in lists[feature.name].feature], feature)
                    for feature in SPEC.features
                ]

    return fill_batches(videos())


def join(frames: list[bytes], feature: Feature) -> np.ndarray:
    """A feature's frames as one array [N, size]."""
    return np.frombuffer(b"".join(frames), np.uint8).reshape(-1, feature.size)


def fill_batches(videos: Iterator[list]) -> int:
    """Copy each video's features into its rows of a padded batch, as topgb does."""
    total = row = 0
    for arrays in videos:
        if row == 0:
            batch = np.empty((BATCH, FRAMES, SPEC.width), np.uint8)
        count = len(arrays[0])
        for feature, array in zip(SPEC.features, arrays, strict=True):
            batch[row, :count, SPEC.columns(feature.name)] = array
        batch[row, count:] = 0
        total += count
        row = (row + 1) % BATCH
    return total


def memcpy(source: np.ndarray) -> int:
    """The same bytes, batch by batch into fresh buffers: the least that any reader does."""
    for start in range(0, VIDEOS, BATCH):
        np.copyto(np.empty((BATCH, FRAMES, SPEC.width), np.uint8), source[start : start + BATCH])
    return VIDEOS * FRAMES


def machine() -> str:
    """The processor's model and how many of its cores this process may use."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
    return f"{names[0] if names else platform.processor()}, {len(os.sched_getaffinity(0))} cores"


def best_seconds(readers: dict[str, Callable[[], int]]) -> dict[str, float]:
    """The best of several rounds; in each, the readers take turns, so that all see the same machine."""
    best = dict.fromkeys(readers, float("inf"))
    for _ in range(ROUNDS):
        for name, read in readers.items():
            start = time.perf_counter()
            frames = read()
            best[name] = min(best[name], time.perf_counter() - start)
            assert frames == VIDEOS * FRAMES
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args().json
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_synthetic(folder, SPEC, YOUTUBE8M_CLASSES, VIDEOS, VIDEOS // 4, frames=(FRAMES, FRAMES))
        pattern = f"{folder}/*.tfrecord"
        source = np.random.default_rng(0).integers(0, 256, (VIDEOS, FRAMES, SPEC.width), np.uint8)
        readers: dict[str, Callable[[], int]] = {
            "topgb, every CRC checked": lambda: topgb_reader(pattern),
            "tfrecord 1.14.6, no CRC": lambda: tfrecord_reader(pattern),
            "protobuf + join, no CRC": lambda: protobuf_reader(pattern),
            "memcpy of the same bytes": lambda: memcpy(source),
        }
        best = best_seconds(readers)
    gigabytes = VIDEOS * FRAMES * SPEC.width / 1e9
    rows = [
        {"reader": name, "videos_per_s": round(VIDEOS / seconds), "gb_per_s": round(gigabytes / seconds, 3)}
        for name, seconds in best.items()
    ]
    if as_json:
        print(json.dumps({"machine": machine(), "rows": rows}))
        return
    widths = " + ".join(str(feature.size) for feature in SPEC.features)
    print(f"{VIDEOS} videos of {FRAMES} frames x ({widths}) bytes, batch {BATCH}, best of {ROUNDS}; {machine()}\n")
    print("| reader | videos/s | GB/s |\n|---|---|---|")
    for row in rows:
        print(f"| {row['reader']} | {row['videos_per_s']:,} | {row['gb_per_s']:.2f} |")
    print(f"\ntopgb reads {rows[0]['videos_per_s'] / rows[1]['videos_per_s']:.1f} x as fast as the tfrecord package")


if __name__ == "__main__":
    main()
