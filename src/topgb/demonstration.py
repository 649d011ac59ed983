"""The whole story on synthetic records: train, average, ensemble, teach, quantise, shrink, evaluate, report."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from topgb.combining.ensemble import ensemble
from topgb.combining.shrink import ShrinkOptions, shrink
from topgb.errors import InputError, option
from topgb.evaluation.distill import DistillOptions, distill, open_records, open_teacher
from topgb.evaluation.metrics import Metrics, Scores
from topgb.evaluation.opening import open_for
from topgb.evaluation.predict import CsvOptions, write_predictions
from topgb.evaluation.report import Report, ReportedModel, write_report
from topgb.evaluation.score import evaluate
from topgb.modelfile import load
from topgb.progress import SILENT, Progress, counting
from topgb.quantizing.quantize import METHODS, Settings, quantize_file
from topgb.records.dataset import Dataset
from topgb.records.synth import SynthOptions, write_synthetic
from topgb.training.build import build_model_file
from topgb.training.curves import read_metrics
from topgb.training.loop import TrainingJob, train
from topgb.training.recipe import Recipe, load_recipe

RECIPE = "demo"
SECOND_FAMILY = ["model.aggregator=gated_dbof", "model.clusters={rgb: 512, audio: 64}"]
# A tenth of what the two models take.
BUDGET = 2_500_000
FRAMES = (20, 60)
SHOWN_PREDICTIONS = 5


@dataclass(frozen=True)
class DemoResult:
    """The report's path, and the scores and bytes of each model file by its name."""

    report: Path
    scores: dict[str, Scores]
    sizes: dict[str, int]


def run_demo(
    out: Path, train_videos: int = 3000, held_out_videos: int = 600, force: bool = False, progress: Progress = SILENT
) -> DemoResult:
    """Fill `out` with records, two runs, model files, predictions and `report.html`.

    The files are of raw and of EMA weights, of a second family, of the ensemble of both, of a student that it taught,
    of the ensemble quantised by every method, and of the best within a budget.

    Raises `InputError` where `out` holds something and `force` is off.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; the demo needs a directory, choose another {option('out')}")
    if out.exists() and any(out.iterdir()) and not force:
        raise InputError(
            f"{out} is not empty; overwrite it with {option('force', True)}, or choose another {option('out')}"
        )
    began = time.monotonic()
    recipe = load_recipe(RECIPE)
    train_shards = make_records(out / "records", recipe, "train", train_videos, 1, progress)
    held_out_shards = make_records(out / "records", recipe, "validate", held_out_videos, 2, progress)
    choosing_shards = make_records(out / "records", recipe, "choose", held_out_videos, 3, progress)
    progress.say("training a small NetVLAD with a mixture of experts, keeping an average of its weights")
    run = out / "run"
    train(TrainingJob(recipe, train_shards, run, validate=held_out_shards, force=force), progress)
    progress.say("training a gated bag of frames")
    second = out / "second-run"
    train(TrainingJob(load_recipe(RECIPE, SECOND_FAMILY), train_shards, second, force=force), progress)
    files = {
        name: out / f"{name.lower().replace(' ', '-')}.safetensors"
        for name in ("EMA weights", "raw weights", "gated bag of frames", "ensemble", "student", "shrunk")
    }
    build_model_file(run, files["EMA weights"], True, force=True)
    build_model_file(run, files["raw weights"], False, force=True)
    build_model_file(second, files["gated bag of frames"], True, force=True)
    parts = [files["EMA weights"], files["gated bag of frames"]]
    ensemble(parts, None, files["ensemble"], force=True)
    progress.say("distilling the ensemble into another gated bag of frames")
    build_model_file(_teach(files["ensemble"], train_shards, out, force, progress), files["student"], True, force=True)
    progress.say(f"shrinking the ensemble to {BUDGET:,} bytes")
    best = load(files["EMA weights"])
    choosing = open_for(best, choosing_shards)
    shrink(parts, BUDGET, choosing, files["shrunk"], ShrinkOptions(force=True), progress)
    quantized = _quantize_by_every_method(files["ensemble"], out / "quantized", choosing, progress)
    models, compressed = (
        [
            ReportedModel(name, path.stat().st_size, _score(path, held_out_shards, progress))
            for name, path in made.items()
        ]
        for made in (files, quantized)
    )
    predictions = out / "predictions.csv"
    write_predictions(
        best, open_for(best, held_out_shards), predictions, torch.device("cpu"), CsvOptions(force=True), progress
    )
    report = Report(
        title="topgb demo",
        facts=[
            ("records", f"{train_videos:,} synthetic videos to train on, {held_out_videos:,} held out"),
            ("features", ", ".join(f"{f.name} {f.size} bytes a frame" for f in recipe.data.features)),
            ("frames", f"{FRAMES[0]} to {FRAMES[1]} a video, {recipe.data.classes} classes"),
            ("model", f"NetVLAD with a mixture of experts, {best.weights / 1e6:.2f} million parameters"),
            ("ensemble", "that and a gated bag of frames, equal shares; as it is, and quantised by every method"),
            ("student", "the gated bag of frames trained anew, on labels and the ensemble's probabilities alike"),
            ("shrunk", f"the best found within {BUDGET:,} bytes, on {held_out_videos:,} other videos"),
            ("time", f"{time.monotonic() - began:.0f} s"),
        ],
        curves=read_metrics(run),
        models=models,
        compressed=compressed,
        predictions=predictions.read_text().splitlines()[: 1 + SHOWN_PREDICTIONS],
    )
    write_report(out / "report.html", report, force=True)
    everything = [*models, *compressed]
    return DemoResult(
        out / "report.html",
        {model.name: model.metrics.compute() for model in everything},
        {model.name: model.file_bytes for model in everything},
    )


def _teach(teacher: Path, records: str, out: Path, force: bool, progress: Progress) -> Path:
    """The run of a second gated bag of frames, which learned from this teacher too."""
    model, identity = open_teacher(teacher, torch.device("cpu"))
    scores = out / "teacher-scores"
    options = DistillOptions(force=True)
    distill(model, open_records(model, records), scores, torch.device("cpu"), identity, options, progress)
    run = out / "student-run"
    train(TrainingJob(load_recipe(RECIPE, SECOND_FAMILY), records, run, teacher=scores, force=force), progress)
    return run


def _quantize_by_every_method(model: Path, folder: Path, records: Dataset, progress: Progress) -> dict[str, Path]:
    made = {}
    for method in METHODS:
        path = folder / f"{method}.safetensors"
        # Of the methods only this one learns from records.
        calibration = records if method == "entropy" else None
        quantize_file(model, path, Settings(method), calibration, force=True, progress=progress)
        made[f"ensemble, {method}"] = path
    return made


def make_records(folder: Path, recipe: Recipe, prefix: str, videos: int, seed: int, progress: Progress = SILENT) -> str:
    """Write synthetic records for `recipe`; the glob that finds them."""
    write_synthetic(
        folder,
        recipe.data.spec(),
        recipe.data.classes,
        videos,
        SynthOptions(frames=FRAMES, seed=seed, prefix=prefix),
        force=True,
        on_progress=counting(progress, f"making {prefix} records", "videos"),
    )
    return str(folder / f"{prefix}*.tfrecord")


def _score(path: Path, records: str, progress: Progress) -> Metrics:
    model = load(path)
    return evaluate(model, open_for(model, records), torch.device("cpu"), progress)
