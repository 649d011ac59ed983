"""A user's program: what a type checker makes of it is tested."""

from pathlib import Path

import numpy as np

import topgb


def tag_all(clips: dict[str, np.ndarray], model: topgb.Model) -> dict[str, list[tuple[str, float]]]:
    return {name: model.tag(frames, top=3) for name, frames in clips.items()}


def main(folder: Path) -> float:
    packed = topgb.pack(folder / "features", folder / "packed", labels=folder / "labels.csv", validate=0.2)
    names: tuple[str, ...] | None = packed.description.class_names()
    train, held_out = folder / "packed/train*.tfrecord", folder / "packed/validate*.tfrecord"
    run = topgb.train("demo", train, folder / "run", validate=held_out, set={"training.epochs": 2})
    scores = topgb.evaluate(run, [held_out], progress=False)
    small: Path = topgb.average([run, "other.safetensors"], folder / "mean.safetensors").path
    print(names, small, scores.to_dict()["gap"], scores.to_pandas())
    try:
        topgb.export(topgb.shrink([run], folder / "small.safetensors", budget="1MB", data=held_out), to="onnx")
    except topgb.InputError as error:
        print(error)
    return scores.gap
