"""The five commands that are killed here, small enough to be run dozens of times."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import yaml

from faults.programs import Ended
from topgb.features import Feature, FeatureSpec
from topgb.modelfile import Header, Member, write_model_file
from topgb.modelfile.member import encode_member
from topgb.models import build_tagger, parse_model
from topgb.records.synth import SynthOptions, write_synthetic
from youtube8m.plan_server import PARTITION, PlanServer

SPEC = FeatureSpec("frame", (Feature("rgb", 64), Feature("audio", 16)))
CLASSES = 40
NAMES = ("train", "distill", "predict", "quantize", "download")
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

    @staticmethod
    def sums(files: dict[str, bytes]) -> dict[str, str]:
        """MD5 sums by file name, of files by relative path."""
        return {Path(path).name: hashlib.md5(content).hexdigest() for path, content in files.items()}

    def case(self, name: str, videos: Literal["all", "few"] = "all") -> Case:
        """The command of that name on all records, or on a shard of them."""
        records = str(self.folder / "records" / ("*.tfrecord" if videos == "all" else "r0000.tfrecord"))
        match name:
            case "train":
                begin = [
                    *("train", str(self.recipe), "--data", records, "--validate", records),
                    *("--device", "cpu", "--checkpoint-minutes", "0"),
                ]
                return Case(
                    name,
                    lambda out: [*begin, "--out", str(out / "run")],
                    lambda out: [*begin, "--out", str(out / "run"), "--resume"],
                )
            case "distill":
                return _same(name, lambda out: ["distill", str(self.model), records, "--out", str(out / "scores")])
            case "predict":
                return _same(
                    name, lambda out: ["predict", str(self.model), records, "--out", str(out / "predictions.csv.gz")]
                )
            case "quantize":
                settings = ["--method", "entropy", "--min-elements", "100", "--calibrate", records]
                return _same(
                    name,
                    lambda out: ["model", "quantize", str(self.model), "--out", str(out / "q.safetensors"), *settings],
                )
            case "download":
                where = ["--mirror", self.server.mirror, "--plans", self.server.plans, "--jobs", "3"]
                return _same(
                    name, lambda out: ["data", "download", str(out / "yt8m"), "--partition", PARTITION, *where]
                )
        raise AssertionError(name)


def make_inputs(folder: Path) -> Inputs:
    """Records, a recipe, a model file and a server; close the server."""
    write_synthetic(
        folder / "records", SPEC, CLASSES, 800, SynthOptions(videos_per_shard=100, frames=(20, 40), prefix="r")
    )
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
    files = {f"train{number:02d}.tfrecord": random.bytes(1_500_000) for number in range(24)}
    return Inputs(
        folder,
        folder / "recipe.yaml",
        folder / "model.safetensors",
        PlanServer(files),
    )


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


def _same(name: str, arguments: Callable[[Path], list[str]]) -> Case:
    return Case(name, arguments, arguments)


def succeeded(ended: Ended) -> Ended:
    """`ended`, which must have gone well."""
    assert ended.code == 0, ended.err
    return ended
