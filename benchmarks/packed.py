"""Speed and memory of quantised model files: a NetVLAD of more than 100 million weights on a CPU, two threads.

    .venv/bin/python benchmarks/packed.py [--clusters 256] [--hidden 1024] [--rounds 3] [--only "float32;int8"]
        [--folder DIR]

The model is NetVLAD with 256 clusters (128 of the audio) on 1024 + 128 bytes a frame, 300 frames a video, 1,024
hidden units with context gating, MoE of two mixtures, 3,862 classes: nearly the recipe netvlad1, its weights random.
It is written as float32 and quantised to each kind of file. Each row is measured in processes of its own, one a
round, the rows taking turns; milliseconds are the least of the rounds' medians. `growth` is the resident memory after
loading and predicting one video, less that of a process that has only imported torch, over the file's size; `peak`
the same of the most that it ever was. `rebuilt` makes float32 weights of the codebook's codes on every call, as the
2018 graph does, though with the fastest lookup PyTorch has.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from serving import memory

VIDEOS = (1, 8, 32, 128)
THREADS = 2
# Name, file, resident.
ROWS = (
    ("float32", "float32", "full"),
    ("float32, half", "float32", "half"),
    ("int8", "int8", "packed"),
    ("int8, half", "int8", "half"),
    ("int8, full", "int8", "full"),
    ("uniform codebook", "uniform", "packed"),
    ("k-means codebook", "kmeans", "packed"),
    ("4 bits in groups", "int4", "packed"),
    ("3 bits, entropy-coded", "entropy", "packed"),
    ("rebuilt", "kmeans", "rebuilt"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clusters", type=int, default=256, help="of the frames' bytes; audio has half of them")
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="rows, separated by semicolons")
    parser.add_argument("--folder", type=Path, help="where the files are kept for the next time  [default: nowhere]")
    parser.add_argument(
        "--measure", nargs=2, metavar=("FILE", "RESIDENT"), help="one row, as JSON; used by this script"
    )
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(Path(options.measure[0]), options.measure[1])))
        return
    chosen = [name.strip() for name in options.only.split(";") if name.strip()]
    rows = [row for row in ROWS if not chosen or row[0] in chosen]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        weights = write_files(folder, options.clusters, options.hidden, {file for _, file, _ in rows})
        found: dict[str, list[dict]] = {name: [] for name, _, _ in rows}
        for _ in range(options.rounds):
            for name, file, resident in rows:
                command = [sys.executable, __file__, "--measure", str(folder / f"{file}.safetensors"), resident]
                run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found[name].append(json.loads(run.stdout))
    print(f"{_machine()}, torch {torch.__version__}, {THREADS} threads, {weights / 1e6:.1f} million weights\n")
    titles = [
        "",
        "MB",
        "load s",
        "first ms",
        *(f"B = {b} ms" for b in VIDEOS),
        "float32's B = 1 / its",
        "growth",
        "peak",
    ]
    print("| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
    reference = found.get("float32")
    for name, runs in found.items():
        print(f"| {name} | " + " | ".join(cells(runs, reference)) + " |")
    if "rebuilt" in found and "k-means codebook" in found:
        ratio = _least(found["rebuilt"], "1") / _least(found["k-means codebook"], "1")
        print(
            f"\nPacked, the codebook file is {ratio:.0f} times as fast as with float32 weights rebuilt on every call."
        )


def cells(runs: list[dict], reference: list[dict] | None) -> list[str]:
    """A row's cells behind its name."""
    figures = [f"{runs[0]['bytes'] / 1e6:.0f}", f"{_least(runs, 'load'):.2f}", f"{_least(runs, 'first'):.0f}"]
    figures += [f"{_least(runs, str(b)):.1f}" if str(b) in runs[0] else "" for b in VIDEOS]
    figures.append("" if reference is None else f"{_least(reference, '1') / _least(runs, '1'):.2f}")
    return figures + [f"{statistics.median(run[key] / run['bytes'] for run in runs):.2f}" for key in ("growth", "peak")]


def write_files(folder: Path, clusters: int, hidden: int, files: set[str]) -> int:
    """Write those model files that `folder` has not; the number of the model's weights."""
    from topgb.features import YOUTUBE8M_CLASSES, YOUTUBE8M_FRAMES
    from topgb.modelfile import Header, Member, write_model_file
    from topgb.modelfile.member import encode_member
    from topgb.models import build_tagger, parse_model
    from topgb.quantizing.quantize import QuantizeOptions, quantize_file

    by_feature = {"rgb": clusters, "audio": clusters // 2}
    section = {"aggregator": "netvlad", "clusters": by_feature, "hidden": hidden, "relu": False}
    config = parse_model({**section, "gating": True, "head": {"name": "moe", "mixtures": 2}})
    torch.manual_seed(0)
    tagger = build_tagger(YOUTUBE8M_FRAMES, YOUTUBE8M_CLASSES, config)
    plain = folder / "float32.safetensors"
    if not plain.exists():
        entries, tensors = encode_member(0, tagger.state_dict())
        header = Header(YOUTUBE8M_FRAMES, YOUTUBE8M_CLASSES, (Member(1.0, config),), entries)
        write_model_file(plain, header, tensors)
    for method in sorted(files - {"float32"}):
        out = folder / f"{method}.safetensors"
        if not out.exists():
            print(f"quantising: {method}", file=sys.stderr)
            quantize_file(plain, out, QuantizeOptions(method))
    return sum(parameter.numel() for parameter in tagger.parameters())


def measured(path: Path, resident: str) -> dict[str, float]:
    """Bytes, seconds and milliseconds of one row in this process, which has only imported torch so far."""
    torch.set_num_threads(THREADS)
    before = memory("VmRSS")
    import topgb
    from topgb.batch import Batch

    began = time.perf_counter()
    model = topgb.load(path, resident="full" if resident == "rebuilt" else resident)
    figures = {"bytes": path.stat().st_size, "load": time.perf_counter() - began}
    if resident == "rebuilt":
        rebuild_every_call(model, path)
    width = model.header.features.width
    for videos in VIDEOS if resident != "rebuilt" else (1,):
        features = torch.randint(0, 256, (videos, 300, width), dtype=torch.uint8)
        batch = Batch([str(i) for i in range(videos)], features, torch.full((videos,), 300, dtype=torch.int32))
        taken = []
        # What a small batch takes is little and soon over, so it is taken more often.
        for _ in range(3 if resident == "rebuilt" else max(4, 24 // videos)):
            began = time.perf_counter()
            model.predict_batch(batch)
            taken.append(1000 * (time.perf_counter() - began))
        if videos == 1:
            figures |= {"first": taken[0], "growth": memory("VmRSS") - before, "peak": memory("VmHWM") - before}
        figures[str(videos)] = statistics.median(taken[1:])
    return figures


def rebuild_every_call(model: torch.nn.Module, path: Path) -> None:
    """Put codes and codebook in the place of each quantised linear layer that is called."""
    from topgb.tensors import load_tensors

    class Rebuilt(torch.nn.Module):
        def __init__(self, codes: torch.Tensor, book: torch.Tensor, bias: torch.Tensor | None):
            super().__init__()
            self.codes, self.book, self.bias = codes, book[:, None], bias

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            weight = torch.nn.functional.embedding(self.codes.int(), self.book).view(self.codes.shape)
            return torch.nn.functional.linear(inputs, weight, self.bias)

    stored, _ = load_tensors(path)
    for name, module in list(model.named_modules()):
        if type(module) is torch.nn.Linear and f"{name}.weight.codes" in stored:
            parent, _, child = name.rpartition(".")
            codes, book = stored[f"{name}.weight.codes"], stored[f"{name}.weight.codebook"]
            model.get_submodule(parent)._modules[child] = Rebuilt(codes, book, module.bias)


def _least(runs: list[dict], key: str) -> float:
    return min(run[key] for run in runs)


def _machine() -> str:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return f"{names[0] if names else platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


if __name__ == "__main__":
    main()
