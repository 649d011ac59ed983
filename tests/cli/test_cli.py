"""The program itself, from outside: exit codes, sentences, and the whole path."""

import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cli.program import topgb as _topgb
from conftest import SMALL_CLASSES
from topgb.cli.main import COMMANDS, COMMANDS_OF, GROUPS
from topgb.modelfile import read_model_file, write_model_file
from topgb.records.codec import encode_sequence_example
from topgb.records.framing import frame_record


@pytest.fixture(scope="module")
def run(tmp_path_factory, small_recipe, small_records) -> Path:
    out = tmp_path_factory.mktemp("cli") / "run"
    done = _topgb("train", small_recipe, "--data", small_records["train"], "--out", out, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out / "model.safetensors")
    assert done.stderr.startswith("memory: weights ")
    return out


def test_help_waits_for_nothing_heavy():
    heavy = {"torch", "numpy", "matplotlib", "pydantic"}
    code = f"import sys; from topgb.cli import main; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_listing_of_commands_waits_for_none_that_is_not_printed():
    # Typer's own pages wait for Markdown's reader and for Pygments.
    code = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
sys.argv[1:] = ["--help"]
from topgb.__main__ import run
run()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"markdown_it", "pygments", "rich.markdown", "rich.traceback", "typer.rich_utils", "html", "json"}
    assert not heavy & set(done.stderr.split())


@pytest.mark.parametrize(("group", "lazy"), [("", COMMANDS), *COMMANDS_OF.items()])
def test_a_listing_says_what_each_command_does(group, lazy):
    done = subprocess.run(
        [sys.executable, "-m", "topgb", *group.split(), "--help"],
        capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    rows = [" ".join(line.strip("│ ").split()) for line in done.stdout.splitlines()]
    for name, place in lazy.items():
        module, _, function = place.partition(":")
        words = inspect.getdoc(getattr(importlib.import_module(module), function)).split("\n\n")[0]
        assert f"{name} {' '.join(words.split())}" in rows
    if not group:
        assert all(f"{name} {words}" in rows for name, words in GROUPS.items())


def test_the_program_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "topgb", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("topgb ")


@pytest.mark.parametrize(
    "command",
    [
        "",
        "demo",
        "train",
        "build",
        "eval",
        "predict",
        "data",
        "data inspect",
        "data verify",
        "data synth",
        "model show",
    ],
)
def test_every_command_has_help(command):
    done = _topgb(*command.split(), "--help")
    assert done.returncode == 0
    assert "Usage: topgb" in done.stdout


def test_eval_prints_one_json_object(run, small_records, tmp_path):
    done = _topgb(
        "eval", run / "model.safetensors", small_records["validate"], "--json", "--per-class", tmp_path / "c.csv"
    )
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    ranked, decided = {"gap", "hit_at_1", "perr", "map", "map_present", "loss"}, {"precision", "recall", "f1"}
    assert set(scores) == {"videos", "threshold", *ranked} | {f"{n}_{m}" for n in decided for m in ("micro", "macro")}
    assert scores["videos"] == 90
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 13


def test_eval_samples_frames(run, small_records):
    arguments = ["eval", run / "model.safetensors", small_records["validate"]]
    sampled = ["--frames", "random:6", "--rounds", "3", "--seed", "5"]
    scores = json.loads(_topgb(*arguments, *sampled, "--json").stdout)
    losses = [scores["loss"] for scores in scores["rounds"]]
    assert len(set(losses)) == 3
    assert scores["loss"] == pytest.approx(np.mean(losses))
    assert scores["videos"] == 90
    words = _topgb(*arguments, *sampled).stdout
    assert f"loss     {np.mean(losses):.4f} ± {np.std(losses, ddof=1):.4f}\n" in words
    assert "rounds   3, mean ± standard deviation\n" in words
    once = json.loads(_topgb(*arguments, *sampled[:2], "--seed", "5", "--json").stdout)
    assert once == {**scores["rounds"][0], "threshold": 0.5}
    assert "±" not in _topgb(*arguments, *sampled[:2]).stdout
    every = _topgb(*arguments, "--json").stdout
    assert every == _topgb(*arguments, "--json", "--frames", "all").stdout
    assert json.loads(every)["loss"] not in losses


def test_eval_of_a_run_chooses_the_weights(run, small_records):
    figures = [
        json.loads(_topgb("eval", run, small_records["validate"], "--json", flag).stdout)["loss"]
        for flag in ("--use-ema", "--no-use-ema")
    ]
    assert figures[0] != figures[1]
    words = _topgb("eval", run, small_records["validate"]).stdout
    assert f"{figures[0]:.4f}" in words


def test_build_and_show(run, tmp_path):
    done = _topgb("build", run, "--no-use-ema", "--out", tmp_path / "raw.safetensors")
    assert "raw weights of step 24" in done.stdout
    shown = json.loads(_topgb("model", "show", tmp_path / "raw.safetensors", "--json").stdout)
    assert shown["members"][0]["model"]["aggregator"] == "netvlad"
    assert shown["origin"]["weights"] == "raw"
    assert "total" in _topgb("model", "show", tmp_path / "raw.safetensors").stdout


def test_predict_writes_the_csv(run, small_records, tmp_path):
    done = _topgb("predict", run, small_records["unlabelled"], "--out", tmp_path / "p.csv")
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 21


def test_synth_inspect_verify(tmp_path):
    folder = tmp_path / "records"
    done = _topgb("data", "synth", folder, "--videos", 30, "--classes", 5, "--features", "x:16", "--frames", "2,4")
    assert done.returncode == 0, done.stderr
    found = json.loads(_topgb("data", "inspect", folder / "*.tfrecord", "--json").stdout)
    assert (found["records"], found["level"], found["features"][0]["name"]) == (30, "frame", "x")
    assert "size: 16" in _topgb("data", "inspect", folder / "*.tfrecord").stdout
    assert _topgb("data", "verify", folder / "*.tfrecord").returncode == 0
    shard = next(folder.iterdir())
    raw = bytearray(shard.read_bytes())
    raw[-20] ^= 4
    shard.write_bytes(bytes(raw))
    broken = _topgb("data", "verify", folder / "*.tfrecord")
    assert broken.returncode == 1
    assert f"{shard}: record 29 at byte" in broken.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["eval", "{model}", "{tmp}/none*.tfrecord"], "none*.tfrecord"),
        (["eval", "{model}", "{tmp}"], "holds no *.tfrecord or *.tfrecord.gz"),
        (["eval", "{model}", "{unlabelled}"], "topgb predict"),
        (["eval", "{tmp}/absent.safetensors", "{validate}"], "there is no file"),
        (["eval", "{model}", "{validate}", "--use-ema"], "chooses among the weights"),
        (["eval", "{tmp}", "{validate}"], "not a run"),
        (["eval", "{model}", "{validate}", "--device", "abacus"], "no device 'abacus'"),
        (["eval", "{model}", "{validate}", "--per-class", "{model}"], "--force"),
        (["eval", "{model}", "{validate}", "--rounds", "2"], "go with sampled frames"),
        (["eval", "{model}", "{validate}", "--seed", "0"], "go with sampled frames"),
        (["eval", "{model}", "{validate}", "--frames", "some"], "frame sampling 'some'"),
        (["eval", "{model}", "{validate}", "--frames", "random:301"], "'model.max_frames' is 300"),
        (
            ["eval", "{model}", "{validate}", "--frames", "shuffle", "--rounds", "2", "--per-class", "{tmp}/c"],
            "one round",
        ),
        (["predict", "{model}", "{validate}", "--out", "{model}"], "exists already"),
        (["predict", "{model}", "{validate}", "--out", "{recipe}"], "--force"),
        (["build", "{tmp}"], "not a run"),
        (["train", "absent", "--data", "{validate}", "--out", "{tmp}/r"], "no recipe 'absent'"),
        (["train", "demo", "--data", "{validate}", "--out", "{tmp}/r", "--set", "model.clutsers=3"], "model.clutsers"),
        (["train", "demo", "--data", "{validate}", "--out", "{tmp}/r"], "rgb"),
        (["train", "{recipe}", "--data", "{validate}", "--out", "{run}"], "--resume"),
        (["train", "{recipe}", "--data", "{validate}", "--out", "{tmp}/r", "--set", "data.classes=3"], "classes"),
        (["train", "{recipe}", "--data", "{validate}", "--out", "{tmp}/r", "--ema-halflife", "3"], "--ema-source"),
        (["train", "{recipe}", "--data", "{validate}", "--out", "{tmp}/r", "--device", "abacus"], "abacus"),
        (["data", "inspect", "{tmp}/none"], "none"),
        (["data", "synth", "{tmp}/s", "--features", "rgb"], "NAME:SIZE"),
        (["data", "synth", "{tmp}/s", "--frames", "5"], "FEWEST,MOST"),
        (["model", "show", "{recipe}"], "not a safetensors file"),
    ],
    ids=lambda value: "-".join(value)[:60] if isinstance(value, list) else "",
)
def test_bad_input_gets_one_sentence_and_exit_code_2(arguments, words, run, small_recipe, small_records, tmp_path):
    names = {"model": run / "model.safetensors", "run": run, "tmp": tmp_path, "recipe": small_recipe, **small_records}
    done = _topgb(*(argument.format(**names) for argument in arguments))
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("topgb: ")
    assert sum(line.startswith("topgb: ") for line in done.stderr.splitlines()) == 1


def _damaged(kind: str, source: Path, target: Path) -> None:
    """A shard with one thing wrong, made from a sound one."""
    raw = bytearray(source.read_bytes())
    rgb, audio = np.zeros((3, 32), np.uint8), np.zeros((3, 8), np.uint8)
    records = {
        "zero frames": {"rgb": rgb[:0], "audio": audio[:0]},
        "unequal frame counts": {"rgb": rgb, "audio": audio[:2]},
        "another width": {"rgb": rgb[:, :30], "audio": audio},
        "another feature": {"red": rgb, "audio": audio},
        "label outside": {"rgb": rgb, "audio": audio},
    }
    if kind == "flipped byte":
        raw[-20] ^= 1
    elif kind == "truncated":
        del raw[-20:]
    elif kind == "empty":
        raw.clear()
    else:
        raw[:] = frame_record(
            encode_sequence_example("v", records[kind], [SMALL_CLASSES if kind == "label outside" else 0])
        )
    target.write_bytes(bytes(raw))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("flipped byte", "does not match its CRC"),
        ("truncated", "cut off"),
        ("empty", "empty"),
        ("zero frames", "no frames"),
        ("unequal frame counts", "frames"),
        ("another width", "30 wide"),
        ("another feature", "'rgb'"),
        ("label outside", "label 12 is outside the 12 classes"),
    ],
)
def test_damaged_records_are_named(kind, words, run, small_records, tmp_path):
    shard = tmp_path / "shard.tfrecord"
    _damaged(kind, sorted(Path(small_records["validate"]).parent.glob("validate*"))[0], shard)
    done = _topgb("eval", run / "model.safetensors", shard)
    assert done.returncode == 2
    assert words in done.stderr
    assert str(shard) in done.stderr
    assert done.stderr.count("topgb: ") == 1


@pytest.mark.parametrize(
    ("kind", "words"), [("truncated", "cut off"), ("nan", "not finite"), ("newer", "upgrade topgb")]
)
def test_broken_model_files_are_refused(kind, words, run, small_records, tmp_path):
    header, tensors = read_model_file(run / "model.safetensors")
    path = tmp_path / "model.safetensors"
    if kind == "nan":
        next(iter(tensors.values())).view(-1)[0] = float("nan")
    write_model_file(path, header, tensors)
    if kind == "newer":
        path.write_bytes(path.read_bytes().replace(b'\\"version\\":1', b'\\"version\\":4'))
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    done = _topgb("eval", path, small_records["validate"])
    assert done.returncode == 2
    assert words in done.stderr
    assert str(path) in done.stderr


def test_a_full_disk_is_a_failure_not_bad_input(run, small_records):
    done = _topgb("predict", run, small_records["unlabelled"], "--out", "/proc/nowhere/p.csv")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("topgb: cannot write /proc/nowhere/p.csv")
