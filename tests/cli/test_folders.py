"""A folder in place of a glob: which of its records each command takes, and what it says."""

import shutil
from pathlib import Path

import pytest

from cli.program import topgb
from combining.small_models import model_file
from topgb.records.description import FILE

VALIDATE = "holds a part to train on and one to validate on; scoring takes validate* ("


@pytest.fixture
def packed(small_records, tmp_path) -> Path:
    """A folder as `topgb data pack --validate` fills it."""
    folder = tmp_path / "packed [1]"
    folder.mkdir()
    for part in ("train", "validate"):
        for path in Path(small_records[part]).parent.glob(f"{part}*.tfrecord"):
            shutil.copy(path, folder)
    (folder / FILE).write_text(
        "level: frame\nclasses: 12\nfeatures:\n"
        "  - {name: rgb, size: 32, dtype: uint8}\n  - {name: audio, size: 8, dtype: uint8}\n"
    )
    return folder


def _videos(printed: str) -> int:
    return int(next(line.split()[1] for line in printed.splitlines() if line.startswith("videos")))


def test_scoring_takes_the_part_to_validate_on(packed, tmp_path):
    model, out = model_file(tmp_path / "m.safetensors"), tmp_path / "out.safetensors"
    done = topgb("eval", model, packed)
    assert _videos(done.stdout) == 90
    assert f"{packed} {VALIDATE}2 files)" in done.stderr
    for arguments in (
        ["compare", model, model, packed, "--resamples", "2"],
        ["model", "quantize", model, "--out", out, "--method", "float16", "--check", packed],
        [
            "model",
            "ensemble",
            model,
            model_file(tmp_path / "n.safetensors", seed=1),
            "--out",
            out,
            "--fit-weights",
            packed,
        ],
    ):
        out.unlink(missing_ok=True)
        done = topgb(*arguments)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count(VALIDATE) == 1


def test_training_takes_both_parts(packed, small_recipe, tmp_path):
    done = topgb("train", small_recipe, "--data", packed, "--out", tmp_path / "run", "--set", "training.epochs=1")
    assert done.returncode == 0, done.stderr
    assert "training takes train* (4 files)" in done.stderr
    assert "validation takes validate* (2 files)" in done.stderr
    assert "best validation GAP" in done.stderr


def test_a_part_that_is_given_stays(packed, small_records, small_recipe, tmp_path):
    again = ["--validate", small_records["train"], "--set", "training.epochs=1"]
    done = topgb("train", small_recipe, "--data", packed, "--out", tmp_path / "run", *again)
    assert done.returncode == 0, done.stderr
    assert "validation takes" not in done.stderr


def test_other_commands_take_all_records(packed, tmp_path):
    model = model_file(tmp_path / "m.safetensors")
    assert "5 files, 320 records" in topgb("data", "inspect", packed).stdout.replace("6 files", "5 files")
    assert "320 sound records" in topgb("data", "verify", packed).stdout
    assert "320 videos" in topgb("predict", model, packed, "--out", tmp_path / "p.csv").stdout
    assert "scores of 320 videos" in topgb("distill", model, packed, "--out", tmp_path / "scores").stdout


def test_a_folder_without_a_description_is_taken_whole(packed, tmp_path):
    (packed / FILE).unlink()
    done = topgb("eval", model_file(tmp_path / "m.safetensors"), packed)
    assert _videos(done.stdout) == 320
    assert not done.stderr
