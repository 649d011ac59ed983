"""How fast videos become features, and in how much memory: the tables of docs/benchmarks.md.

    .venv/bin/python benchmarks/extract.py [--clips 110] [--minutes 60] [--only clips,readers,memory]

Three parts, on videos that are made for them in a temporary folder:

* `clips`: `topgb extract` of many small clips with one and two jobs, each in a folder of its own.
* `readers`: a minute of 720p and of 1080p on one thread, in all and for decoding alone, beside OpenCV's and decord's
  reading of one frame a second of the same file, where these are installed (`benchmarks/requirements.txt`). All but
  decoding is the difference, by vector.
* `memory`: the most memory of a process that extracts a minute, and of one that extracts `--minutes`.
"""

import argparse
import importlib.util
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from made_videos import write_video

from topgb.video.clock import Clock
from topgb.video.decoding import Decoding
from topgb.video.extract import extract_video
from topgb.video.extractors import find_extractor
from topgb.video.frames import looked_at, shown_frames
from topgb.video.opening import open_media, picture_stream

SIZES = {"720p30": (1280, 720), "1080p30": (1920, 1080)}
SCENE_SECONDS = 4
MEMORY = """
import re, sys
from topgb.video.extract import extract_video
from topgb.video.extractors import find_extractor
found = extract_video(sys.argv[1], find_extractor("default"))
# getrusage would count the parent's memory before the exec, too.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1)
print(found.seconds, int(peak) / 1024)
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--clips", type=int, default=110)
    arguments.add_argument("--minutes", type=int, default=60, help="length of the long video")
    arguments.add_argument("--only", default="clips,readers,memory", help="parts, with commas between them")
    chosen = arguments.parse_args()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    # The net for pictures is converted once in the life of a cache.
    find_extractor("default").prepare()
    parts: dict[str, Callable[[Path], None]] = {
        "clips": lambda folder: clips(folder, chosen.clips),
        "readers": readers,
        "memory": lambda folder: memory(folder, chosen.minutes),
    }
    with tempfile.TemporaryDirectory() as folder:
        for part in chosen.only.split(","):
            parts[part](Path(folder))


def clips(folder: Path, count: int) -> None:
    (folder / "clips").mkdir()
    for number in range(count):
        write_video(
            folder / "clips" / f"clip{number:03d}.mp4", (320, 240), 25, 4 + number % 4, 2, number, 200 + 10 * number
        )
    print("\n| clips | jobs | vectors | seconds | vectors/s | times one job |\n|---|---|---|---|---|---|", flush=True)
    first = 0.0
    for jobs in (1, 2):
        out = folder / f"out{jobs}"
        command = [sys.executable, "-m", "topgb", "extract", folder / "clips", "--out", out, "--jobs", str(jobs)]
        began = time.perf_counter()
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
        seconds = time.perf_counter() - began
        vectors = 0
        for path in (out / "features").glob("*.npz"):
            with np.load(path) as features:
                vectors += len(features["image"])
        first = first or seconds
        row = f"| {count} | {jobs} | {vectors:,} | {seconds:.1f} | {vectors / seconds:.0f} | {first / seconds:.2f} |"
        print(row, flush=True)
    same = all(
        path.read_bytes() == (folder / "out2" / path.relative_to(folder / "out1")).read_bytes()
        for path in (folder / "out1").rglob("*")
        if path.is_file()
    )
    print(f"\nfiles of both: {'equal to the byte' if same else 'DIFFERENT'}")


def readers(folder: Path) -> None:
    extractor = find_extractor("default")
    _ = extractor.nets
    print("\n| a minute of | reader | seconds | vectors or frames | all but decoding, ms a vector |")
    print("|---|---|---|---|---|", flush=True)
    for name, size in SIZES.items():
        path = write_video(folder / f"{name}.mp4", size, 30, SCENE_SECONDS, 60 // SCENE_SECONDS)
        decoding, _ = _timed(lambda path=path: _decoded(path))
        whole, found = _timed(lambda path=path: extract_video(str(path), extractor))
        vectors = len(found.arrays["image"])
        rest = (whole - decoding) / vectors * 1000
        print(f"| {name} | topgb, features | {whole:.2f} | {vectors} | {rest:.1f} |")
        print(f"| {name} | topgb, decoding alone | {decoding:.2f} | {vectors} | |", flush=True)
        for other, read in OTHERS.items():
            if importlib.util.find_spec(other) is not None:
                seconds, frames = _timed(lambda path=path, read=read: read(path))
                print(f"| {name} | {other} | {seconds:.2f} | {frames} | |", flush=True)


def memory(folder: Path, minutes: int) -> None:
    print("\n| video | seconds | most memory, MB |\n|---|---|---|", flush=True)
    for length in (1, minutes):
        repeats = length * 60 // SCENE_SECONDS
        path = write_video(folder / f"long{length}.mp4", (320, 240), 12, SCENE_SECONDS, repeats)
        done = subprocess.run([sys.executable, "-c", MEMORY, path], check=True, capture_output=True, text=True)
        seconds, most = map(float, done.stdout.split())
        assert seconds == 60 * length
        print(f"| {length} min | {seconds:.0f} | {most:.0f} |", flush=True)


def _decoded(path: Path) -> int:
    """Decode all pictures, and pick those of each second without doing anything with them."""
    with open_media(str(path)) as container:
        decoding, clock = Decoding(container, picture_stream(container)), Clock()
        decoding.pass_over(looked_at(clock, 1.0))
        return sum(count for _, count in shown_frames(decoding, clock, 1.0, 10_000))


def _opencv(path: Path) -> int:
    import cv2

    cv2.setNumThreads(1)
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    number = taken = 0
    while video.grab():
        if number % 30 == 0:
            taken += video.retrieve()[0]
        number += 1
    return taken


def _decord(path: Path) -> int:
    import decord

    video = decord.VideoReader(str(path), num_threads=1)
    for number in range(0, len(video), 30):
        video[number].asnumpy()
    return len(range(0, len(video), 30))


OTHERS: dict[str, Callable[[Path], int]] = {"cv2": _opencv, "decord": _decord}


def _timed(call: Callable) -> tuple[float, object]:
    began = time.perf_counter()
    found = call()
    return time.perf_counter() - began, found


if __name__ == "__main__":
    main()
