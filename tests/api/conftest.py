"""A folder of small files of every kind, in which examples of the public API run."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import topgb
from combining.small_models import model_file
from conftest import SMALL_CLASSES, SMALL_SPEC
from from2018.checkpoints import flags_file, random_tagger, variables, write_checkpoint
from topgb.records.synth import SynthOptions, write_synthetic
from youtube8m.plan_server import PlanServer

RECIPE: dict[str, Any] = {
    "data": {
        "level": "frame",
        "features": [{"name": "rgb", "size": 32}, {"name": "audio", "size": 8}],
        "classes": SMALL_CLASSES,
    },
    "model": {"aggregator": "average", "head": "logistic"},
    "training": {"epochs": 3, "batch_size": 16, "seed": 1},
    "optimizer": {"learning_rate": 0.1},
}
AVERAGE = {"aggregator": "average", "head": "logistic"}
MANY = 24


@pytest.fixture(autouse=True)
def _subnormal_numbers() -> Iterator[None]:
    """`topgb.train` has PyTorch flush them, and other tests compute with them."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """`folder` with records, a run, models, arrays and a checkpoint; a `recipe`, and the URL of a `server`."""
    folder = tmp_path_factory.mktemp("workplace")
    for prefix, videos, seed in (("train", 140, 1), ("validate", 60, 2)):
        options = SynthOptions(videos_per_shard=70, frames=(4, 9), seed=seed, prefix=prefix, noise=0.5)
        write_synthetic(folder / "records", SMALL_SPEC, SMALL_CLASSES, videos, options)
    topgb.train(RECIPE, folder / "records" / "train*.tfrecord", folder / "run", progress=False)
    topgb.build(folder / "run", folder / "model.safetensors")
    for number, name in enumerate(("a", "b")):
        model_file(folder / f"{name}.safetensors", AVERAGE, seed=number)
    _arrays(folder)
    _many(folder / "many")
    old = "FrameLevelLogisticModel"
    write_checkpoint(folder / "checkpoint" / "model.ckpt-7", variables(random_tagger(old, {})), flags_file(old))
    server = PlanServer({"train00.tfrecord": b"0" * 30, "train01.tfrecord": b"1" * 30})
    yield SimpleNamespace(folder=folder, recipe=RECIPE, server=server)
    server.close()


def _arrays(folder: Path) -> None:
    """`features` with a .npy for each of 40 videos of three kinds, and `labels.csv`."""
    (folder / "features").mkdir()
    numbers = np.random.default_rng(0)
    kinds = {"cat": numbers.normal(size=16), "dog": numbers.normal(size=16), "bird": numbers.normal(size=16)}
    rows = ["id,labels\n"]
    for number in range(40):
        name = list(kinds)[number % 3]
        frames = kinds[name] + 0.3 * numbers.normal(size=(5, 16))
        np.save(folder / "features" / f"clip{number}.npy", frames.astype(np.float32))
        rows.append(f"clip{number},{name}\n")
    (folder / "labels.csv").write_text("".join(rows))


def _many(folder: Path) -> None:
    """Records with enough classes for a second stage, a model and its scores."""
    write_synthetic(folder, SMALL_SPEC, MANY, 40, SynthOptions(frames=(4, 9)))
    model_file(folder / "model.safetensors", AVERAGE, classes=MANY)
    topgb.distill(folder / "model.safetensors", folder / "train*.tfrecord", folder / "scores", progress=False)


@pytest.fixture
def place(workplace, monkeypatch) -> SimpleNamespace:
    """`workplace`, whose folder is the working directory."""
    monkeypatch.chdir(workplace.folder)
    return workplace
