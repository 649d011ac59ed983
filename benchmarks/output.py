"""What writing costs beside predicting: videos a second of the model alone, and of distilling and predicting to files.

    .venv/bin/python benchmarks/output.py [--rounds 3]

Reading is in all figures. The model is the cheapest of its kind, so that writing has the hardest time: YouTube-8M's
video-level net on the real records, and a NetVLAD of 64 clusters on synthetic records of full length (300 frames).
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from commands import TRAIN, require_records

from topgb.devices import keep_freed_memory
from topgb.evaluation.distill import DistillOptions, distill, open_records, open_teacher
from topgb.evaluation.predict import CsvOptions, write_predictions
from topgb.evaluation.predictions import EVALUATION_BATCH
from topgb.features import YOUTUBE8M_CLASSES, YOUTUBE8M_FRAMES
from topgb.modelfile import Header, LoadedModel, Member, write_model_file
from topgb.modelfile.member import encode_member
from topgb.models import build_tagger, parse_model
from topgb.records.dataset import Dataset, evaluation_batches
from topgb.records.synth import SynthOptions, write_synthetic
from topgb.training.recipe import load_recipe

CPU = torch.device("cpu")
NETVLAD = {"aggregator": "netvlad", "clusters": {"rgb": 64, "audio": 32}, "hidden": 512, "head": {"name": "moe"}}
SYNTHETIC_VIDEOS = 1000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3, help="the median of so many (default 3)")
    rounds = arguments.parse_args().rounds
    require_records()
    keep_freed_memory()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}\n")
    print("| model | what | videos/s | of the model alone | bytes a video |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        recipe = load_recipe("yt8m-video")
        _model(base / "video.safetensors", recipe.data.spec(), recipe.model_section())
        _table("yt8m-video", base, base / "video.safetensors", TRAIN["yt8m"], rounds)
        write_synthetic(
            base / "frames",
            YOUTUBE8M_FRAMES,
            YOUTUBE8M_CLASSES,
            SYNTHETIC_VIDEOS,
            SynthOptions(videos_per_shard=250, frames=(300, 300)),
        )
        _model(base / "frames.safetensors", YOUTUBE8M_FRAMES, parse_model(NETVLAD))
        _table("NetVLAD, 300 frames", base, base / "frames.safetensors", f"{base}/frames/*.tfrecord", rounds)


def _model(path: Path, spec, config) -> None:
    torch.manual_seed(0)
    entries, tensors = encode_member(0, build_tagger(spec, YOUTUBE8M_CLASSES, config).state_dict())
    write_model_file(path, Header(spec, YOUTUBE8M_CLASSES, (Member(1.0, config),), entries), tensors)


def _table(name: str, base: Path, path: Path, pattern: str, rounds: int) -> None:
    model, identity = open_teacher(path, CPU)
    data, every_frame = open_records(model, pattern), open_records(model, pattern, score_format="tfrecord")
    out = base / "out"

    def scores(top_k: int | None = None) -> Callable[[], float]:
        return lambda: (
            distill(model, data, out / f"scores-{top_k}", CPU, identity, DistillOptions(top_k, force=True)).bytes
        )

    def rows() -> float:
        write_predictions(model, data, out / "rows.csv", CPU, CsvOptions(force=True))
        return (out / "rows.csv").stat().st_size

    ways: dict[str, Callable[[], float]] = {
        "the model alone": lambda: _predict(model, data),
        "distill, every class": scores(),
        "distill, the best 20": scores(20),
        "distill, copies of the records": lambda: (
            distill(
                model, every_frame, out / "copies", CPU, identity, DistillOptions(None, "tfrecord", force=True)
            ).bytes
        ),
        "predict, CSV": rows,
    }
    alone = None
    for way, work in ways.items():
        work()
        seconds = []
        for _ in range(rounds):
            began = time.perf_counter()
            size = work()
            seconds.append(time.perf_counter() - began)
        speed = data.num_records / statistics.median(seconds)
        alone = alone or speed
        print(f"| {name} | {way} | {speed:,.0f} | {speed / alone:.0%} | {size / data.num_records:,.0f} |", flush=True)


@torch.inference_mode()
def _predict(model: LoadedModel, data: Dataset) -> float:
    for batch in evaluation_batches(data, EVALUATION_BATCH):
        model.predict_batch(batch)
    return 0.0


if __name__ == "__main__":
    main()
