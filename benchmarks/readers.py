"""The readers of benchmarks/read.py that run in topgb's environment; it runs each in a process of its own.

.venv/bin/python benchmarks/readers.py 'records/*.tfrecord' topgb [--workers 2] [--passes 16]
"""

import argparse
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from serving import Arrays, serve_reader
from topgb.batch import Batch
from topgb.features import YOUTUBE8M_CLASSES, YOUTUBE8M_FRAMES, YOUTUBE8M_MAX_FRAMES, Feature
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.protos import SequenceExample
from topgb.records.sampling import EVERY_FRAME
from topgb.records.shards import find_shards, open_shard
from topgb.records.training_batches import TrainingBatches, load_batches

BATCH = 64
SPEC = YOUTUBE8M_FRAMES
CLASSES = YOUTUBE8M_CLASSES
FRAMES = YOUTUBE8M_MAX_FRAMES
# Id, labels and, for each feature, an array [N, size].
Video = tuple[bytes, Iterable[int], list[np.ndarray]]


def topgb_batches(pattern: str) -> Iterator[Batch]:
    """Every CRC checked, files opened anew."""
    return evaluation_batches(open_dataset(pattern, SPEC, CLASSES, FRAMES), BATCH)


def worker_batches(pattern: str, workers: int, passes: int) -> Iterator[Batch]:
    """The same by loader processes, in the shuffled order of `passes` epochs of training."""
    batches = TrainingBatches(open_dataset(pattern, SPEC, CLASSES, FRAMES), BATCH, 0, EVERY_FRAME)
    return (batch for batch, _ in load_batches(batches, range(passes * len(batches)), workers))


def tfrecord_videos(pattern: str) -> Iterator[Video]:
    """The package's own loader; it checks no CRC."""
    from tfrecord.reader import sequence_loader

    context = {"id": "byte", "labels": "int"}
    for shard in find_shards(pattern):
        for found, features in sequence_loader(shard.path, None, context, {f.name: "byte" for f in SPEC.features}):
            arrays = [join(features[feature.name], feature) for feature in SPEC.features]
            yield bytes(found["id"]), found["labels"], arrays


def protobuf_videos(pattern: str) -> Iterator[Video]:
    """protobuf's C decoder, then one join of each feature's frames; no CRC is checked."""
    for shard in find_shards(pattern):
        opened = open_shard(shard)
        for record in range(len(opened)):
            message = SequenceExample.FromString(opened.data(record))
            context, lists = message.context.feature, message.feature_lists.feature_list
            arrays = [
                join([frame.bytes_list.value[0] for frame in lists[feature.name].feature], feature)
                for feature in SPEC.features
            ]
            yield context["id"].bytes_list.value[0], context["labels"].int64_list.value, arrays


def join(frames: list[bytes], feature: Feature) -> np.ndarray:
    """A feature's frames as one array [N, size]."""
    return np.frombuffer(b"".join(frames), np.uint8).reshape(-1, feature.size)


def filled_batches(videos: Iterator[Video]) -> Iterator[Arrays]:
    """Each video's features copied into its rows of a padded batch, as topgb does."""
    ids: list[str] = []
    for name, classes, arrays in videos:
        if not ids:
            batch = np.empty((BATCH, FRAMES, SPEC.width), np.uint8)
            counts, labels = np.zeros(BATCH, np.int32), np.zeros((BATCH, CLASSES), np.bool_)
        row, count = len(ids), len(arrays[0])
        for feature, array in zip(SPEC.features, arrays, strict=True):
            batch[row, :count, SPEC.columns(feature.name)] = array
        batch[row, count:] = 0
        counts[row] = count
        labels[row, list(classes)] = True
        ids.append(name.decode())
        if len(ids) == BATCH:
            yield ids, batch, counts, labels
            ids = []
    if ids:
        yield ids, batch[: len(ids)], counts[: len(ids)], labels[: len(ids)]


def memcpy(source: np.ndarray, videos: int) -> int:
    """The same bytes, batch by batch into fresh buffers: the least that any reader does."""
    for start in range(0, videos, BATCH):
        np.copyto(np.empty((BATCH, FRAMES, SPEC.width), np.uint8), source[start : start + BATCH])
    return videos * FRAMES


def arrays_of(batches: Iterator[Batch]) -> Iterator[Arrays]:
    for batch in batches:
        assert batch.labels is not None
        yield batch.ids, batch.features.numpy(), batch.num_frames.numpy(), batch.labels.numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern")
    parser.add_argument("reader", choices=["topgb", "tfrecord", "protobuf", "memcpy"])
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--passes", type=int, default=1, help="how often everything is read when asked once")
    options = parser.parse_args()
    pattern, passes = options.pattern, options.passes
    torch.set_num_threads(1)
    if options.reader == "memcpy":
        videos = open_dataset(pattern, SPEC, CLASSES, FRAMES).num_records
        source = np.random.default_rng(0).integers(0, 256, (videos, FRAMES, SPEC.width), np.uint8)
        serve_reader(lambda: sum(memcpy(source, videos) for _ in range(passes)), None)
    elif options.reader == "topgb" and options.workers:
        serve_reader(
            lambda: sum(int(batch.num_frames.sum()) for batch in worker_batches(pattern, options.workers, passes)),
            lambda: arrays_of(worker_batches(pattern, options.workers, 1)),
        )
    elif options.reader == "topgb":
        serve_reader(
            lambda: sum(int(batch.num_frames.sum()) for _ in range(passes) for batch in topgb_batches(pattern)),
            lambda: arrays_of(topgb_batches(pattern)),
        )
    else:
        videos_of = tfrecord_videos if options.reader == "tfrecord" else protobuf_videos
        serve_reader(
            lambda: sum(
                int(counts.sum()) for _ in range(passes) for _, _, counts, _ in filled_batches(videos_of(pattern))
            ),
            lambda: filled_batches(videos_of(pattern)),
        )


if __name__ == "__main__":
    main()
