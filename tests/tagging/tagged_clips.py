"""A model for the features of small clips, and records of these clips."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import topgb
from cli.program import topgb as program
from combining.small_models import model_file
from topgb.modelfile import read_model_file, write_model_file
from topgb.records.description import FILE, read_description, write_description
from topgb.video.extract import extract_video
from topgb.video.extractors import find_extractor
from video.clips import write_clip

NAMES = ("tone", "hum <i>", "{\\an8}noise", "a,b", "\x1b[2J")


@dataclass(frozen=True)
class Clips:
    """Videos by name, the folder with their records, and a model for these."""

    videos: dict[str, Path]
    records: Path
    model: Path


def make_clips(folder: Path, extractor_name: str, seconds: dict[str, float], **section: Any) -> Clips:
    """Encode clips of so many seconds, extract and pack them, and make a model of random weights for their records."""
    extractor = find_extractor(extractor_name)
    for name in ("clips", "features"):
        (folder / name).mkdir(parents=True)
    videos = {}
    for number, (name, length) in enumerate(seconds.items()):
        videos[name] = write_clip(folder / "clips" / f"{name}.mp4", length, seed=number, hertz=300 + 200 * number)
        np.savez(folder / "features" / f"{name}.npz", **extract_video(str(videos[name]), extractor).arrays)
    records = folder / "records"
    topgb.pack(folder / "features", records, progress=False)
    described = replace(read_description(records / FILE), extractor=dict(extractor.identity))
    write_description(described, force=True)
    options = {"aggregator": "average", "head": {"name": "logistic"}, "normalization": "none", **section}
    model = model_file(folder / "model.safetensors", options, features=described.spec, classes=5, class_names=NAMES)
    header, tensors = read_model_file(model)
    write_model_file(model, replace(header, extras={"extractor": dict(extractor.identity)}), tensors, force=True)
    return Clips(videos, records, model)


def assert_as_predicted(clips: Clips) -> None:
    """`topgb tag` says of the videos what `topgb predict` says of their records."""
    predicted = topgb.predict(clips.model, clips.records, top=5, progress=False).to_dict()["predictions"]
    done = program("tag", clips.model, *clips.videos.values(), "--json")
    assert done.returncode == 0, done
    for name, video in zip(clips.videos, json.loads(done.stdout)["videos"], strict=True):
        given = [(tag["class"], tag["name"]) for tag in video["tags"]]
        assert given == [(number, title) for number, title, _ in predicted[name]]
        # Other batches, so other orders of summation.
        probabilities = [tag["probability"] for tag in video["tags"]]
        np.testing.assert_allclose(probabilities, [p for _, _, p in predicted[name]], atol=1e-5)
