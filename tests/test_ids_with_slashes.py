"""Ids that are paths (slashes, blanks, umlauts, commas, quotes) come through everything that reads or writes ids."""

import csv
import html
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import topgb
from combining.small_models import AUDIO, model_file
from conftest import SMALL_CLASSES, SMALL_SPEC
from topgb.records.codec import encode_sequence_example
from topgb.records.framing import frame_record
from topgb.youtube8m.submission import check

IDS = ["a/x", "b/x", "Küche/Brot & Brötchen/clip 1", 'say "hi", twice/1', "../up", "/abs", "a", "a/x.npy", "<i>/</i>"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Labelled records of these ids, and a model of them."""
    folder = tmp_path_factory.mktemp("slashes")
    generator = np.random.default_rng(0)
    payloads = []
    for number, video_id in enumerate(IDS):
        frames = {f.name: generator.integers(0, 256, (3, f.size), np.uint8) for f in SMALL_SPEC.features}
        payloads.append(encode_sequence_example(video_id, frames, [number % SMALL_CLASSES]))
    (folder / "train0000.tfrecord").write_bytes(b"".join(map(frame_record, payloads)))
    model_file(folder / "model.safetensors", AUDIO)
    return folder


def _calls(place: Path):
    return place / "model.safetensors", place / "train0000.tfrecord", {"progress": False}


def test_figures_and_checks(place, tmp_path):
    model, records, quiet = _calls(place)
    assert topgb.evaluate(model, records, **quiet).videos == len(IDS)
    assert topgb.verify(records, **quiet).sound == len(IDS)
    assert topgb.inspect(records, **quiet).records == len(IDS)
    decided = topgb.thresholds(model, records, tmp_path / "decided.safetensors", **quiet)
    assert topgb.evaluate(decided, records, **quiet).videos == len(IDS)


def test_predictions(place, tmp_path):
    model, records, quiet = _calls(place)
    topgb.predict(model, records, tmp_path / "challenge.csv", **quiet)
    with open(tmp_path / "challenge.csv", newline="", encoding="utf-8") as file:
        assert [row["VideoId"] for row in csv.DictReader(file)] == IDS
    assert check(tmp_path / "challenge.csv", IDS).count == 0
    topgb.predict(model, records, tmp_path / "table.csv", format="csv", top=1, **quiet)
    with open(tmp_path / "table.csv", newline="", encoding="utf-8") as file:
        assert [row["id"] for row in csv.DictReader(file)] == IDS
    topgb.predict(model, records, tmp_path / "table.jsonl", top=1, **quiet)
    lines = (tmp_path / "table.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == IDS
    parquet = pytest.importorskip("pyarrow.parquet")
    topgb.predict(model, records, tmp_path / "table.parquet", top=1, **quiet)
    assert parquet.read_table(tmp_path / "table.parquet")["id"].to_pylist() == IDS


def test_a_teachers_scores(place, tmp_path):
    model, records, quiet = _calls(place)
    topgb.distill(model, records, tmp_path / "scores", **quiet)
    recipe = {
        "data": {
            "level": "frame",
            "features": [{"name": f.name, "size": f.size} for f in SMALL_SPEC.features],
            "classes": SMALL_CLASSES,
        },
        "model": AUDIO,
        "training": {"epochs": 1, "batch_size": 5},
        "optimizer": {"learning_rate": 0.1},
    }
    try:
        run = topgb.train(recipe, records, tmp_path / "run", teacher=tmp_path / "scores", **quiet)
    finally:
        torch.set_flush_denormal(False)
    assert topgb.evaluate(run, records, **quiet).videos == len(IDS)


def test_the_report_names_them(place, tmp_path):
    model, records, quiet = _calls(place)
    topgb.report([model], records, tmp_path / "report.html", **quiet)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(html.escape(video) in page for video in IDS)
    assert "<i>/</i>" not in page


def test_fakes_by_id(place, tmp_path):
    _, records, quiet = _calls(place)
    with open(tmp_path / "stds.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["vids", "std"], *([video, 0.01 if n % 2 else 0.5] for n, video in enumerate(IDS))])
    topgb.drop_fakes(records, tmp_path / "real", stats=tmp_path / "stds.csv", fakes=tmp_path / "fakes.csv", **quiet)
    with open(tmp_path / "fakes.csv", newline="", encoding="utf-8") as file:
        assert [row["VideoId"] for row in csv.DictReader(file)] == IDS[1::2]
    assert topgb.verify(tmp_path / "real", **quiet).sound == len(IDS[::2])
