"""Videos a second of a model file run by topgb, beside its export run by ONNX Runtime, on a CPU.

    .venv/bin/python benchmarks/inference.py [--only "netvlad;bilstm"] [--threads 2] [--compiled] [--seconds 0.3]
        [--videos 1,32] [--against ../earlier-checkout]

Random weights, random stored features of full length; the ONNX file is what `topgb model export` makes of the model
file. Both get the same arrays and the same number of threads, each in a process of its own that opens its file once;
they take turns, and a figure is the median over the rounds of each round's median call. Before that the probabilities
are compared: they may differ by 1e-4, and by 6e-3 with int8, where topgb rounds a small batch's inputs and products to
bfloat16 (docs/export.md).
`--compiled` adds the model file run by topgb through `torch.compile`, in float32; it needs a C++ compiler, and minutes.
`--against` adds the same file run by another checkout of topgb (`git worktree add ../earlier-checkout COMMIT`).
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from serving import machine, serve, start

BAG = {"clusters": {"rgb": 1024, "audio": 128}, "hidden": 1024, "relu": False}
MOE = {"name": "moe", "mixtures": 2}
# Of YouTube-8M's shape, as in benchmarks/models.py; the others are shipped recipes.
SECTIONS = {
    "netvlad": {"aggregator": "netvlad", "clusters": {"rgb": 64, "audio": 32}, "hidden": 512, "head": MOE},
    "gated_dbof": {"aggregator": "gated_dbof", "gated": ["rgb"], **BAG, "head": MOE},
    "bilstm": {"aggregator": "bilstm", "cells": 512, "head": "logistic"},
}
RECIPES = ("audioset-netvlad", "yt8m-video")
# And what probabilities may differ by.
ENCODINGS = {"float32": 1e-4, "int8": 6e-3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="models, separated by semicolons")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="least time of a figure in a round")
    parser.add_argument("--threads", default="2", help="numbers of threads, separated by commas")
    parser.add_argument("--compiled", action="store_true", help="topgb through torch.compile besides, float32 alone")
    parser.add_argument("--videos", default="1,32", help="sizes of batches, separated by commas")
    parser.add_argument("--against", type=Path, help="another checkout of topgb besides, on the same files")
    parser.add_argument("--serve", nargs=3, metavar=("WAY", "FILE", "THREADS"), help="used by this script")
    options = parser.parse_args()
    if options.serve:
        way, path, threads = options.serve
        serve_calls(way, Path(path), int(threads), sizes(options))
        return
    chosen = [name.strip() for name in options.only.split(";") if name.strip()] or [*SECTIONS, *RECIPES]
    import onnxruntime
    import torch

    print(f"{machine()}, torch {torch.__version__}, ONNX Runtime {onnxruntime.__version__}\n")
    besides = [way for way, asked in (("compiled", options.compiled), ("earlier", options.against)) if asked]
    more = "".join(f" {way} videos/s | topgb ÷ {way} |" for way in besides)
    print(f"| model | encoding | batch | threads | topgb videos/s | ONNX Runtime videos/s | topgb ÷ it |{more}")
    print("|---|---|---|---|---|---|---|" + "---|---|" * len(besides))
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            for encoding in ["float32"] if options.compiled else ENCODINGS:
                files = written(name, encoding, Path(folder))
                files |= dict.fromkeys(besides, files["topgb"])
                for threads in map(int, options.threads.split(",")):
                    for row in rows(files, threads, ENCODINGS[encoding], options):
                        print(f"| {name} | {encoding} | {' | '.join(row)} |", flush=True)


def sizes(options: argparse.Namespace) -> list[int]:
    return [int(videos) for videos in options.videos.split(",")]


def rows(files: dict[str, Path], threads: int, tolerance: float, options: argparse.Namespace) -> list[list[str]]:
    """The cells behind model and encoding, for each size of batch."""
    servers = {
        way: start(
            sys.executable,
            Path(__file__),
            ["--serve", way, str(path), str(threads), "--videos", options.videos],
            threads=threads,
            source=options.against.resolve() / "src" if way == "earlier" else None,
        )
        for way, path in files.items()
    }
    found = []
    for videos in sizes(options):
        outputs = [np.load(server.ask(f"check {videos}")["file"]) for server in servers.values()]
        for output in outputs[1:]:
            np.testing.assert_allclose(output, outputs[0], rtol=0, atol=tolerance)
        speeds: dict[str, list[float]] = {way: [] for way in servers}
        for _ in range(options.rounds):
            for way, server in servers.items():
                speeds[way].append(videos / server.ask(f"time {videos} {options.seconds}")["seconds"])
        ours, theirs, *besides = (statistics.median(of_rounds) for of_rounds in speeds.values())
        row = [str(videos), str(threads), f"{ours:,.1f}", f"{theirs:,.1f}", f"{ours / theirs:.2f}"]
        found.append(row + [cell for speed in besides for cell in (f"{speed:,.1f}", f"{ours / speed:.2f}")])
    for server in servers.values():
        server.stop()
    return found


def written(name: str, encoding: str, folder: Path) -> dict[str, Path]:
    """The model file and its export, by what runs them."""
    import torch

    from topgb.features import YOUTUBE8M_CLASSES, YOUTUBE8M_FRAMES
    from topgb.modelfile import Header, Member, write_model_file
    from topgb.modelfile.export import export_model
    from topgb.modelfile.member import encode_member
    from topgb.models import build_tagger, parse_model
    from topgb.quantizing.quantize import QuantizeOptions, quantize_file
    from topgb.training.recipe import load_recipe

    if name in SECTIONS:
        spec, classes, config = YOUTUBE8M_FRAMES, YOUTUBE8M_CLASSES, parse_model(SECTIONS[name])
    else:
        recipe = load_recipe(name)
        spec, classes, config = recipe.data.spec(), recipe.data.classes, recipe.model_section()
    path = folder / f"{name}-{encoding}.safetensors"
    torch.manual_seed(0)
    entries, tensors = encode_member(0, build_tagger(spec, classes, config).state_dict())
    write_model_file(path, Header(spec, classes, (Member(1.0, config),), entries), tensors)
    if encoding != "float32":
        quantize_file(path, path, QuantizeOptions(encoding), force=True)
    export_model(path, path.with_suffix(".onnx"), "onnx")
    return {"topgb": path, "onnx": path.with_suffix(".onnx")}


def serve_calls(way: str, path: Path, threads: int, videos_at_once: list[int]) -> None:
    """Answer `check VIDEOS` with a file of probabilities and `time VIDEOS SECONDS` with the seconds of a call."""
    import topgb

    model = topgb.load(path.with_suffix(".safetensors"))
    spec = model.header.features
    frames = model.max_frames if spec.level == "frame" else 1
    if way != "onnx":
        import torch

        from topgb.devices import keep_freed_memory

        keep_freed_memory()
        torch.set_num_threads(threads)
        predict = model.predict
    else:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])

        def predict(features: np.ndarray, counts: np.ndarray) -> np.ndarray:
            return session.run(None, {"features": features, "num_frames": counts})[0]

    def arrays(videos: int) -> tuple[np.ndarray, np.ndarray]:
        generator, shape = np.random.default_rng(0), (videos, frames, spec.width)
        features = generator.integers(0, 256, shape, dtype=np.uint8)
        if not spec.all_bytes:
            features = generator.standard_normal(shape, dtype=np.float32)
        return features, np.full(videos, frames)

    if way == "compiled":
        # The first call of each size measures memory in a way that torch.compile would fall back from.
        for videos in videos_at_once:
            model.predict(*arrays(videos))
        for member in model.loaded.members:
            member.compile(dynamic=False)

    def answer(question: str) -> dict:
        kind, videos, *least = question.split()
        features, counts = arrays(int(videos))
        if kind == "check":
            file = path.with_name(f"{path.name}-{way}.npy")
            np.save(file, predict(features, counts))
            return {"file": str(file)}
        taken: list[float] = []
        while len(taken) < 3 or sum(taken) < float(least[0]):
            began = time.perf_counter()
            predict(features, counts)
            taken.append(time.perf_counter() - began)
        return {"seconds": statistics.median(taken)}

    serve({}, answer)


if __name__ == "__main__":
    main()
