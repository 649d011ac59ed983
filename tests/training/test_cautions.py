"""Settings that spoil a model without an error are refused, or said where the run begins."""

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cli.program import topgb
from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec
from topgb.records.sampling import FrameSampling
from topgb.records.synth import SynthOptions, write_synthetic
from topgb.records.training_batches import TrainingBatches
from topgb.training import checkpoint as checkpoints
from topgb.training.build import load_run
from topgb.training.cautions import cautions, fewest_together
from topgb.training.checkpoint import final_checkpoint
from topgb.training.loop import TrainingJob, train
from topgb.training.memory import check_memory, estimate_memory
from topgb.training.recipe import load_recipe
from training.test_memory import CPU, Saying

MLP = "model={aggregator: average, head: {name: mlp, width: 8}}"


def _batches(records: int, batch_size: int, ranks: int = 1) -> TrainingBatches:
    dataset = SimpleNamespace(num_records=records, spec=SimpleNamespace(level="frame"), max_frames=300)
    return TrainingBatches(dataset, batch_size, 0, FrameSampling(), 0, ranks)


@pytest.mark.parametrize(
    ("records", "batch_size", "accumulate", "ranks", "fewest"),
    [
        (230, 32, 1, 1, 28),
        (230, 32, 8, 1, 3),
        (230, 32, 32, 1, 1),
        (230, 32, 99, 1, 1),
        (9, 8, 4, 1, 1),
        (230, 1, 1, 2, 2),
        (231, 1, 1, 2, 1),
        (64, 16, 4, 2, 8),
        (1, 32, 1, 1, 1),
    ],
)
def test_the_fewest_videos_that_batch_norm_sees(records, batch_size, accumulate, ranks, fewest):
    assert fewest_together(_batches(records, batch_size, ranks), accumulate) == fewest


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Records of 60 videos: `videos` and `frames`, the latter of 2 to 5 frames."""
    folder = tmp_path_factory.mktemp("cautions")
    spec = FeatureSpec("video", (Feature("mean", 16, "float32"),))
    write_synthetic(folder / "videos", spec, 6, 60, SynthOptions())
    spec = FeatureSpec("frame", (Feature("rgb", 16), Feature("audio", 8)))
    write_synthetic(folder / "frames", spec, 6, 60, SynthOptions(frames=(2, 5)))
    return folder


def _train(folder: Path, out: Path, level: str, *settings: str, **options: str | Path):
    features = "[{name: mean, size: 16, dtype: float32}]"
    if level == "frames":
        features = "[{name: rgb, size: 16}, {name: audio, size: 8}]"
    data = f"data={{level: {level[:-1]}, features: {features}, classes: 6}}"
    usual = [data, MLP, "training={batch_size: 8, epochs: 3, batch_norm_momentum: 0.8}", "optimizer.schedule=constant"]
    chosen = [part for setting in (*usual, *settings) for part in ("--set", setting)]
    more = [part for name, value in options.items() for part in (f"--{name}", value)]
    return topgb("train", "demo", "--data", f"{folder}/{level}/*", "--out", out, *chosen, *more)


@pytest.mark.parametrize("level", ["videos", "frames"])
@pytest.mark.parametrize("setting", ["training.accumulate=8", "training.batch_size=1", "training.accumulate=100"])
def test_pieces_of_one_video_are_refused(folder, tmp_path, level, setting):
    done = _train(folder, tmp_path / "run", level, setting)
    assert done.returncode == 2
    assert "batch norm would normalise one video by itself" in done.stderr
    assert "or choose a model without batch norm" in done.stderr
    assert not (tmp_path / "run").exists()


def test_small_pieces_are_warned_of_where_batch_norm_sees_them(folder, tmp_path):
    few = _train(folder, tmp_path / "a", "frames", "training.accumulate=3")
    assert (few.returncode, "batch norm normalises by only" in few.stderr) == (0, True)
    enough = _train(folder, tmp_path / "b", "videos", "training.accumulate=1")
    alone = _train(folder, tmp_path / "c", "videos", "training.accumulate=8", "model={aggregator: average, head: moe}")
    for done in (enough, alone):
        assert (done.returncode, "warning" in done.stderr) == (0, False), done.stderr


def test_a_step_that_does_not_fit_gets_advice_that_fits(monkeypatch):
    recipe = load_recipe("demo", [])
    whole, quarter = (estimate_memory(load_recipe("demo", [f"training.accumulate={n}"]), 32, 300).total for n in (1, 4))
    monkeypatch.setattr("topgb.training.memory.free_memory", lambda device: (whole + quarter) // 2)
    with pytest.raises(InputError, match=r"compute a step in pieces with set={'training.accumulate': \d}$") as said:
        check_memory(recipe, 32, 300, CPU, Saying())
    pieces = int(str(said.value)[-2])
    check_memory(load_recipe("demo", [f"training.accumulate={pieces}"]), 32, 300, CPU, Saying())
    # Pieces of fewer than four videos would fit, but batch norm would suffer.
    fits = estimate_memory(recipe, 7, 300).total
    monkeypatch.setattr("topgb.training.memory.free_memory", lambda device: fits - 1)
    with pytest.raises(InputError, match="lower training.batch_size, training.frames or the model's sizes$"):
        check_memory(recipe, 7, 300, CPU, Saying())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["optimizer.schedule=staircase", "optimizer.decay=0.1", "optimizer.decay_examples=20"], "below a hundredth"),
        (["optimizer.warmup=0.9"], "rises over 90% of the run"),
        (["optimizer.learning_rate=1e-7"], "no weight can move by more than"),
        (["training.batch_norm_momentum=0.999"], "still hold 98% of their start after all 24 steps"),
        (["ema={halflife: 100, warmup: false}"], "still holds 79% of the random start"),
        (["training.early_stop=3"], "cannot stop a run of 3 epochs"),
        (["training.early_stop=1", "optimizer.warmup=0.5"], "while its learning rate still rises"),
        (["training.frames=sequence:20"], "more frames than any video has"),
        (["optimizer.learning_rate=3"], "each step may move every weight by about 3"),
        (["optimizer.weight_decay=60", "optimizer.learning_rate=0.01"], "each step takes 60% off every weight"),
        (["optimizer.clip_norm=1e-8"], "gradients of a norm of 1e-08 hardly move a weight"),
        (
            ["training.batch_size=100", "training.batch_norm_momentum=0.1"],
            "is more than the 60 videos, so each of the 3 epochs is a single step",
        ),
    ],
)
def test_likely_mistakes_are_said_where_the_run_begins(folder, tmp_path, settings, words):
    out = tmp_path / "run"
    validate = {"validate": f"{folder}/frames/*"} if "early_stop" in settings[0] else {}
    done = _train(folder, out, "frames", *settings, **validate)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert any(words in line for line in said), done.stderr
    if validate:
        assert any("are trained on too" in line for line in said)
    else:
        assert len(said) == 1


def test_a_start_from_a_model_holds_other_shares():
    recipe = load_recipe("demo", ["ema={halflife: 50, warmup: false}", "training.batch_norm_momentum=0.999"])
    batches = _batches(320, 32)
    batches.dataset.most_frames, batches.dataset.teacher = 300, None
    steps = recipe.training.epochs * 10
    assert steps < 100
    found = list(cautions(recipe, batches, None, fresh=True, normalises=True))
    assert ["moving statistics" in found[0], "average of the weights" in found[1]] == [True, True]
    from_model = list(cautions(recipe, batches, None, fresh=False, normalises=True))
    assert all("model that training starts from" in line for line in from_model)


@pytest.mark.parametrize("recipe", ["netvlad1", "mix-nextvlad", "video-moe", "own-frames", "rnn1"])
def test_the_shipped_recipes_have_no_likely_mistakes(recipe):
    # As many videos as the recipes were made for.
    batches = _batches(5_000 if recipe.startswith("own") else 3_800_000, load_recipe(recipe).training.batch_size)
    batches.dataset.most_frames, batches.dataset.teacher = 300, None
    assert list(cautions(load_recipe(recipe), batches, None, fresh=True, normalises=True)) == []


def test_a_best_checkpoint_that_is_replaced_gives_way_to_the_newer_one(
    small_records, small_recipe, tmp_path, monkeypatch
):
    recipe = load_recipe(str(small_recipe), ["training.epochs=2", "optimizer.learning_rate=0.001"])
    job = TrainingJob(recipe, small_records["train"], tmp_path / "run", small_records["validate"], device="cpu")
    train(job)
    before = final_checkpoint(job.out)
    load, names = checkpoints.load_tensors, []

    def replaced_while_read(path):
        names.append(path.parent.name)
        if len(names) == 2:
            # The training saves a better one between two files that are read.
            newer = replace(before, progress={**before.progress, "step": before.step + 7})
            saving = threading.Thread(target=checkpoints.save_checkpoint, args=(job.out, newer, "best"))
            saving.start()
            saving.join()
        return load(path)

    monkeypatch.setattr(checkpoints, "load_tensors", replaced_while_read)
    assert final_checkpoint(job.out).step == before.step + 7
    assert len(set(names)) == 2
    monkeypatch.setattr(checkpoints, "load_tensors", load)
    (job.out / "checkpoints" / names[-1] / "weights.safetensors").unlink()
    with pytest.raises(InputError, match="not readable"):
        load_run(job.out, use_ema=False)


@pytest.mark.parametrize("level", ["videos", "frames"])
@pytest.mark.parametrize("candidates", [None, 6, 5])
def test_a_second_stage_of_few_classes(folder, tmp_path, level, candidates):
    assert _train(folder, tmp_path / "run", level).returncode == 0
    model, data = tmp_path / "run" / "model.safetensors", f"{folder}/{level}/*"
    assert topgb("distill", model, data, "--out", tmp_path / "scores").returncode == 0
    chosen = () if candidates is None else ("--candidates", str(candidates))
    out = tmp_path / "second"
    command = ("model", "rerank", model, "--data", data, "--scores", tmp_path / "scores", "--out", out, "--epochs", "1")
    done = topgb(*command, *chosen)
    if candidates == 5:
        assert done.returncode == 2
        assert "cannot look at 5 classes of a model of 6; it takes from 6 to 6: change --candidates" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert topgb("eval", out, data).returncode == 0
    assert np.isfinite(float(done.stdout.split()[1]))
