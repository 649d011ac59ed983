"""Mixup against its formula, and in a run."""

from dataclasses import replace

import pytest
import torch

from topgb.evaluation.metrics import cross_entropy
from topgb.training.checkpoint import latest_checkpoint
from topgb.training.loop import TrainingJob, train
from topgb.training.memory import estimate_memory
from topgb.training.mixup import mix
from topgb.training.recipe import load_recipe


def test_each_video_is_averaged_with_another_and_keeps_the_greater_part():
    torch.manual_seed(0)
    frames, num_frames = torch.rand(3, 4, 2), torch.tensor([4, 2, 1])
    frames[1, 2:] = frames[2, 1:] = 0
    labels = torch.rand(3, 5) < 0.5
    probabilities = torch.rand(3, 5)
    for _ in range(20):
        mixed, counts, loss = mix(frames, num_frames, cross_entropy, alpha=1.0)
        share = float((mixed[0, 3, 0] - frames[0, 3, 0]) / (frames[2, 3, 0] - frames[0, 3, 0]))
        assert 0.0 <= share <= 0.5
        for video, other in enumerate((2, 1, 0)):
            expected = (1 - share) * frames[video] + share * frames[other]
            torch.testing.assert_close(mixed[video], expected, atol=1e-6, rtol=1e-5)
        assert counts.tolist() == [4, 2, 4]
        soft = (1 - share) * labels.float() + share * labels.flip(0).float()
        terms = soft * (probabilities + 1e-5).log() + (1 - soft) * (1 - probabilities + 1e-5).log()
        torch.testing.assert_close(loss(probabilities, labels), -terms.sum(1).mean())


@pytest.fixture
def job(small_records, small_recipe, tmp_path) -> TrainingJob:
    recipe = load_recipe(str(small_recipe), ["training.mixup=0.5"])
    return TrainingJob(recipe, small_records["train"], tmp_path / "run", device="cpu")


def test_it_changes_what_is_learnt_and_a_rerun_gives_the_same_bits(job, small_recipe, tmp_path):
    mixed = train(job).model.read_bytes()
    assert train(replace(job, out=tmp_path / "again")).model.read_bytes() == mixed
    plain = replace(job, recipe=load_recipe(str(small_recipe)), out=tmp_path / "plain")
    train(plain)
    weights, others = (latest_checkpoint(out).weights for out in (job.out, plain.out))
    assert any(not torch.equal(value, others[name]) for name, value in weights.items())


def test_the_memory_estimate_knows_the_second_copy_of_the_frames(job, small_recipe):
    with_mixup, without = (estimate_memory(r, 64, 30) for r in (job.recipe, load_recipe(str(small_recipe))))
    assert with_mixup.complete
    assert with_mixup.batch > without.batch
