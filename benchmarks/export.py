"""What exported files cost: bytes, time to open, resident memory, and milliseconds a video, beside topgb itself.

    .venv/bin/python benchmarks/export.py [--threads 1]

The model is the NetVLAD of docs/benchmarks.md (64 clusters, 512 hidden, MoE-2, 3,862 classes) with random weights. Each
figure is of a fresh process, which for exported files has no topgb.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from topgb.features import YOUTUBE8M_FRAMES
from topgb.modelfile import Header, Member, write_model_file
from topgb.modelfile.export import export_model
from topgb.modelfile.member import encode_member
from topgb.models import build_tagger, parse_model
from topgb.quantizing.schemes import Scheme, encode

SECTION = {"aggregator": "netvlad", "clusters": {"rgb": 64, "audio": 32}, "hidden": 512, "head": "moe"}
SCHEMES = {
    "float32": None,
    "codebook": Scheme("uniform"),
    "int8": Scheme("int8"),
    "groups, 4 bits": Scheme("groups", 4),
}
WAYS = ("topgb", "onnx", "pt2", "pt2, decoded once")

RUNNER = """
import json, sys, time
way, path, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
if way != "topgb":
    sys.modules["topgb"] = None
import numpy as np, torch
torch.set_num_threads(threads)
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
if way == "onnx":
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
if way == "topgb":
    import topgb
if way.startswith("pt2"):
    from torch._inductor.constant_folding import constant_fold
before, began = resident(), time.perf_counter()
if way == "onnx":
    session = onnxruntime.InferenceSession(path, options)
    predict = lambda features, counts: session.run(None, {"features": features, "num_frames": counts})
elif way == "topgb":
    predict = topgb.load(path).predict
else:
    program = torch.export.load(path).module()
    if way != "pt2":
        constant_fold(program)
    predict = lambda features, counts: program(torch.from_numpy(features), torch.from_numpy(counts))
opened = time.perf_counter() - began
figures = {"open": opened}
for videos in (1, 32):
    features = np.random.default_rng(0).integers(0, 256, (videos, 300, 1152), dtype=np.uint8)
    counts = np.full(videos, 300)
    best = 1e9
    for _ in range(4):
        began = time.perf_counter()
        with torch.no_grad():
            predict(features, counts)
        best = min(best, time.perf_counter() - began)
    figures[f"batch {videos}"] = 1000 * best / videos
    if videos == 1:
        figures["resident"] = resident() - before
print(json.dumps(figures))
"""


def write(path: Path, scheme: Scheme | None) -> None:
    torch.manual_seed(0)
    tagger = build_tagger(YOUTUBE8M_FRAMES, 3862, parse_model(SECTION))
    entries, tensors = encode_member(0, tagger.state_dict())
    for name, entry in list(entries.items()):
        if scheme is not None and len(entry.shape) > 1:
            entries[name], parts = encode(tensors.pop(name), scheme)
            tensors |= {name + suffix: part for suffix, part in parts.items()}
    write_model_file(path, Header(YOUTUBE8M_FRAMES, 3862, (Member(1.0, tagger.config),), entries), tensors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    threads = parser.parse_args().threads
    print("| encoding | run by | bytes | opened in, s | resident, MB | ms a video, batch 1 | batch 32 |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, scheme in SCHEMES.items():
            model = Path(folder) / "model.safetensors"
            files = {"topgb": model, "onnx": model.with_suffix(".onnx"), "pt2": model.with_suffix(".pt2")}
            model.unlink(missing_ok=True)
            write(model, scheme)
            for to in ("onnx", "pt2"):
                export_model(model, files[to], to, force=True)
            for way in WAYS:
                file = files[way.split(",")[0]]
                command = [sys.executable, "-c", RUNNER, way, str(file), str(threads)]
                found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                row = [name, way, f"{file.stat().st_size:,}", f"{found['open']:.1f}", f"{found['resident'] / 1e6:,.0f}"]
                row += [f"{found['batch 1']:.0f}", f"{found['batch 32']:.1f}"]
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
