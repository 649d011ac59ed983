"""topgb distill, and topgb train with a teacher, as a user types them."""

import re

import pytest

from cli.program import topgb
from combining.small_models import model_file


@pytest.fixture
def teacher(tmp_path):
    return model_file(tmp_path / "teacher.safetensors")


def test_from_a_teacher_to_a_student(teacher, small_records, small_recipe, tmp_path):
    done = topgb("distill", teacher, small_records["train"], "--out", tmp_path / "scores", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert re.search(r"scores: scores of 230 videos, \d+ bytes a video", done.stdout)
    command = [
        "train",
        small_recipe,
        "--data",
        small_records["train"],
        "--teacher",
        tmp_path / "scores",
        "--device",
        "cpu",
    ]
    taught = topgb(*command, "--distill-weight", "1", "--out", tmp_path / "run")
    assert taught.returncode == 0, taught.stderr
    shown = topgb("model", "show", tmp_path / "run" / "model.safetensors").stdout
    assert "distill_weight: 1" in shown
    assert "teacher:" in shown


def test_a_student_of_records_that_hold_the_scores(teacher, small_records, small_recipe, tmp_path):
    copied = topgb("distill", teacher, small_records["train"], "--out", tmp_path / "t", "--format", "tfrecord")
    assert copied.returncode == 0, copied.stderr
    command = ["train", small_recipe, "--data", f"{tmp_path}/t/*.tfrecord", "--teacher", "records", "--device", "cpu"]
    assert topgb(*command, "--out", tmp_path / "run").returncode == 0
    without = topgb(*command[:2], "--data", small_records["train"], *command[4:], "--out", tmp_path / "other")
    assert (without.returncode, without.stdout) == (2, "")
    assert "holds no 'predictions' of a teacher" in without.stderr


def test_what_does_not_fit_together_is_refused(teacher, small_records, small_recipe, tmp_path):
    lonely = topgb(
        "train", small_recipe, "--data", small_records["train"], "--distill-weight", "1", "--out", tmp_path / "r"
    )
    assert lonely.returncode == 2
    assert "--distill-weight goes with --teacher" in lonely.stderr
    both = topgb(
        *("distill", teacher, small_records["train"], "--out", tmp_path / "t", "--top-k", "3", "--format", "tfrecord")
    )
    assert both.returncode == 2
    assert "the best 3 classes cannot be kept" in both.stderr
    absent = topgb("distill", tmp_path / "absent.safetensors", small_records["train"], "--out", tmp_path / "t")
    assert absent.returncode == 2
    assert "there is no file" in absent.stderr
    assert not (tmp_path / "t").exists()
