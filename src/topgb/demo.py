"""The whole story on synthetic records: make them, train, average, evaluate, predict, report."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from topgb.errors import InputError
from topgb.evaluation.metrics import Metrics, Scores
from topgb.evaluation.predict import write_predictions
from topgb.evaluation.report import Report, ReportedModel, write_report
from topgb.evaluation.score import evaluate, open_for
from topgb.modelfile import load
from topgb.progress import SILENT, Progress, counting
from topgb.records.synth import write_synthetic
from topgb.training.build import build_model_file
from topgb.training.curves import read_metrics
from topgb.training.loop import TrainingJob, train
from topgb.training.recipe import Recipe, load_recipe

RECIPE = "demo"
FRAMES = (20, 60)
SHOWN_PREDICTIONS = 5


@dataclass(frozen=True)
class DemoResult:
    """The report's path, and the scores of each model file by its name."""

    report: Path
    scores: dict[str, Scores]


def run_demo(
    out: Path, train_videos: int = 3000, held_out_videos: int = 600, force: bool = False, progress: Progress = SILENT
) -> DemoResult:
    """Fill `out` with records, a run, model files of raw and EMA weights, predictions and `report.html`.

    Raises `InputError` where `out` holds something and `force` is off.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; the demo needs a directory, choose another --out")
    if out.exists() and any(out.iterdir()) and not force:
        raise InputError(f"{out} is not empty; overwrite it with --force, or choose another --out")
    began = time.monotonic()
    recipe = load_recipe(RECIPE)
    train_shards = make_records(out / "records", recipe, "train", train_videos, 1, progress)
    held_out_shards = make_records(out / "records", recipe, "validate", held_out_videos, 2, progress)
    progress.say("training a small NetVLAD with a mixture of experts, keeping an average of its weights")
    run = out / "run"
    train(TrainingJob(recipe, train_shards, run, validate=held_out_shards, force=force), progress)
    models = []
    for name, use_ema in (("EMA weights", True), ("raw weights", False)):
        path = out / f"{name.partition(' ')[0].lower()}.safetensors"
        build_model_file(run, path, use_ema, force=True)
        models.append((name, path))
    reported = [
        ReportedModel(name, path.stat().st_size, _score(path, held_out_shards, progress)) for name, path in models
    ]
    predictions = out / "predictions.csv"
    best = load(models[0][1])
    parameters = sum(parameter.numel() for parameter in best.parameters())
    write_predictions(best, open_for(best, held_out_shards), predictions, torch.device("cpu"), True, progress)
    report = Report(
        title="topgb demo",
        facts=[
            ("records", f"{train_videos:,} synthetic videos to train on, {held_out_videos:,} held out"),
            ("features", ", ".join(f"{f.name} {f.size} bytes a frame" for f in recipe.data.features)),
            ("frames", f"{FRAMES[0]} to {FRAMES[1]} a video, {recipe.data.classes} classes"),
            ("model", f"NetVLAD with a mixture of experts, {parameters / 1e6:.2f} million parameters"),
            ("time", f"{time.monotonic() - began:.0f} s"),
        ],
        curves=read_metrics(run),
        models=reported,
        predictions=predictions.read_text().splitlines()[: 1 + SHOWN_PREDICTIONS],
    )
    write_report(out / "report.html", report, force=True)
    return DemoResult(out / "report.html", {model.name: model.metrics.compute() for model in reported})


def make_records(folder: Path, recipe: Recipe, prefix: str, videos: int, seed: int, progress: Progress = SILENT) -> str:
    """Write synthetic records for `recipe`; the glob that finds them."""
    write_synthetic(
        folder,
        recipe.data.spec(),
        recipe.data.classes,
        videos,
        frames=FRAMES,
        seed=seed,
        prefix=prefix,
        force=True,
        on_progress=counting(progress, f"making {prefix} records", "videos"),
    )
    return str(folder / f"{prefix}*.tfrecord")


def _score(path: Path, records: str, progress: Progress) -> Metrics:
    model = load(path)
    return evaluate(model, open_for(model, records), torch.device("cpu"), progress)
