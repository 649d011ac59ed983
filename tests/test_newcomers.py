"""Newcomers' walks from the README to tagged clips, with features as people have them, in Python and in the shell."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch

import topgb
from cli.program import topgb as program

CLASSES = ("Kochen & Backen", "Fußball", "Gitarre")
CLIPS = 36
# Small and quick; a newcomer finds these options on the page about own features.
SMALL = {
    "model.clusters": 2,
    "model.hidden": 16,
    "model.dropout": 0,
    "training.epochs": 8,
    "training.batch_size": 8,
    "optimizer.learning_rate": 0.03,
}
SET = " ".join(f"--set {key}={value}" for key, value in SMALL.items())
PLACES = ("Küche/Brot & Brötchen/clip {}", "Küche/clip {}", "sport-videos/größte Tore {}")


def _frames(number: int, width: int, frames: int = 4, seed: int = 0) -> np.ndarray:
    """Frames of the clip: its class's centre with little noise. float32 [frames, width]"""
    centres = 3 * np.random.default_rng(width).normal(size=(len(CLASSES), width))
    noise = np.random.default_rng([seed, number]).normal(size=(frames, width))
    return (centres[number % len(CLASSES)] + noise).astype(np.float32)


def _id(number: int) -> str:
    return PLACES[number % len(PLACES)].format(number)


def _write_labels(path: Path, column: str, ending: str) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = [[_id(number) + ending, CLASSES[number % len(CLASSES)]] for number in range(CLIPS)]
        csv.writer(file).writerows([[column, "labels"], *rows])


def _save(folder: str, number: int, array: np.ndarray) -> None:
    # A Mac's file names.
    path = Path(folder) / (unicodedata.normalize("NFD", _id(number)) + ".npy")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def _nested() -> None:
    """Embeddings in nested folders with umlauts and spaces, and a CSV of the clips' own file names."""
    for number in range(CLIPS):
        _save("Meine Einbettungen", number, _frames(number, 6, 2 + number % 3))
    _write_labels(Path("Etiketten.csv"), "path", ".mp4")


def _two_features() -> None:
    """Picture and sound in a folder each; sound has more frames a second."""
    for number in range(CLIPS):
        _save("Bild", number, _frames(number, 6, 3))
        _save("Ton", number, _frames(number, 2, 7))
    _write_labels(Path("labels.csv"), "id", "")


def _parquet() -> None:
    """A table with ids, labels and features."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    frames = pa.array([_frames(number, 6).tolist() for number in range(CLIPS)], pa.list_(pa.list_(pa.float32())))
    labels = [[CLASSES[number % len(CLASSES)]] for number in range(CLIPS)]
    Path("daten").mkdir()
    pq.write_table(pa.table({"id": list(map(_id, range(CLIPS))), "labels": labels, "clip": frames}), "daten/a.parquet")


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _subnormal_numbers():
    yield
    torch.set_flush_denormal(False)


def _check_tags(rows: list[dict[str, str]], videos: int | None = None) -> None:
    """The best rows of the clips name their classes; a chance would be a third."""
    best: dict[str, dict[str, str]] = {}
    for row in rows:
        best.setdefault(row["id"], row)
    assert videos is None or len(best) == videos
    assert set(best) <= set(map(_id, range(CLIPS)))
    numbers = {video: int(re.search(r"\d+$", video).group()) for video in best}
    right = sum(row["name"] == CLASSES[numbers[video] % len(CLASSES)] for video, row in best.items())
    assert right > 0.8 * len(best)


def _in_this_process(lines: list[str]) -> str:
    printed = ""
    for line in lines:
        name, *arguments = shlex.split(line)
        assert name == "topgb"
        done = program(*arguments)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        printed += done.stdout
    return printed


def _in_a_shell(lines: list[str]) -> str:
    """The lines as they stand, in a shell of a locale that knows no umlauts, where Python does not help itself."""
    python = shlex.quote(sys.executable)
    script = "\n".join(["set -e", f'topgb() {{ {python} -m topgb "$@"; }}', *lines])
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run(["sh", "-c", script], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return (done.stdout + done.stderr).decode()


def test_nested_folders_in_the_shell(home):
    _nested()
    printed = _in_a_shell(
        [
            "topgb data pack 'Meine Einbettungen' --labels Etiketten.csv --out gepackt --validate 0.2",
            f"topgb train own-frames --data gepackt --out lauf {SET}",
            "topgb predict lauf gepackt --out 'tags of all.jsonl'",
        ]
    )
    assert f"{CLIPS} videos, frame level" in printed
    assert "best validation GAP" in printed
    lines = (home / "tags of all.jsonl").read_text(encoding="utf-8").splitlines()
    _check_tags([json.loads(line) for line in lines], CLIPS)


def test_nested_folders_in_python(home):
    _nested()
    packed = topgb.pack("Meine Einbettungen", "gepackt", labels="Etiketten.csv", validate=0.2, progress=False)
    assert (packed.train + packed.validate, packed.absent, packed.unlabelled) == (CLIPS, 0, 0)
    run = topgb.train("own-frames", "gepackt", "lauf", set=SMALL, progress=False)
    assert topgb.evaluate(run, "gepackt", progress=False).gap > 0.9
    model = topgb.load(run)
    for number in range(3):
        # A new clip of the class.
        (name, probability), *_ = model.tag(_frames(number, 6, seed=1))
        assert name == CLASSES[number]
        assert probability > 0.5


def test_two_features_in_the_shell(home):
    _two_features()
    stopped = program("data", "pack", "--feature", "bild=Bild", "--feature", "ton=Ton", "--out", "gepackt")
    assert stopped.returncode == 2
    assert "--frames longest" in stopped.stderr
    printed = _in_this_process(
        [
            "topgb data pack --feature bild=Bild --feature ton=Ton --frames longest --labels labels.csv --out gepackt "
            "--validate 0.2",
            f"topgb train own-frames --data gepackt --out lauf {SET}",
            "topgb eval lauf gepackt --json",
            "topgb predict lauf gepackt --out tags.csv --format csv --top 1",
        ]
    )
    assert "feature   bild: uint8, width 6" in printed
    assert "feature   ton: uint8, width 2" in printed
    assert json.loads(printed[printed.index("{") : printed.rindex("}") + 1])["gap"] > 0.9
    with open("tags.csv", newline="", encoding="utf-8") as file:
        _check_tags(list(csv.DictReader(file)), CLIPS)


def test_two_features_in_python(home):
    _two_features()
    folders = {"bild": "Bild", "ton": Path("Ton")}
    with pytest.raises(topgb.InputError, match="feature is a str; give a dict of folders by feature names"):
        topgb.pack(None, "gepackt", feature="Bild", progress=False)
    with pytest.raises(topgb.InputError, match="frames='longest'"):
        topgb.pack(None, "gepackt", feature=folders, labels="labels.csv", progress=False)
    topgb.pack(None, "gepackt", feature=folders, labels="labels.csv", frames="longest", validate=0.2, progress=False)
    run = topgb.train("own-frames", "gepackt", "lauf", set=SMALL, progress=False)
    assert topgb.evaluate(run, "gepackt", progress=False).gap > 0.9
    clip = {"bild": _frames(4, 6, seed=1), "ton": _frames(4, 2, seed=1)}
    assert topgb.load(run).tag(clip, top=1)[0][0] == CLASSES[1]


def test_parquet_in_the_shell(home):
    _parquet()
    _in_this_process(
        [
            "topgb data pack daten --out gepackt --validate 0.2",
            f"topgb train own-frames --data gepackt --out lauf {SET}",
            "topgb predict lauf gepackt --out tags.parquet",
        ]
    )
    parquet = pytest.importorskip("pyarrow.parquet")
    _check_tags(parquet.read_table("tags.parquet").to_pylist(), CLIPS)


def test_parquet_in_python(home):
    _parquet()
    topgb.pack("daten", "gepackt", validate=0.2, progress=False)
    run = topgb.train("own-frames", "gepackt", "lauf", set=SMALL, progress=False)
    assert topgb.evaluate(run, "gepackt", progress=False).gap > 0.9
    found = topgb.predict(run, "gepackt", progress=False)
    _check_tags([{"id": row["id"], "name": row["name"]} for row in found.to_pandas().to_dict("records")], CLIPS)
