"""Training with a teacher: what is learned, from which records, and what is refused."""

import json
from dataclasses import replace

import pytest
import torch

import topgb
from topgb.errors import InputError
from topgb.evaluation.distill import DistillOptions, distill, open_records, open_teacher
from topgb.evaluation.opening import open_for
from topgb.evaluation.score import evaluate
from topgb.modelfile import read_model_file
from topgb.progress import Progress
from topgb.records.dataset import open_dataset
from topgb.records.labels import Targets
from topgb.training.curves import read_metrics
from topgb.training.loop import TrainingJob, train
from topgb.training.recipe import load_recipe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def taught(small_records, small_recipe, tmp_path_factory):
    """A trained teacher, and folders of its scores: beside the records, in them, and for the unlabelled ones."""
    folder = tmp_path_factory.mktemp("teacher")
    recipe = load_recipe(str(small_recipe), ["training.epochs=8", "model.hidden=48"])
    path = train(TrainingJob(recipe, small_records["train"], folder / "run", device="cpu")).model
    model, identity = open_teacher(path, CPU)
    for name, pattern, score_format in (
        ("scores", small_records["train"], "safetensors"),
        ("copies", small_records["train"], "tfrecord"),
        ("unlabelled", f"{small_records['unlabelled']},{small_records['train']}", "safetensors"),
    ):
        distill(
            model,
            open_records(model, pattern, score_format=score_format),
            folder / name,
            CPU,
            identity,
            DistillOptions(score_format=score_format),
        )
    return folder


@pytest.fixture
def job(small_records, small_recipe, tmp_path) -> TrainingJob:
    return TrainingJob(load_recipe(str(small_recipe)), small_records["train"], tmp_path / "run", device="cpu")


def weighted(job: TrainingJob, weight: float, **changes) -> TrainingJob:
    training = job.recipe.training.model_copy(update={"distill_weight": weight})
    return replace(job, recipe=job.recipe.model_copy(update={"training": training}), **changes)


def same_weights(one, two):
    first, second = read_model_file(one)[1], read_model_file(two)[1]
    return all(torch.equal(first[name], second[name]) for name in first)


def test_weight_0_is_training_without_a_teacher(job, taught, tmp_path):
    plain = train(job).model
    zero = train(weighted(job, 0.0, teacher=taught / "scores", out=tmp_path / "zero")).model
    half = train(weighted(job, 0.5, teacher=taught / "scores", out=tmp_path / "half")).model
    assert not same_weights(plain, half)
    first, second = read_model_file(plain)[1], read_model_file(zero)[1]
    for name, value in first.items():
        # The same sums in another order; Adam makes more of it where gradients are small.
        torch.testing.assert_close(second[name], value, rtol=0.05, atol=0.02)


def test_scores_in_the_records_are_those_beside_them(job, taught, tmp_path):
    copies = replace(job, data=str(taught / "copies" / "*.tfrecord"))
    inside = train(weighted(copies, 0.5, teacher="records")).model
    beside = train(weighted(copies, 0.5, teacher=taught / "scores", out=tmp_path / "beside")).model
    assert same_weights(inside, beside)


def test_a_student_learns_from_records_without_labels(job, taught, small_records):
    both = f"{small_records['unlabelled']},{small_records['train']}"
    result = train(weighted(job, 1.0, data=both, teacher=taught / "unlabelled", validate=small_records["validate"]))
    model = topgb.load(result.model)
    gap = evaluate(model, open_for(model, small_records["validate"]), CPU).compute().gap
    assert gap > 0.5
    steps = [entry for entry in read_metrics(job.out) if "loss" in entry]
    assert steps
    assert not any("gap" in entry for entry in steps)
    with pytest.raises(InputError, match="no labels"):
        train(weighted(job, 0.9, data=small_records["unlabelled"], teacher=taught / "unlabelled", force=True))


def test_the_head_starts_at_the_teachers_frequencies(job, taught, small_records):
    from topgb.records.teacher import Teacher
    from topgb.training.initial_weights import _frequencies

    teacher, data = Teacher(taught / "scores"), job.recipe.data
    data = open_dataset(job.data, data.spec(), data.classes, max_frames=300, targets=Targets(teacher=teacher))
    torch.testing.assert_close(
        _frequencies(data, 1.0), torch.from_numpy((teacher.mean(1000) * 230 + 0.5) / 231).float()
    )
    assert not torch.equal(_frequencies(data, 1.0), _frequencies(data, 0.5))


def test_the_teacher_is_part_of_the_run(job, taught, tmp_path):
    class Interrupting(Progress):
        def advance(self, count, note=""):
            raise KeyboardInterrupt

    taught_job = weighted(job, 0.5, teacher=taught / "scores")
    with pytest.raises(KeyboardInterrupt):
        train(taught_job, Interrupting())
    for other, key in (
        (replace(taught_job, teacher=None), "teacher"),
        (replace(taught_job, teacher=taught / "unlabelled"), "teacher.scores"),
        (weighted(taught_job, 0.4), "training.distill_weight"),
    ):
        with pytest.raises(InputError, match=f"was started with {key}"):
            train(replace(other, resume=True))
    resumed = train(replace(taught_job, resume=True)).model
    whole = train(replace(taught_job, out=tmp_path / "whole")).model
    assert resumed.read_bytes() == whole.read_bytes()
    named = read_model_file(whole)[0].origin["teacher"]["model"]["sha256"]
    assert named == json.loads((taught / "scores" / "teacher.json").read_text())["model"]["sha256"]


def test_other_losses_and_missing_scores_are_refused_before_a_run_begins(job, taught, small_records):
    hinge = job.recipe.model_copy(update={"training": job.recipe.training.model_copy(update={"loss": "hinge"})})
    with pytest.raises(InputError, match=r"by cross entropy; leave out training.loss=hinge"):
        train(replace(job, recipe=hinge, teacher=taught / "scores"))
    with pytest.raises(InputError, match="has no scores for video 'validate-2-000000'"):
        train(replace(job, data=small_records["validate"], teacher=taught / "scores"))
    with pytest.raises(InputError, match="holds no 'predictions' of a teacher"):
        train(replace(job, teacher="records"))
    with pytest.raises(InputError, match=r"holds no teacher.json"):
        train(replace(job, teacher=job.out))
    assert not job.out.exists()
