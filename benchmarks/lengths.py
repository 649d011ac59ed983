"""Memory of a process that predicts videos of many lengths and batches of many sizes, on a CPU.

    .venv/bin/python benchmarks/lengths.py [--only "netvlad;gated_dbof"] [--against ../earlier-checkout]

Float32 models of YouTube-8M's shape (`benchmarks/inference.py`) predict batches of 32 videos of each length from 60 to
299 frames, in random order, then batches of 1 to 32 videos of 8 lengths. MB of the whole process: after the first
batch, after the lengths, after the sizes, and after the C library gave back what is free (Linux with glibc); and how
long the lengths took. *command* makes the settings that commands make, *Python* is `topgb.load`. Each is a process of
its own. `--against` adds another checkout of topgb.
"""

import argparse
import ctypes
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from inference import written

from serving import machine, memory, serve, start

MODELS, WAYS = ("netvlad", "gated_dbof"), ("command", "Python")
FRAMES, LENGTHS, SIZES = 300, range(60, 300), range(1, 33)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=";".join(MODELS), help="models, separated by semicolons")
    parser.add_argument("--against", type=Path, help="another checkout of topgb besides, on the same files")
    parser.add_argument("--serve", nargs=2, metavar=("WAY", "FILE"), help="used by this script")
    options = parser.parse_args()
    if options.serve:
        serve_memory(*options.serve)
        return
    import torch

    checkouts = {"this": None} | ({"earlier": options.against.resolve() / "src"} if options.against else {})
    print(f"{machine()}, torch {torch.__version__}, 2 threads\n")
    print("| model | way | checkout | first batch, MB | 240 lengths | 32 sizes | given back | lengths, s |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only.split(";"):
            path = written(name, "float32", Path(folder))["topgb"]
            for way in WAYS:
                for checkout, source in checkouts.items():
                    arguments = ["--serve", way, str(path)]
                    server = start(sys.executable, Path(__file__), arguments, threads=2, source=source)
                    found = server.ask("measure")
                    server.stop()
                    megabytes = " | ".join(f"{value / 1e6:,.0f}" for value in found["bytes"])
                    print(f"| {name} | {way} | {checkout} | {megabytes} | {found['seconds']:.1f} |", flush=True)


def serve_memory(way: str, file: str) -> None:
    """Answer with the memory of this process at each stage, and the seconds that the lengths took."""
    import topgb

    if way == "command":
        from topgb.devices import keep_freed_memory
        from topgb.matmul_library import choose, use

        keep_freed_memory()
        with suppress(ImportError):
            from topgb.matmul_library import keep_few_products

            keep_few_products()
        use(choose().path)
    from topgb.modelfile import load

    model = load(file) if way == "command" else topgb.load(file).loaded
    random = np.random.default_rng(0)
    features = random.integers(0, 256, (max(SIZES), FRAMES, model.header.features.width), dtype=np.uint8)

    def predict(videos: int, frames: int) -> None:
        model.predict(np.ascontiguousarray(features[:videos, :frames]), np.full(videos, frames))

    def answer(_: str) -> dict:
        predict(max(SIZES), FRAMES)
        taken, began = [memory()], time.perf_counter()
        for frames in random.permutation(LENGTHS):
            predict(max(SIZES), frames)
        seconds = time.perf_counter() - began
        taken.append(memory())
        for videos in SIZES:
            for frames in LENGTHS[::30]:
                predict(videos, frames)
        taken.append(memory())
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
        return {"bytes": [*taken, memory()], "seconds": seconds}

    serve({}, answer)


if __name__ == "__main__":
    main()
