"""Frame-level records through tf.data into padded uint8 batches, as benchmarks/read.py runs it.

    .venv-tensorflow/bin/python benchmarks/tfdata_reader.py 'records/*.tfrecord' --sizes rgb=1024,audio=128
        --classes 3862 --frames 300 --batch 64 [--parse record|batch] [--one-core] [--passes 1]

As https://www.tensorflow.org/guide/data_performance recommends: files interleaved, records mapped and batches made
ahead, each with as many parallel calls as tf.data finds best (AUTOTUNE), in any order. `--parse batch` is its
vectorised mapping: one call parses a batch of records; `--parse record` parses each in a call of its own and took three
quarters of the processor time. With `--one-core` there is nothing to run in parallel, and leaving all of that out was a
twentieth faster.

Also tried, none faster: frames joined to one string before `decode_raw`, features joined before it, padding with empty
strings, `padded_batch` in place of `pad`, read buffers of 8 MB, `batch` with parallel calls, glibc's thresholds set so
that freed memory is kept.
"""

import argparse
from collections.abc import Iterator

import tensorflow as tf

from serving import Arrays, serve_reader

AUTOTUNE = tf.data.AUTOTUNE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern")
    parser.add_argument("--sizes", required=True, help="the features and their bytes a frame")
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--frames", type=int, required=True, help="rows of a video in the batch")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--parse", choices=["record", "batch"], default="record")
    parser.add_argument("--one-core", action="store_true")
    parser.add_argument("--passes", type=int, default=1, help="how often everything is read when asked once")
    options = parser.parse_args()
    if options.one_core:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    once, all_passes = batches(options, 1), batches(options, options.passes)

    def read() -> int:
        return sum(int(tf.reduce_sum(counts)) for _, _, counts, _ in all_passes)

    def arrays() -> Iterator[Arrays]:
        for ids, *others in once:
            yield [name.decode() for name in ids.numpy()], *(tensor.numpy() for tensor in others)

    serve_reader(read, arrays)


def batches(options: argparse.Namespace, passes: int) -> tf.data.Dataset:
    """Ids, features uint8 [B, T, D], frames of each, labels bool [B, V]."""
    sizes = {name: int(size) for name, size in (part.split("=") for part in options.sizes.split(","))}
    context = {"id": tf.io.FixedLenFeature([], tf.string), "labels": tf.io.VarLenFeature(tf.int64)}
    lists = {name: tf.io.FixedLenSequenceFeature([], tf.string) for name in sizes}

    def parsed_batch(records: tf.Tensor) -> tuple[tf.Tensor, ...]:
        found, frames, counts = tf.io.parse_sequence_example(records, context, lists)
        decoded = [tf.io.decode_raw(frames[name], tf.uint8, fixed_length=size) for name, size in sizes.items()]
        labels = found["labels"]
        places = tf.stack([labels.indices[:, 0], labels.values], 1)
        return found["id"], tf.concat(decoded, 2), counts[next(iter(sizes))], hits(places, labels.dense_shape[:1])

    def parsed_record(record: tf.Tensor) -> tuple[tf.Tensor, ...]:
        found, frames = tf.io.parse_single_sequence_example(record, context, lists)
        joined = tf.concat([tf.io.decode_raw(frames[name], tf.uint8) for name in sizes], 1)
        joined = tf.ensure_shape(joined, [None, sum(sizes.values())])
        count = tf.shape(joined)[0]
        padded = tf.pad(joined, [[0, options.frames - count], [0, 0]])
        return found["id"], padded, count, hits(found["labels"].values[:, None], [])

    def hits(places: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        shape = tf.concat([tf.cast(rows, tf.int64), [options.classes]], 0)
        return tf.scatter_nd(places, tf.ones_like(places[:, 0], tf.uint8), shape) > 0

    parallel = {} if options.one_core else {"num_parallel_calls": AUTOTUNE, "deterministic": False}
    files = tf.data.Dataset.list_files(options.pattern, shuffle=False).repeat(passes)
    cycle = {"cycle_length": 1} if options.one_core else {}
    records = files.interleave(tf.data.TFRecordDataset, **cycle, **parallel)
    if options.parse == "batch":
        dataset = records.batch(options.batch).map(parsed_batch, **parallel)
    else:
        dataset = records.map(parsed_record, **parallel).batch(options.batch)
    settings = tf.data.Options()
    settings.deterministic = False
    if options.one_core:
        settings.threading.private_threadpool_size = 1
        settings.threading.max_intra_op_parallelism = 1
    else:
        dataset = dataset.prefetch(AUTOTUNE)
    return dataset.with_options(settings)


if __name__ == "__main__":
    main()
