"""More classes than there is memory for: an error that names their number, before anything of that size is made."""

from dataclasses import replace

import pytest

import topgb
from cli.program import topgb as program
from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec
from topgb.records.synth import SynthOptions, write_synthetic
from topgb.training.loop import train

RECIPE = {
    "model": {"aggregator": "average", "head": {"name": "logistic"}},
    "training": {"batch_size": 8, "epochs": 1},
    "optimizer": {"learning_rate": 0.01},
}


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("head", ["logistic", "moe"])
@pytest.mark.parametrize(("level", "dtype"), [("frame", "uint8"), ("frame", "float32"), ("video", "float32")])
def test_training_names_the_number_of_classes(tmp_path, level, dtype, head, labelled):
    """Frames of bytes are looked at before training, with their labels: 32 videos would take 32 GB."""
    spec = FeatureSpec(level, (Feature("x", 16, dtype),))
    write_synthetic(tmp_path, spec, 5, 40, SynthOptions(labelled=labelled))
    entry = {"name": "x", "size": 16, "dtype": dtype}
    recipe = {**RECIPE, "data": {"level": level, "features": [entry], "classes": 5}}
    changed = {"data.classes": 1_000_000_000, "model.head.name": head}
    with pytest.raises(
        InputError, match=r"most of it for data\.classes=1000000000, but .* or data\.classes if the records"
    ):
        topgb.train(recipe, f"{tmp_path}/*.tfrecord", tmp_path / "run", set=changed, progress=False)
    assert not (tmp_path / "run").exists()


def test_the_command_names_it_too(small_recipe, small_records, tmp_path):
    options = ("--out", tmp_path / "run", "--set", "data.classes=1000000000")
    done = program("train", small_recipe, "--data", small_records["train"], *options)
    assert (done.returncode, "most of it for data.classes=1000000000, but" in done.stderr) == (2, True)


def test_other_sizes_are_not_blamed_on_the_classes(job, small_records, monkeypatch):
    monkeypatch.setattr("topgb.training.memory.free_memory", lambda device: 1000)
    with pytest.raises(InputError) as caught:
        train(replace(job, data=small_records["train"]))
    assert "lower the model's sizes" in str(caught.value)
    assert "data.classes" not in str(caught.value)


@pytest.mark.parametrize(
    ("sizes", "flags", "said"),
    [
        ({"classes": 10**9}, ["--classes", "1000000000"], r"1,000,000,000 classes take about .* lower (--)?classes$"),
        ({"classes": 10**14}, ["--classes", "100000000000000"], r"100000000000000 is too many; a model has"),
        (
            {"features": {"rgb": 10**9}},
            ["--features", "rgb:1000000000"],
            r"60 frames of 1,000,000,000 values take .* lower (--)?features or (--)?frames$",
        ),
        ({"frames": (1, 10**9)}, ["--frames", "1,1000000000"], "1,000,000,000 frames of 1,152 values take"),
    ],
)
def test_synthetic_records_of_too_many_values(tmp_path, sizes, flags, said):
    with pytest.raises(InputError, match=said):
        topgb.synth(tmp_path / "a", videos=3, progress=False, **sizes)
    done = program("data", "synth", tmp_path / "a", "--videos", "3", *flags)
    assert done.returncode == 2
    assert not (tmp_path / "a").exists()
