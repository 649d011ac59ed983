"""How fast frame-level records become a padded uint8 batch: topgb beside tf.data, the tfrecord package and protobuf.

    pip install -r benchmarks/requirements.txt
    .venv/bin/python benchmarks/read.py [--rounds 7] [--videos 512] [--json]

Every reader makes the same of the same records: each video's frames in its rows of a padded batch, ids, and labels as a
row of booleans; that the results are equal is checked before anything is timed. From the page cache, each reader in a
process of its own, all taking turns; medians of the rounds. Everything is read `--passes` times when asked once, so
that starting processes and threads does not count. First all are pinned to one core, then topgb (with and without
loader processes) and tf.data have all of them. "GB/s a core" is bytes for each second of processor time, user and
system, of all threads and processes of a reader: what it costs, however many cores it spreads over.

tf.data runs in `.venv-tensorflow`, which the first run makes (1.6 GB); its settings: benchmarks/tfdata_reader.py.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from readers import BATCH, CLASSES, FRAMES, SPEC

from serving import machine, own_environment, start
from topgb.records.synth import SynthOptions, write_synthetic

HERE = Path(__file__).parent
TENSORFLOW = ".venv-tensorflow", "requirements-tensorflow.txt"
SIZES = ",".join(f"{feature.name}={feature.size}" for feature in SPEC.features)
TFDATA = ("--sizes", SIZES, "--classes", str(CLASSES), "--frames", str(FRAMES), "--batch", str(BATCH))


@dataclass(frozen=True)
class Row:
    """A reader of the table; without `one_core` it has all cores."""

    name: str
    arguments: tuple[str, ...]
    crc: str
    one_core: bool = True
    tensorflow: bool = False


ROWS = (
    Row("topgb", ("topgb",), "yes"),
    Row("tf.data, record by record", ("--parse", "record"), "yes", tensorflow=True),
    Row("tf.data, vectorised", ("--parse", "batch"), "yes", tensorflow=True),
    Row("tfrecord 1.14.6", ("tfrecord",), "no"),
    Row("protobuf + join", ("protobuf",), "no"),
    Row("memcpy of the same bytes", ("memcpy",), ""),
    Row("topgb, one process", ("topgb",), "yes", one_core=False),
    Row("topgb, two loader processes", ("topgb", "--workers", "2"), "yes", one_core=False),
    Row("tf.data, record by record", ("--parse", "record"), "yes", one_core=False, tensorflow=True),
    Row("tf.data, vectorised", ("--parse", "batch"), "yes", one_core=False, tensorflow=True),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--videos", type=int, default=512)
    parser.add_argument("--passes", type=int, default=8)
    parser.add_argument("--no-tensorflow", action="store_true", help="leave tf.data out")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    rows = [row for row in ROWS if not (options.no_tensorflow and row.tensorflow)]
    with tempfile.TemporaryDirectory() as folder:
        write_synthetic(
            folder,
            SPEC,
            CLASSES,
            options.videos,
            SynthOptions(videos_per_shard=options.videos // 4, frames=(FRAMES, FRAMES)),
        )
        found = [
            *measured([row for row in rows if row.one_core], f"{folder}/*.tfrecord", options),
            *measured([row for row in rows if not row.one_core], f"{folder}/*.tfrecord", options),
        ]
    if options.json:
        print(json.dumps({"machine": machine(), "rows": found}))
        return
    widths = " + ".join(str(feature.size) for feature in SPEC.features)
    print(f"{options.videos} videos of {FRAMES} frames x ({widths}) bytes, batch {BATCH}, median of {options.rounds};")
    print(f"{machine()}\n")
    print("| reader | cores | CRC checked | GB/s | CPU-s a GB | GB/s a core | topgb's a core ÷ its |")
    print("|---|---|---|---|---|---|---|")
    for row in found:
        figures = [f"{row[key]:.2f}" for key in ("gb_per_s", "cpu_s_per_gb", "gb_per_s_per_core", "topgb_is_times")]
        print(f"| {row['reader']} | {row['cores']} | {row['crc']} | {' | '.join(figures)} |")


def measured(rows: list[Row], pattern: str, options: argparse.Namespace) -> list[dict]:
    """The figures of `rows`, the first of which is topgb's, on the records of `pattern`."""
    cores = sorted(os.sched_getaffinity(0))
    servers = []
    for row in rows:
        python = own_environment(*TENSORFLOW) if row.tensorflow else sys.executable
        script = HERE / ("tfdata_reader.py" if row.tensorflow else "readers.py")
        shared = [*TFDATA, *(["--one-core"] if row.one_core else [])] if row.tensorflow else []
        arguments = [pattern, *row.arguments, *shared, "--passes", str(options.passes)]
        servers.append(start(python, script, arguments, cores[-1] if row.one_core else None))
    assert len({server.hello["digest"] for server in servers} - {None}) == 1, "the readers read different things"
    times: list[list[dict[str, float]]] = [[] for _ in rows]
    for number in range(options.rounds + 1):
        for server, taken in zip(servers, times, strict=True):
            answer = server.ask()
            assert answer["frames"] == options.videos * FRAMES * options.passes
            # Warming up: tf.data looks for its degrees of parallelism while it reads.
            if number:
                taken.append({key: answer[key] / answer["frames"] for key in ("seconds", "cpu")})
    for server in servers:
        server.stop()
    gigabytes = SPEC.width / 1e9
    cpu = [statistics.median(one["cpu"] for one in taken) / gigabytes for taken in times]
    return [
        {
            "reader": row.name,
            "cores": 1 if row.one_core else len(cores),
            "crc": row.crc,
            "gb_per_s": gigabytes / statistics.median(one["seconds"] for one in taken),
            "cpu_s_per_gb": used,
            "gb_per_s_per_core": 1 / used,
            "topgb_is_times": used / cpu[0],
        }
        for row, taken, used in zip(rows, times, cpu, strict=True)
    ]


if __name__ == "__main__":
    main()
