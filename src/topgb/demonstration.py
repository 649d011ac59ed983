"""The whole story on synthetic records: train, average, ensemble, teach, quantise, shrink, evaluate, report."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from topgb.combining.ensemble import ensemble
from topgb.combining.shrink import ShrinkOptions, shrink
from topgb.errors import InputError, option
from topgb.evaluation.distill import DistillOptions, distill, open_records, open_teacher
from topgb.evaluation.metrics import Scores
from topgb.evaluation.opening import open_for
from topgb.evaluation.predict import CsvOptions, write_predictions
from topgb.evaluation.report import Report, write_report
from topgb.evaluation.reported import ReportedModel, report_on
from topgb.modelfile import LoadedModel, load
from topgb.progress import SILENT, Progress, counting
from topgb.quantizing.quantize import METHODS, QuantizeOptions, quantize_file
from topgb.records.dataset import Dataset
from topgb.records.synth import SynthOptions, write_synthetic
from topgb.training.build import build_model_file
from topgb.training.curves import read_metrics
from topgb.training.loop import TrainingJob, train
from topgb.training.recipe import Recipe, load_recipe
from topgb.training.stopping import not_resumed

RECIPE = "demo"
SECOND_FAMILY = ["model.aggregator=gated_dbof", "model.clusters={rgb: 512, audio: 64}"]
# Bytes: a tenth of what the two models take.
BUDGET = 2_500_000
FRAMES = (20, 60)
# The models that the report compares, and those of them that the ensemble has.
FILES = ("EMA weights", "raw weights", "gated bag of frames", "ensemble", "student", "shrunk")
MEMBERS = ("EMA weights", "gated bag of frames")
CPU = torch.device("cpu")
# The demo as lines of a shell, for the report.
COMMANDS = Path(__file__).with_name("recipes") / "demo.sh"
SHOWN_PREDICTIONS = 5


@dataclass(frozen=True)
class DemoResult:
    """The report's path, and the scores and bytes of each model file by its name."""

    report: Path
    scores: dict[str, Scores]
    sizes: dict[str, int]


@not_resumed()
def run_demo(
    out: Path, train_videos: int = 3000, held_out_videos: int = 600, force: bool = False, progress: Progress = SILENT
) -> DemoResult:
    """Fill `out` with records, two runs, model files, predictions and `report.html`.

    There is a model file for each of: a NetVLAD's raw and EMA weights, a gated bag of frames, the ensemble of both, a
    student of the ensemble, the ensemble quantised by every method, and the best mixture within a budget.

    Raises `InputError` if `out` holds something and `force` is off.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; the demo needs a directory, choose another {option('out')}")
    if out.exists() and any(out.iterdir()) and not force:
        raise InputError(
            f"{out} is not empty; overwrite it with {option('force', True)}, or choose another {option('out')}"
        )
    began = time.monotonic()
    recipe = load_recipe(RECIPE)
    sizes = {"train": train_videos, "validate": held_out_videos, "choose": held_out_videos}
    training, held_out, choosing = (
        make_records(out / "records", recipe, prefix, videos, seed, progress)
        for seed, (prefix, videos) in enumerate(sizes.items(), start=1)
    )
    files = {name: out / f"{name.lower().replace(' ', '-')}.safetensors" for name in FILES}
    _train_members(files, TrainingJob(recipe, training, out / "run", held_out, force=force), progress)
    _teach(files, training, force, progress)
    progress.say(f"shrinking the ensemble to {BUDGET:,} bytes")
    best = load(files["EMA weights"])
    to_choose_by = open_for(best, choosing)
    members = [files[name] for name in MEMBERS]
    shrink(members, BUDGET, to_choose_by, files["shrunk"], ShrinkOptions(force=True), progress)
    quantized = _quantize_by_every_method(files["ensemble"], out / "quantized", to_choose_by, progress)
    models, compressed = _scored(files, held_out, True, progress), _scored(quantized, held_out, False, progress)
    predictions = out / "predictions.csv"
    write_predictions(best, open_for(best, held_out), predictions, CPU, CsvOptions(force=True), progress)
    report = Report(
        title="topgb demo",
        facts=[
            ("records", f"{train_videos:,} synthetic videos to train on, {held_out_videos:,} held out"),
            *_facts(recipe, best),
            ("shrunk", f"the best found within {BUDGET:,} bytes, on {held_out_videos:,} other videos"),
            ("time", f"{time.monotonic() - began:.0f} s"),
        ],
        curves=[("NetVLAD", read_metrics(out / "run"))],
        models=models,
        commands=COMMANDS.read_text(encoding="utf-8").splitlines(),
        compressed=compressed,
        predictions=predictions.read_text(encoding="utf-8").splitlines()[: 1 + SHOWN_PREDICTIONS],
    )
    write_report(out / "report.html", report, force=True)
    everything = [*models, *compressed]
    return DemoResult(
        out / "report.html",
        {model.name: model.metrics.compute() for model in everything},
        {model.name: model.file_bytes for model in everything},
    )


def make_records(folder: Path, recipe: Recipe, prefix: str, videos: int, seed: int, progress: Progress = SILENT) -> str:
    """Write synthetic records for `recipe`; returns the glob that finds them."""
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


def _train_members(files: dict[str, Path], job: TrainingJob, progress: Progress) -> None:
    """Train the recipe and the second family; returns the model files of these and of their ensemble."""
    progress.say("training a small NetVLAD with a mixture of experts, keeping an average of its weights")
    train(job, progress)
    progress.say("training a gated bag of frames")
    second = replace(job, recipe=load_recipe(RECIPE, SECOND_FAMILY), out=job.out.with_name("second-run"), validate=None)
    train(second, progress)
    build_model_file(job.out, files["EMA weights"], use_ema=True, force=True)
    build_model_file(job.out, files["raw weights"], use_ema=False, force=True)
    build_model_file(second.out, files["gated bag of frames"], use_ema=True, force=True)
    ensemble([files[name] for name in MEMBERS], None, files["ensemble"], force=True)


def _teach(files: dict[str, Path], records: str, force: bool, progress: Progress) -> None:
    """Train another gated bag of frames, which learns from the ensemble too; returns its model file."""
    progress.say("distilling the ensemble into another gated bag of frames")
    out = files["student"].parent
    scores, run = out / "teacher-scores", out / "student-run"
    model, identity = open_teacher(files["ensemble"], CPU)
    distill(model, open_records(model, records), scores, CPU, identity, DistillOptions(force=True), progress)
    train(TrainingJob(load_recipe(RECIPE, SECOND_FAMILY), records, run, teacher=scores, force=force), progress)
    build_model_file(run, files["student"], use_ema=True, force=True)


def _quantize_by_every_method(model: Path, folder: Path, records: Dataset, progress: Progress) -> dict[str, Path]:
    made = {}
    for method in METHODS:
        path = folder / f"{method}.safetensors"
        # The other methods learn nothing from records.
        calibration = records if method == "entropy" else None
        quantize_file(model, path, QuantizeOptions(method), calibration, force=True, progress=progress)
        made[f"ensemble, {method}"] = path
    return made


def _scored(files: dict[str, Path], records: str, intervals: bool, progress: Progress) -> list[ReportedModel]:
    """Each model file with its figures on the records."""
    found = []
    for name, path in files.items():
        model = load(path)
        about = name, path.stat().st_size, model.header
        found.append(report_on(model, about, open_for(model, records), CPU, intervals, progress))
    return found


def _facts(recipe: Recipe, model: LoadedModel) -> list[tuple[str, str]]:
    """The facts at the top of the report."""
    return [
        ("features", ", ".join(f"{f.name} {f.size} bytes a frame" for f in recipe.data.features)),
        ("frames", f"{FRAMES[0]} to {FRAMES[1]} a video, {recipe.data.classes} classes"),
        ("model", f"NetVLAD with a mixture of experts, {model.weights / 1e6:.2f} million parameters"),
        ("ensemble", "that and a gated bag of frames, equal shares; as it is, and quantised by every method"),
        ("student", "the gated bag of frames trained anew, on labels and the ensemble's probabilities alike"),
    ]
