"""Targets that are the same for all videos are named where training begins: a model learns nothing from them."""

from pathlib import Path

import pytest

from cli.program import Done, topgb
from cli.test_label_lists import FRAMES, MODEL, VIDEOS, recipe_for, write_records
from combining.small_models import model_file
from topgb.tensors import load_tensors, save_tensors

SAID = "warning: all 12 videos to train on have the same labels"


def _train(folder: Path, records: Path, spec, *more: str | Path) -> Done:
    return topgb("train", recipe_for(folder, spec, 4), "--data", records, "--out", folder / "run", "--force", *more)


@pytest.mark.parametrize(("name", "spec"), [("a.tfrecord", FRAMES), ("a.tfrecord.gz", VIDEOS)])
@pytest.mark.parametrize("labels", [[2], [0, 3]])
def test_the_same_labels_for_all(tmp_path, name, spec, labels):
    records = write_records(tmp_path / name, spec, [labels] * 12)
    done = _train(tmp_path, records, spec)
    assert (done.returncode, SAID in done.stderr) == (0, True), done.stderr
    others = write_records(tmp_path / f"other.{name}", spec, [labels] * 11 + [[1]])
    done = _train(tmp_path, others, spec)
    assert (done.returncode, "same labels" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("spec", [FRAMES, VIDEOS])
def test_the_same_scores_for_all(tmp_path, spec, top_k):
    records = write_records(tmp_path / "a.tfrecord", spec, [[number % 4] for number in range(12)])
    model = model_file(tmp_path / "m", MODEL, features=spec, classes=4)
    kept = () if top_k is None else ("--top-k", str(top_k))
    assert topgb("distill", model, records, "--out", tmp_path / "scores", *kept).returncode == 0
    done = _train(tmp_path, records, spec, "--teacher", tmp_path / "scores")
    assert (done.returncode, "all the same" in done.stderr) == (0, False), done.stderr
    path = tmp_path / "scores" / "a.tfrecord.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_tensors(path)[0].items()}
    for name in set(tensors) - {"ids", "id_ends"}:
        tensors[name][:] = tensors[name][:1].clone()
    save_tensors(path, tensors)
    for weight in ("0.5", "1"):
        done = _train(tmp_path, records, spec, "--teacher", tmp_path / "scores", "--distill-weight", weight)
        assert (done.returncode, "the teacher's scores of 12 videos looked at are all the same" in done.stderr) == (
            0,
            True,
        )


def test_the_same_scores_in_the_records(tmp_path):
    records = write_records(tmp_path / "a.tfrecord", VIDEOS, [[number % 4] for number in range(12)])
    # A model whose weights are all 0 says the same of every video.
    model = model_file(tmp_path / "m", MODEL, features=VIDEOS, classes=4)
    tensors, metadata = load_tensors(model)
    save_tensors(model, {name: tensor * 0 for name, tensor in tensors.items()}, metadata)
    out = tmp_path / "taught"
    assert topgb("distill", model, records, "--out", out, "--format", "tfrecord").returncode == 0
    done = _train(tmp_path, out, VIDEOS, "--teacher", "records")
    assert (done.returncode, "videos looked at are all the same" in done.stderr) == (0, True), done.stderr
