"""The shipped recipes on a piece of the real records: they read them, and learn from them at once."""

import pytest
import torch

import topgb
from topgb.evaluation.opening import open_for
from topgb.evaluation.score import evaluate
from topgb.training.loop import TrainingJob, train
from topgb.training.recipe import load_recipe


@pytest.mark.parametrize(
    ("recipe", "epochs", "shards", "held_out", "least_gap"),
    [
        (
            "yt8m-video",
            3,
            "yt8m-2018-video/train/validate000*.tfrecord",
            "yt8m-2018-video/train/validate0040.tfrecord",
            0.45,
        ),
        ("audioset-netvlad", 1, "audioset-frame/train/bal_train-0[1-3]*", "audioset-frame/train/bal_train-12*", 0.15),
    ],
)
def test_a_short_run_on_real_records_learns(real_data, tmp_path, recipe, epochs, shards, held_out, least_gap):
    """Predicting every class's frequency scores 0.1 (YouTube-8M) and 0.07 (AudioSet)."""
    settings = [f"training.epochs={epochs}", "training.precision=float32", "optimizer.schedule=constant"]
    job = TrainingJob(load_recipe(recipe, settings), str(real_data / shards), tmp_path / "run", device="cpu")
    model = topgb.load(train(job).model)
    scores = evaluate(model, open_for(model, str(real_data / held_out)), torch.device("cpu")).compute()
    assert scores.gap > least_gap
