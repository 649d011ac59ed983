"""The commands that are killed here, small enough to be run dozens of times.

A new command needs a line in `ARGUMENTS`, and its inputs in `make_inputs`.
"""

import hashlib
import shutil
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import yaml

from faults.programs import Ended
from topgb.evaluation.distill import distill, open_records
from topgb.features import Feature, FeatureSpec
from topgb.modelfile import Header, Member, load, write_model_file
from topgb.modelfile.member import encode_member
from topgb.models import build_tagger, parse_model
from topgb.records.synth import SynthOptions, write_synthetic
from youtube8m.plan_server import PARTITION, PlanServer

SPEC = FeatureSpec("frame", (Feature("rgb", 64), Feature("audio", 16)))
CLASSES = 40
OPTIMIZER = {"learning_rate": 0.01, "schedule": "constant"}
# Of a run these depend on nothing but the command; its curves tell when their lines were written.
TIMED = ("metrics.jsonl", "tensorboard")


@dataclass(frozen=True)
class Case:
    """A command that writes below a folder `out`: its arguments, and those of the call after a kill."""

    name: str
    arguments: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]]


@dataclass(frozen=True)
class Inputs:
    """What the commands read."""

    folder: Path
    recipe: Path
    model: Path
    server: PlanServer

    @property
    def shard(self) -> str:
        """One shard of the records, for what takes long on all of them."""
        return str(self.folder / "records" / "r0000.tfrecord")

    @staticmethod
    def sums(files: dict[str, bytes]) -> dict[str, str]:
        """MD5 sums by file name, of files by relative path."""
        return {Path(path).name: hashlib.md5(content).hexdigest() for path, content in files.items()}

    def case(self, name: str, videos: Literal["all", "few"] = "all") -> Case:
        """The command of that name on all records, or on a shard of them."""
        records = str(self.folder / "records" / "*.tfrecord") if videos == "all" else self.shard

        def arguments(out: Path) -> list[str]:
            return list(map(str, ARGUMENTS[name](self, records, out)))

        return Case(name, arguments, lambda out: [*arguments(out), *AGAIN.get(name, ())])


# What each command is called with, given the inputs, the records to read and the folder to write to.
ARGUMENTS: dict[str, Callable[[Inputs, str, Path], list[str | Path]]] = {
    "train": lambda inputs, records, out: [
        *("train", inputs.recipe, "--data", records, "--validate", records, "--out", out / "run"),
        *("--device", "cpu", "--checkpoint-minutes", "0"),
    ],
    "distill": lambda inputs, records, out: ["distill", inputs.model, records, "--out", out / "scores"],
    "predict": lambda inputs, records, out: ["predict", inputs.model, records, "--out", out / "predictions.csv.gz"],
    "predict-parquet": lambda inputs, records, out: [
        *("predict", inputs.model, records, "--out", out / "predictions.parquet"),
    ],
    "predict-segments": lambda inputs, records, out: [
        *("predict", inputs.model, inputs.folder / "rated", "--segments", "--memory", "1K"),
        *("--out", out / "segments.csv.gz"),
    ],
    "thresholds": lambda inputs, records, out: ["thresholds", inputs.model, records, "--out", out / "t.safetensors"],
    "card": lambda inputs, records, out: [
        *("model", "card", inputs.model, "--data", records, "--out", out / "card.md"),
    ],
    "quantize": lambda inputs, records, out: [
        *("model", "quantize", inputs.model, "--out", out / "q.safetensors", "--calibrate", records),
        *("--method", "entropy", "--min-elements", "100"),
    ],
    "download": lambda inputs, records, out: [
        *("data", "download", out / "yt8m", "--partition", PARTITION, "--jobs", "3"),
        *("--mirror", inputs.server.mirror, "--plans", inputs.server.plans),
    ],
    "pack": lambda inputs, records, out: [
        *(
            "data",
            "pack",
            inputs.folder / "features",
            "--labels",
            inputs.folder / "labels.csv",
            "--out",
            out / "packed",
        ),
        *("--out", out / "packed", "--validate", "0.2", "--videos-per-shard", "10"),
    ],
    "drop-fakes": lambda inputs, records, out: [
        *("data", "drop-fakes", records, out / "real", "--threshold", "0.35", "--fakes", out / "fakes.csv.gz"),
    ],
    "extract": lambda inputs, records, out: [
        *("extract", inputs.folder / "sounds", "--labels", inputs.folder / "sounds.csv", "--out", out / "extracted"),
        *("--extractor", "sound", "--jobs", "2"),
    ],
    "synth": lambda inputs, records, out: [
        *("data", "synth", out / "synth", "--features", "rgb:64", "--videos", "60", "--videos-per-shard", "20"),
    ],
    "shrink": lambda inputs, records, out: [
        *("model", "shrink", inputs.model, "--data", inputs.shard, "--budget", "100KB"),
        *("--out", out / "s.safetensors"),
    ],
    "remember": lambda inputs, records, out: [
        *("model", "remember", inputs.model, "--data", records, "--out", out / "memory.safetensors"),
    ],
    "rerank": lambda inputs, records, out: [
        *("model", "rerank", inputs.model, "--data", inputs.shard, "--scores", inputs.folder / "scores"),
        *("--out", out / "second.safetensors", "--epochs", "2"),
    ],
}
NAMES = tuple(ARGUMENTS)
# What the same command needs besides after a kill.
AGAIN = {"train": ["--resume"]}
# The commands that make a set of files.
SETS = ("pack", "extract", "drop-fakes", "synth")
# The commands that last longest, and are killed at random moments even in `make test`.
LONG = ("train", "distill", "predict", "quantize", "download")


def spare(name: str, dose: int, but: tuple[str, ...] = LONG) -> None:
    """Skip a test of the commands that are not in `but` where few kills are asked for."""
    if dose < 10 and name not in but:
        pytest.skip("make test stops it step by step, and make test-faults in all ways")


def make_inputs(folder: Path) -> Inputs:
    """Records, a recipe, a model file and a server; close the server."""
    write_synthetic(
        folder / "records", SPEC, CLASSES, 800, SynthOptions(videos_per_shard=100, frames=(20, 40), prefix="r")
    )
    write_synthetic(folder / "rated", SPEC, CLASSES, 100, SynthOptions(frames=(21, 44), segments=3))
    model = {"aggregator": "netvlad", "clusters": 16, "hidden": 64, "head": {"name": "moe"}}
    data = {
        "level": "frame",
        "features": [{"name": feature.name, "size": feature.size} for feature in SPEC.features],
        "classes": CLASSES,
    }
    training = {"batch_size": 64, "epochs": 2, "frames": "random:10", "batch_norm_momentum": 0.9}
    recipe = {"data": data, "model": model, "training": training, "optimizer": OPTIMIZER, "ema": {"halflife": 10}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    tagger = build_tagger(SPEC, CLASSES, parse_model(model))
    entries, tensors = encode_member(0, tagger.state_dict())
    header = Header(SPEC, CLASSES, (Member(1.0, parse_model(model)),), entries)
    write_model_file(folder / "model.safetensors", header, tensors)
    random = np.random.default_rng(0)
    _make_features(folder, random)
    _make_sounds(folder, random)
    teacher = load(folder / "model.safetensors")
    distill(teacher, open_records(teacher, str(folder / "records" / "*")), folder / "scores", torch.device("cpu"), {})
    files = {f"train{number:02d}.tfrecord": random.bytes(1_500_000) for number in range(24)}
    return Inputs(
        folder,
        folder / "recipe.yaml",
        folder / "model.safetensors",
        PlanServer(files),
    )


def _make_features(folder: Path, random: np.random.Generator) -> None:
    """A video's own features and their labels, for `pack`."""
    (folder / "features").mkdir()
    rows = ["id,labels"]
    for number in range(30):
        np.save(folder / f"features/v{number:02d}.npy", random.normal(size=(8, 16)).astype(np.float32))
        rows.append(f"v{number:02d},class {number % 3}")
    (folder / "labels.csv").write_text("\n".join(rows))


def _make_sounds(folder: Path, random: np.random.Generator) -> None:
    """Sounds of two seconds and their labels, for `extract`."""
    (folder / "sounds").mkdir()
    rows = ["path,labels"]
    for number in range(6):
        with wave.open(str(folder / f"sounds/s{number}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(random.integers(-9000, 9000, 32000, dtype=np.int16).tobytes())
        rows.append(f"s{number}.wav,class {number % 2}")
    (folder / "sounds.csv").write_text("\n".join(rows))


def final_files(out: Path) -> dict[str, bytes]:
    """What the command left below `out`, by relative path, without what tells the time."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and not any(part in TIMED for part in path.relative_to(out).parts)
    }


def fresh(out: Path) -> Path:
    """`out`, made empty."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    return out


def succeeded(ended: Ended) -> Ended:
    """`ended`, which must have gone well."""
    assert ended.code == 0, ended.err
    return ended
