"""A glob that the shell has filled in is answered by one sentence, whatever command it was meant for."""

import glob
import shutil
from pathlib import Path

import pytest

from cli.program import topgb
from combining.small_models import model_file


@pytest.fixture
def shards(small_records, tmp_path) -> list[str]:
    for path in glob.glob(small_records["train"]):
        shutil.copy(path, tmp_path)
    return sorted(glob.glob(f"{tmp_path}/train*.tfrecord"))


@pytest.mark.parametrize(
    "command",
    [
        ["data", "inspect", "{shards}"],
        ["data", "verify", "{shards}"],
        ["data", "drop-fakes", "{shards}", "{out}"],
        ["train", "{recipe}", "--out", "{out}", "--data", "{shards}"],
        ["eval", "{model}", "{shards}"],
        ["eval", "{model}", "{shards}", "--json"],
        ["predict", "{model}", "{shards}", "--out", "{out}"],
        ["distill", "{model}", "{shards}", "--out", "{out}"],
        ["compare", "{model}", "{model}", "{shards}"],
        ["model", "quantize", "{model}", "--out", "{out}", "--method", "int8", "--check", "{shards}"],
        ["submission", "check", "{model}", "--data", "{shards}"],
    ],
    ids=" ".join,
)
def test_the_sentence_says_quotes(command, shards, small_recipe, tmp_path):
    model, out = model_file(tmp_path / "m.safetensors"), tmp_path / "out"
    filled: list[str | Path] = []
    for word in command:
        filled += shards if word == "{shards}" else [word.format(model=model, out=out, recipe=small_recipe)]
    done = topgb(*filled)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("topgb: ")
    assert "in quotes" in done.stderr
    assert "*" in done.stderr
    assert not out.exists()


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_features_to_pack_are_named_alike(suffix, tmp_path):
    files = [tmp_path / f"clip{number}{suffix}" for number in range(3)]
    for file in files:
        file.write_bytes(b"")
    done = topgb("data", "pack", *files, "--out", tmp_path / "packed")
    assert done.returncode == 2
    assert done.stderr.endswith(f"put it in quotes: '{tmp_path}/clip*{suffix}'\n")


@pytest.mark.parametrize("command", ["ensemble", "average", "shrink"])
def test_records_among_models_are_told(command, shards, tmp_path):
    models = [model_file(tmp_path / f"{seed}.safetensors", seed=seed) for seed in (0, 1)]
    more = {
        "ensemble": ["--fit-weights", *shards],
        "average": shards,
        "shrink": ["--budget", "1MB", "--data", *shards],
    }[command]
    done = topgb("model", command, *models, "--out", tmp_path / "out", *more)
    assert done.returncode == 2
    assert "holds records, where a model file is wanted; put a glob of records in quotes" in done.stderr
    assert "download it again" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_other_surplus_arguments_are_named(tmp_path):
    done = topgb("eval", "m.safetensors", "records*", "more", "and more")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "topgb: 'more' and 1 more are too much; topgb eval --help lists what it takes\n"


def test_the_case_unquoted_glob(cases):
    shards = sorted((cases / "unquoted-glob").glob("held*.tfrecord"))
    done = topgb("data", "inspect", *shards)
    assert done.returncode == 2
    assert done.stderr.endswith(f"put it in quotes: '{cases}/unquoted-glob/held*.tfrecord'\n")
