"""No command destroys records, a model or scores by writing something else over them, also with --force."""

import gzip
import json
from pathlib import Path
from typing import NamedTuple

import click
import pytest
import typer
from typer.core import TyperGroup

import topgb as topgb_in_python
from cli.program import topgb
from combining.small_models import model_file
from conftest import SMALL_CLASSES, SMALL_SPEC
from topgb.cli.main import app
from topgb.records.synth import SynthOptions, write_synthetic

# What each command that takes --force needs in order to write one file.
FILES = {
    "predict": "{model} {data} --out {out}",
    "eval": "{model} {data} --per-class {out}",
    "report": "{model} {data} --out {out}",
    "data drop-fakes": "{data} {folder} --fakes {out}",
    "submission concat": "{csv} {csv} --out {out}",
    "model card": "{model} --data {data} --out {out}",
    "model export": "{model} --to pt2 --out {out}",
}
MODELS = {
    "thresholds": "{model} {data} --out {out}",
    "build": "{run} --out {out}",
    "model quantize": "{model} --method entropy --calibrate {data} --out {out}",
    "model shrink": "{model} --budget 1MB --data {data} --out {out}",
    "model average": "{model} {model} --out {out}",
    "model ensemble": "{model} {model} --fit-weights {data} --out {out}",
    "model remember": "{model} --data {data} --out {out}",
    "model rerank": "{model} --data {data} --scores {scores} --out {out}",
    "model import-tf": "{csv} --out {out}",
}
# These write a set of files into a folder.
FOLDERS = {"demo", "extract", "train", "distill", "data download", "data pack", "data synth"}
COMMANDS = FILES | MODELS
HELD = ("records", "gzipped records", "hard link", "a model", "tensors")
# A model may replace a model.
CASES = [(name, held) for name in COMMANDS for held in HELD if (held != "a model" or name in FILES)]


class Inputs(NamedTuple):
    model: Path
    data: Path
    scores: Path
    csv: Path
    run: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory, small_recipe) -> Inputs:
    folder = tmp_path_factory.mktemp("inputs")
    (shard,) = write_synthetic(folder, SMALL_SPEC, SMALL_CLASSES, 40, SynthOptions(frames=(2, 3)))
    model = model_file(folder / "m.safetensors")
    assert topgb("distill", model, shard, "--out", folder / "scores").returncode == 0
    (folder / "a.csv").write_text("VideoId,LabelConfidencePairs\na,0 0.5\n")
    run = folder / "run"
    done = topgb("train", small_recipe, "--data", shard, "--out", run, "--set", "training.epochs=1")
    assert done.returncode == 0, done.stderr
    return Inputs(model, shard, folder / "scores", folder / "a.csv", run)


def _with_force(command: click.Command, words: tuple[str, ...] = ()) -> list[str]:
    if isinstance(command, TyperGroup):
        context = click.Context(command)
        children = {word: command.get_command(context, word) for word in command.list_commands(context)}
        return [name for word, child in children.items() for name in _with_force(child, (*words, word))]
    return [" ".join(words)] if any("--force" in each.opts for each in command.params) else []


def test_every_command_that_overwrites_is_tried():
    assert set(_with_force(typer.main.get_command(app))) == set(COMMANDS) | FOLDERS


@pytest.mark.parametrize(("name", "held"), CASES)
def test_what_a_file_holds_is_not_destroyed(made, tmp_path, name, held):
    out = tmp_path / "out"
    if held == "records":
        out.write_bytes(made.data.read_bytes())
    elif held == "gzipped records":
        out.write_bytes(gzip.compress(made.data.read_bytes()))
    elif held == "hard link":
        out.hardlink_to(made.data)
    else:
        source = made.model if held == "a model" else next(made.scores.glob("*.safetensors"))
        out.write_bytes(source.read_bytes())
    before = out.read_bytes()
    words = [part.format(**made._asdict(), out=out, folder=tmp_path / "folder") for part in COMMANDS[name].split()]
    done = topgb(*name.split(), *words, "--force")
    kind = held if held in ("a model", "tensors") else "records"
    assert done.returncode == 2, done.stdout
    assert f"{out} holds {kind}, which --force does not overwrite with something else" in done.stderr
    assert out.read_bytes() == before


@pytest.mark.parametrize("name", COMMANDS)
def test_a_dash_is_no_file(made, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    words = [part.format(**made._asdict(), out="-", folder="folder") for part in COMMANDS[name].split()]
    done = topgb(*name.split(), *words, "--force")
    assert done.returncode == 2
    assert "give the file a name in place of '-'" in done.stderr
    assert not (tmp_path / "-").exists()


def test_the_size_before_is_that_of_the_model_which_is_replaced(made, tmp_path):
    model = tmp_path / "m.safetensors"
    model.write_bytes(made.model.read_bytes())
    quantised = ("model", "quantize", model, "--method", "int8", "--min-elements", "10", "--out", model, "--force")
    found = json.loads(topgb(*quantised, "--json").stdout)
    assert (found["bytes_before"], found["bytes_after"]) == (made.model.stat().st_size, model.stat().st_size)
    assert found["bytes_before"] > found["bytes_after"]
    model.write_bytes(made.model.read_bytes())
    small = topgb_in_python.quantize(model, model, method="int8", min_elements=10, force=True, progress=False)
    assert (small.bytes_before, small.bytes_after) == (found["bytes_before"], found["bytes_after"])


@pytest.mark.parametrize("name", ["model quantize", "model average", "thresholds"])
def test_a_model_may_take_the_place_of_a_model_even_of_its_own(made, tmp_path, name):
    model = tmp_path / "m.safetensors"
    model.write_bytes(made.model.read_bytes())
    words = [part.format(**{**made._asdict(), "model": model}, out=model) for part in COMMANDS[name].split()]
    done = topgb(*name.split(), *words, "--force")
    assert done.returncode == 0, done.stderr
    assert topgb("model", "show", model).returncode == 0


@pytest.mark.parametrize("segments", [False, True])
def test_a_list_of_classes_is_not_overwritten_by_the_predictions_that_it_is_for(made, tmp_path, segments):
    classes = tmp_path / "classes.csv"
    names = "".join(f"{number},name {number}\n" for number in range(SMALL_CLASSES))
    classes.write_text("Index\n0\n1\n" if segments else f"Index,Name\n{names}")
    before = classes.read_bytes()
    words = ("--segments", "--classes", classes) if segments else ("--vocabulary", classes)
    done = topgb("predict", made.model, made.data, *words, "--out", classes, "--force")
    assert done.returncode == 2
    assert f"{classes} is read by this command" in done.stderr
    assert classes.read_bytes() == before
