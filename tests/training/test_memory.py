"""The estimate against what a real step allocates, and what is refused before anything is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from topgb.errors import InputError
from topgb.models import build_tagger
from topgb.progress import Progress
from topgb.training import memory
from topgb.training.ema import Shadows
from topgb.training.loop import TrainingJob, train
from topgb.training.losses import LOSSES
from topgb.training.memory import check_memory, estimate_memory
from topgb.training.optimizer import TF1Adam, clip_each
from topgb.training.recipe import Recipe, load_recipe

CPU = torch.device("cpu")


class Saying(Progress):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def _two_steps(recipe: Recipe, videos: int, length: int) -> None:
    """What the loop does, from building the model on."""
    spec, classes = recipe.data.spec(), recipe.data.classes
    tagger = build_tagger(spec, classes, recipe.model_section()).train()
    adam = TF1Adam(tagger.parameters(), 1e-3)
    shadows = None if recipe.ema is None else Shadows(tagger, recipe.ema)
    for step in (1, 2):
        features = torch.full((videos, length, spec.width), step, dtype=torch.uint8)
        num_frames = torch.full((videos,), length, dtype=torch.int32)
        num_frames[0] = 1
        labels = torch.ones(videos, classes, dtype=torch.bool)
        for piece in torch.arange(videos).tensor_split(recipe.training.accumulate):
            part = slice(int(piece[0]), int(piece[-1]) + 1)
            frames, counts = tagger.frontend(features[part], num_frames[part])
            loss = LOSSES[recipe.training.loss](tagger(frames, counts), labels[part]) + tagger.regularization()
            distillation = tagger.distillation_loss(labels[part], LOSSES[recipe.training.loss])
            (loss if distillation is None else loss + distillation).backward()
        clip_each(tagger.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
        if shadows is not None:
            shadows.update(tagger, step)


def _most_allocated(recipe: Recipe, videos: int, frames: int, folder: Path) -> int:
    """The most bytes that PyTorch's allocator had given out at any time."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        _two_steps(recipe, videos, frames)
    profiler.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    changes = [(event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]"]
    now = most = 0
    for _, change in sorted(changes, key=lambda entry: entry[0]):
        now += change
        most = max(most, now)
    return most


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        ("aggregator: average", ["training.accumulate=3"]),
        ("aggregator: netvlad, clusters: 16, hidden: 128", []),
        ("aggregator: netvlad, clusters: 16, hidden: 128", ["training.accumulate=3"]),
        ("aggregator: netvlad, clusters: 16, hidden: 128", ["data.classes=3000", "ema=null", "training.loss=hinge"]),
        ("aggregator: bigru, cells: 64", []),
        ("aggregator: nextvlad, clusters: 16, hidden: 128", []),
        ("aggregator: netvlad, clusters: 16, hidden: 128, mixture: 3", []),
        ("aggregator: netvlad, clusters: 16, hidden: 128, mixture: 3", ["training.accumulate=3"]),
    ],
)
def test_the_estimate_is_what_a_step_allocates(section, settings, tmp_path):
    """To a tenth: what an operation takes and gives back inside is not in the estimate."""
    recipe = load_recipe("demo", [f"model={{{section}, head: {{name: moe, mixtures: 2}}}}", *settings])
    estimate = estimate_memory(recipe, 24, 60)
    assert estimate.complete
    assert estimate.total == pytest.approx(_most_allocated(recipe, 24, 60, tmp_path), rel=0.1)


def test_parts_of_the_estimate():
    settings = ["model={aggregator: average, head: logistic}", "data.classes=10", "ema=null"]
    estimate = estimate_memory(load_recipe("demo", settings), 8, 50)
    weights = 4 * 10 * (1152 + 1)
    assert (estimate.weights, estimate.optimizer) == (weights, 3 * weights)
    stored = 8 * (50 * 1152 + 10)
    # Frames as floats at the least, when there are no gradients yet, and not more than two more of their size.
    assert stored + 4 * 8 * 50 * 1152 <= estimate.batch + weights <= stored + 3 * 4 * 8 * 50 * 1152
    averaged = estimate_memory(load_recipe("demo", [*settings[:2], "ema.halflife=5"]), 8, 50)
    assert averaged.optimizer == 4 * weights
    pieces = estimate_memory(load_recipe("demo", [*settings, "training.accumulate=4"]), 8, 50)
    assert pieces.batch - stored == pytest.approx((estimate.batch - stored) / 4, rel=0.1)


def test_what_is_needed_and_free_is_said(monkeypatch):
    recipe = load_recipe("demo", ["model={aggregator: average, head: logistic}"])
    saying = Saying()
    monkeypatch.setattr(memory, "free_memory", lambda device: 21_345_678_901)
    check_memory(recipe, 32, 300, CPU, saying)
    monkeypatch.setattr(memory, "free_memory", lambda device: None)
    check_memory(recipe, 10**6, 300, CPU, saying)
    assert len(saying.lines) == 2
    assert saying.lines[0].startswith(
        "memory: weights 0.00046 GB, gradients and optimiser 0.0018 GB, a batch of 32 about"
    )
    assert saying.lines[0].endswith("; 21.3 GB are free")
    assert saying.lines[1].startswith("memory: weights")
    assert "free" not in saying.lines[1]


@pytest.mark.parametrize(
    ("settings", "videos", "remedy"),
    [
        (["model.clusters=100000", "model.hidden=100000"], 32, "lower the model's sizes"),
        ([], 10**8, "lower training.batch_size, training.frames or the model's sizes"),
        (["model.clusters=1000000000", "model.hidden=1000000000"], 32, "the sizes .* make no model; lower them"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_lower(settings, videos, remedy):
    with pytest.raises(InputError, match=f"{remedy}$"):
        check_memory(load_recipe("demo", settings), videos, 300, CPU, Saying())


def test_an_architecture_that_looks_at_values_is_estimated_from_below(monkeypatch):
    recipe = load_recipe("demo", ["model={aggregator: average, head: logistic}"])
    whole = estimate_memory(recipe, 32, 300)

    def looking(self, frames, num_frames):
        assert bool(frames.sum() > 0)

    monkeypatch.setattr("topgb.models.average.Average.forward", looking)
    partly = estimate_memory(recipe, 32, 300)
    assert not partly.complete
    assert (partly.weights, partly.optimizer) == (whole.weights, whole.optimizer)
    assert 32 * 300 * 1152 * 5 < partly.batch + whole.weights <= whole.batch + whole.weights
    saying = Saying()
    check_memory(recipe, 32, 300, CPU, saying)
    assert "a batch of 32 at least" in saying.lines[0]


def test_a_run_that_does_not_fit_is_refused_before_it_has_a_directory(small_records, small_recipe, tmp_path):
    huge = load_recipe(str(small_recipe), ["model.clusters=100000", "model.hidden=100000"])
    job = TrainingJob(huge, small_records["train"], tmp_path / "run", device="cpu")
    for force in (False, True):
        with pytest.raises(InputError, match="lower the model's sizes"):
            train(replace(job, force=force))
    assert not job.out.exists()


def test_the_batch_is_that_of_the_records(small_records, small_recipe, tmp_path):
    """A batch size and a number of frames that the records never reach refuse nothing."""
    settings = ["training.batch_size=1000000000", "training.frames=all", "training.epochs=1"]
    saying = Saying()
    recipe = load_recipe(str(small_recipe), settings)
    train(TrainingJob(recipe, small_records["train"], tmp_path / "run", device="cpu"), saying)
    assert "a batch of 230 " in saying.lines[0]
