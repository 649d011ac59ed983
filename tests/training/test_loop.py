"""Training end to end on small records: learning, resuming, sampling, losses, early stopping, the log."""

import json
import math
import signal
import time
from dataclasses import replace

import pytest
import torch

import topgb
from cli import program
from conftest import SMALL_CLASSES
from tolerances import FIGURE
from topgb.errors import InputError
from topgb.evaluation.opening import open_for
from topgb.evaluation.score import evaluate
from topgb.modelfile import read_model_file
from topgb.training.curves import read_metrics
from topgb.training.loop import train
from topgb.training.recipe import Recipe, load_recipe
from training.runs import Interrupting, assert_same_bits, changed, weights_of

CPU = torch.device("cpu")


def test_training_learns_and_the_same_run_gives_the_same_file(job, small_records):
    first = train(job).model
    model = topgb.load(first)
    scores = evaluate(model, open_for(model, small_records["validate"]), CPU).compute()
    assert scores.gap > 0.5
    again = train(replace(job, out=job.out.with_name("again"))).model
    assert first.read_bytes() == again.read_bytes()


def test_workers_do_not_change_the_weights(job):
    one = train(job).model
    two = train(replace(job, out=job.out.with_name("workers"), workers=2)).model
    assert_same_bits(one, two)


def test_killed_and_resumed_gives_the_weights_of_an_uninterrupted_run(
    job, small_recipe, small_records, zygote, tmp_path
):
    """A real SIGKILL in mid-epoch, from another process, between two checkpoints."""
    settings = ["--set", "training.epochs=12"]
    command = ["train", str(small_recipe), "--data", small_records["train"], *settings]
    command += ["--device", "cpu", "--checkpoint-minutes", "0"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert program.topgb(*command, "--out", str(whole)).returncode == 0
    running = zygote.start([*command, "--out", str(killed)])
    steps_per_epoch = 8
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        steps = [int(p.name.removeprefix("step-")) for p in killed.glob("checkpoints/step-*")]
        if steps and max(steps) > steps_per_epoch and max(steps) % steps_per_epoch == 3:
            break
        time.sleep(0.005)
    running.signal(signal.SIGKILL)
    assert running.wait().code == -signal.SIGKILL
    assert not (killed / "model.safetensors").exists()
    resumed = program.topgb(*command, "--out", str(killed), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after step" in resumed.stderr
    assert_same_bits(killed / "model.safetensors", whole / "model.safetensors")


def test_accumulating_gives_the_whole_batchs_gradient(job):
    """Without batch norm and dropout, pieces of a batch add up to it."""
    recipe = load_recipe(
        "demo",
        ["model={aggregator: average, head: logistic}", "training.frames=all", "data.classes=12", "training.epochs=1"],
    )
    features = [{"name": "rgb", "size": 32}, {"name": "audio", "size": 8}]
    recipe = Recipe(**{**recipe.to_json(), "data": {"level": "frame", "features": features, "classes": SMALL_CLASSES}})
    whole = train(replace(job, recipe=recipe)).model
    pieces = train(replace(job, recipe=changed(recipe, accumulate=3), out=job.out.with_name("pieces"))).model
    for name, value in weights_of(whole).items():
        torch.testing.assert_close(weights_of(pieces)[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("frames", ["sequence:4", "sample_all", "shuffle"])
def test_every_way_of_sampling_trains(job, frames):
    recipe = changed(job.recipe, frames=frames, epochs=1)
    job = replace(job, recipe=recipe.model_copy(update={"model": {**recipe.model, "max_frames": 12}}))
    trained = weights_of(train(job).model)
    every = replace(job, recipe=changed(job.recipe, frames="all"), out=job.out.with_name("all"))
    assert any(not torch.equal(value, trained[name]) for name, value in weights_of(train(every).model).items())


@pytest.mark.parametrize("name", ["hinge", "softmax"])
def test_the_recipes_loss_is_the_trained_and_the_logged_one(job, small_records, name):
    recipe = changed(job.recipe, loss=name, epochs=2)
    validation = train(replace(job, recipe=recipe, validate=small_records["validate"])).validation
    logged = read_metrics(job.out)[0]["loss"]
    # Of an untrained model, about: every class near its frequency, 2 of 12, and each video with a label or two.
    assert logged == pytest.approx({"hinge": SMALL_CLASSES, "softmax": math.log(SMALL_CLASSES)}[name], rel=0.15)
    by_cross_entropy = train(replace(job, recipe=changed(recipe, loss="cross_entropy"), out=job.out.with_name("ce")))
    of_that, of_this = (weights_of(m) for m in (by_cross_entropy.model, job.out / "model.safetensors"))
    assert any(not torch.equal(value, of_that[key]) for key, value in of_this.items())
    model = topgb.load(job.out / "model.safetensors")
    scores = evaluate(model, open_for(model, small_records["validate"]), CPU).compute()
    assert scores.loss == pytest.approx(validation.loss, rel=1e-5), "evaluation keeps to cross entropy"


def test_validation_keeps_the_best_checkpoint_and_stops_early(job, small_records):
    recipe = changed(job.recipe, epochs=30, early_stop=1)
    recipe = recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"learning_rate": 0.3})})
    result = train(replace(job, recipe=recipe, validate=small_records["validate"]))
    validations = [entry for entry in read_metrics(job.out) if "validation" in entry]
    best = max(validations, key=lambda entry: entry["validation"]["gap"])
    assert len(validations) < 30
    assert validations[-1]["step"] > best["step"]
    header = read_model_file(result.model)[0]
    assert header.origin["step"] == best["step"]
    model = topgb.load(result.model)
    scores = evaluate(model, open_for(model, small_records["validate"]), CPU).compute()
    assert scores.gap == pytest.approx(best["validation"]["gap"], abs=FIGURE)


def test_batches_of_one_video_can_be_trained_on_without_batch_norm(job):
    recipe = changed(job.recipe, batch_size=1, epochs=1)
    with pytest.raises(InputError, match="batch norm would normalise one video by itself"):
        train(replace(job, recipe=recipe))
    recipe = recipe.model_copy(update={"model": {"aggregator": "average", "head": {"name": "moe"}}})
    assert train(replace(job, recipe=recipe)).model.exists()


def test_resuming_over_validation_workers_and_early_stopping(job, small_records):
    """Interrupted in the middle and resumed with other workers: the same file, the same best epoch."""
    recipe = changed(job.recipe, epochs=8, early_stop=2)
    recipe = recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"learning_rate": 0.2})})
    job = replace(job, recipe=recipe, validate=small_records["validate"], checkpoint_minutes=0.0)
    whole = train(job)
    broken = replace(job, out=job.out.with_name("broken"))
    with pytest.raises(KeyboardInterrupt):
        train(broken, Interrupting(500))
    resumed = train(replace(broken, resume=True, workers=2))
    assert resumed.validation == whole.validation
    assert resumed.model.read_bytes() == whole.model.read_bytes()


def test_the_log_holds_the_curves(job):
    train(job)
    entries = read_metrics(job.out)
    assert entries[-1]["step"] == 24
    assert set(entries[-1]) == {"step", "examples", "loss", "gap", "learning_rate"}
    assert list((job.out / "tensorboard").iterdir())
    assert json.loads((job.out / "settings.json").read_text())["arithmetic"] == "32-true"
