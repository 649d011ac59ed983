"""Videos a second of `topgb eval`, whole, and of its parts alone: reading, the model, the metrics.

    .venv/bin/python benchmarks/evaluation.py [--videos 2000] [--rounds 3]

Random weights. Synthetic records of YouTube-8M's shape, 300 frames each, and the real records where they are there.
The model alone has its batches in memory already, the metrics theirs of probabilities and labels. Medians of rounds in
which the parts take turns. "÷ slowest" is the whole's videos/s over the slowest part's, "÷ sum" over what the parts
would make one after another. The command is the wall clock of a whole process, from its start to its last figure.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from commands import TRAIN, topgb

from serving import machine
from topgb.devices import keep_freed_memory
from topgb.evaluation.metrics import Metrics
from topgb.evaluation.opening import open_for
from topgb.evaluation.predictions import EVALUATION_BATCH, finite_predictions
from topgb.evaluation.score import evaluate
from topgb.features import YOUTUBE8M_CLASSES, YOUTUBE8M_FRAMES, FeatureSpec
from topgb.modelfile import Header, LoadedModel, Member, load, write_model_file
from topgb.modelfile.member import encode_member
from topgb.models import build_tagger, parse_model
from topgb.models.config import ModelConfig
from topgb.records.dataset import evaluation_batches
from topgb.records.synth import SynthOptions, write_synthetic
from topgb.training.recipe import load_recipe

CPU = torch.device("cpu")
PARTS = ("reading", "model", "metrics", "whole")
SECTIONS = {
    "mean of the frames, MLP": {"aggregator": "average", "head": {"name": "mlp", "width": 1024}},
    "netvlad": {
        "aggregator": "netvlad",
        "clusters": {"rgb": 64, "audio": 32},
        "hidden": 512,
        "head": {"name": "moe", "mixtures": 2},
    },
    "gated_dbof": {
        "aggregator": "gated_dbof",
        "gated": ["rgb"],
        "clusters": {"rgb": 1024, "audio": 128},
        "hidden": 1024,
        "relu": False,
        "head": {"name": "moe", "mixtures": 2},
    },
}
RECIPES = {"yt8m": ("yt8m-video",), "audioset": ("audioset-dbof", "audioset-netvlad")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=2000, help="synthetic ones")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    keep_freed_memory()
    print(f"{machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads, batch {EVALUATION_BATCH}\n")
    print("| records | model | " + " | ".join(PARTS) + " | ÷ slowest | ÷ sum | the command |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        pattern = f"{folder}/*.tfrecord"
        write_synthetic(
            folder,
            YOUTUBE8M_FRAMES,
            YOUTUBE8M_CLASSES,
            options.videos,
            SynthOptions(videos_per_shard=250, frames=(300, 300)),
        )
        for name, section in SECTIONS.items():
            path = written(Path(folder), YOUTUBE8M_FRAMES, YOUTUBE8M_CLASSES, parse_model(section))
            row("synthetic, 300 frames", name, path, pattern, options.rounds)
        for records, recipes in RECIPES.items():
            if not Path(TRAIN[records]).parent.is_dir():
                print(f"the real records of {records} are absent: no row", file=sys.stderr)
                continue
            for name in recipes:
                recipe = load_recipe(name)
                path = written(Path(folder), recipe.data.spec(), recipe.data.classes, recipe.model_section())
                row(Path(TRAIN[records]).parent.parent.name, name, path, TRAIN[records], options.rounds)


def written(folder: Path, spec: FeatureSpec, classes: int, config: ModelConfig) -> Path:
    torch.manual_seed(0)
    entries, tensors = encode_member(0, build_tagger(spec, classes, config).state_dict())
    path = folder / "model.safetensors"
    write_model_file(path, Header(spec, classes, (Member(1.0, config),), entries), tensors, force=True)
    return path


def row(records: str, name: str, path: Path, pattern: str, rounds: int) -> None:
    """Measure one model on one set of records, and print the row."""
    model = load(path)
    taken: dict[str, list[float]] = {part: [] for part in PARTS}
    commands = []
    work = works(model, pattern)
    for number in range(rounds + 1):
        for part in PARTS:
            began = time.perf_counter()
            work[part]()
            if number:
                taken[part].append(time.perf_counter() - began)
        if number:
            began = time.perf_counter()
            topgb("eval", path, pattern, "--json")
            commands.append(time.perf_counter() - began)
    videos = open_for(model, pattern).num_records
    seconds = {part: statistics.median(of_rounds) for part, of_rounds in taken.items()}
    alone = [seconds[part] for part in PARTS[:-1]]
    ratios = f"{max(alone) / seconds['whole']:.2f} | {sum(alone) / seconds['whole']:.2f}"
    speeds = " | ".join(f"{videos / seconds[part]:,.0f}" for part in PARTS)
    command = statistics.median(commands)
    print(f"| {records}, {videos:,} | {name} | {speeds} | {ratios} | {command:.1f} s |", flush=True)


@torch.inference_mode()
def works(model: LoadedModel, pattern: str) -> dict[str, Callable[[], None]]:
    """What each part does, files opened anew wherever they are read."""
    batches = list(evaluation_batches(open_for(model, pattern), EVALUATION_BATCH))
    predictions = [finite_predictions(model, batch, CPU) for batch in batches]

    def reading() -> None:
        for _ in evaluation_batches(open_for(model, pattern), EVALUATION_BATCH):
            pass

    @torch.inference_mode()
    def predicting() -> None:
        for batch in batches:
            finite_predictions(model, batch, CPU)

    @torch.inference_mode()
    def counting() -> None:
        metrics = Metrics(model.header.classes)
        for batch, probabilities in zip(batches, predictions, strict=True):
            assert batch.labels is not None
            metrics.add(probabilities, batch.labels)
        metrics.compute()

    def whole() -> None:
        evaluate(model, open_for(model, pattern), CPU).compute()

    return {"reading": reading, "model": predicting, "metrics": counting, "whole": whole}


if __name__ == "__main__":
    main()
