"""Two processes that train one model: the same weights as one, stopped and resumed, and what each of them says."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from cli.program import topgb
from conftest import SMALL_CLASSES, SMALL_SPEC
from topgb.errors import InputError
from topgb.records.framing import index_records
from topgb.records.synth import SynthOptions, write_synthetic
from topgb.tensors import load_tensors
from topgb.training.checkpoint import latest_checkpoint
from topgb.training.job import TrainingJob
from topgb.training.loop import train
from topgb.training.ranks import planned_ranks
from topgb.training.recipe import load_recipe

# Without dropout, whose draws differ between one batch and two halves of it.
NO_DROPOUT = ["--set", "model.dropout=0"]

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this PyTorch has no gloo backend")


def _command(recipe: Path | str, records: dict[str, str], out: Path, *more: str) -> list[str]:
    validate = ["--validate", records["validate"]]
    return ["train", str(recipe), "--data", records["train"], *validate, "--out", str(out), "--device", "cpu", *more]


def _root_mean_square(tensors: list[torch.Tensor]) -> float:
    return float(torch.cat([tensor.double().flatten() for tensor in tensors]).square().mean().sqrt())


def _validations(run: Path) -> list[dict]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["validation"] for line in lines if "validation" in line]


@pytest.fixture
def average_recipe(tmp_path) -> Path:
    """A model without batch norm."""
    path = tmp_path / "average.yaml"
    path.write_text(
        """
data: {level: frame, features: [{name: rgb, size: 32}, {name: audio, size: 8}], classes: 12}
model: {aggregator: average, head: {name: moe}}
training: {batch_size: 32, epochs: 3}
optimizer: {learning_rate: 0.01}
ema: {halflife: 10}
"""
    )
    return path


@pytest.mark.parametrize("kind", ["without batch norm", "with batch norm"])
def test_two_ranks_train_as_one_with_the_double_batch(
    kind, average_recipe, small_recipe, small_records, two_ranks, tmp_path
):
    recipe, settings = (average_recipe, []) if kind == "without batch norm" else (small_recipe, NO_DROPOUT)
    command = _command(recipe, small_records, tmp_path / "one", *settings, "--set", "training.batch_size=64")
    one = topgb(*command)
    two, other = two_ranks(_command(recipe, small_records, tmp_path / "two", *settings))
    assert (one.returncode, two.code, other.code) == (0, 0, 0), one.stderr + two.err + other.err
    assert two.out.splitlines() == [str(tmp_path / "two" / "model.safetensors")]
    assert not other.out
    first, second = (latest_checkpoint(tmp_path / name) for name in ("one", "two"))
    assert first is not None
    assert second is not None
    assert first.progress["examples"] == second.progress["examples"] == 3 * 230
    assert first.ema is not None
    assert second.ema is not None
    for ours, theirs in ((first.weights, second.weights), (first.ema, second.ema)):
        assert ours.keys() == theirs.keys()
        difference = _root_mean_square([ours[name] - theirs[name] for name in ours])
        # Where a gradient is all but zero, Adam makes a full step of its rounding.
        assert difference < 2e-3 * _root_mean_square(list(ours.values()))
    for ours, theirs in zip(_validations(tmp_path / "one"), _validations(tmp_path / "two"), strict=True):
        assert ours["videos"] == theirs["videos"] == 90
        for key in ("gap", "map", "loss"):
            assert theirs[key] == pytest.approx(ours[key], rel=2e-3)


def test_one_step_of_two_ranks_has_the_gradient_of_the_double_batch(small_recipe, small_records, two_ranks, tmp_path):
    settings = [*NO_DROPOUT, "--set", "training.epochs=1", "--set", "optimizer.clip_norm=null"]
    one = topgb(*_command(small_recipe, small_records, tmp_path / "one", *settings, "--set=training.batch_size=230"))
    # Each half in uneven pieces.
    halves = ["--set=training.batch_size=115", "--set=training.accumulate=1"]
    two, other = two_ranks(_command(small_recipe, small_records, tmp_path / "two", *settings, *halves))
    assert (one.returncode, two.code, other.code) == (0, 0, 0), one.stderr + two.err + other.err
    # After one step Adam's first moment is a tenth of the gradient.
    folders = [tmp_path / name / "checkpoints/step-0000000001" for name in ("one", "two")]
    ours, theirs = (load_tensors(folder / "optimizer.safetensors")[0] for folder in folders)
    largest = max(float(value.abs().max()) for name, value in ours.items() if name.endswith("exp_avg"))
    for name, value in ours.items():
        if name.endswith(".exp_avg"):
            torch.testing.assert_close(theirs[name], value, rtol=1e-4, atol=1e-5 * largest)
    # Statistics of all rows, too.
    ours, theirs = (load_tensors(folder / "weights.safetensors")[0] for folder in folders)
    moving = [name for name in ours if "running" in name]
    assert moving
    for name in moving:
        torch.testing.assert_close(theirs[name], ours[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["three records", "all but one of four records damaged"])
def test_steps_may_have_fewer_videos_than_there_are_ranks(kind, small_recipe, two_ranks, tmp_path):
    count, on_damaged = (3, "stop") if kind == "three records" else (4, "skip")
    (shard,) = write_synthetic(tmp_path, SMALL_SPEC, SMALL_CLASSES, count, SynthOptions(frames=(4, 9), seed=1))
    if count == 4:
        raw = bytearray(shard.read_bytes())
        for start in index_records(memoryview(bytes(raw))).offsets[1:]:
            raw[start + 20] ^= 1
        shard.write_bytes(bytes(raw))
    data = ["--data", str(shard), "--device", "cpu", "--on-damaged", on_damaged, "--workers", "1"]
    # Batch norm over one video is refused where the number of records tells.
    plain = ["model.batch_norm=false"] if count == 3 else []
    more = [*NO_DROPOUT, "--out", str(tmp_path / "two"), "--set=training.batch_size=1"]
    for rank in two_ranks(["train", str(small_recipe), *data, *more, *(f"--set={setting}" for setting in plain)]):
        assert rank.code == 0, rank.err
    recipe = load_recipe(str(small_recipe), ["model.dropout=0", "training.batch_size=2", *plain])
    train(TrainingJob(recipe, str(shard), tmp_path / "one", device="cpu", on_damaged=on_damaged))
    first, second = (latest_checkpoint(tmp_path / name) for name in ("one", "two"))
    assert first is not None
    assert second is not None
    assert first.progress["updates"] == second.progress["updates"] > 0
    for name, value in first.weights.items():
        torch.testing.assert_close(second.weights[name], value, rtol=1e-3, atol=1e-4)


def test_ranks_stopped_by_sigterm_go_on_to_the_same_weights(small_recipe, small_records, two_ranks, tmp_path):
    longer = ["--set", "training.epochs=15"]
    for rank in two_ranks(_command(small_recipe, small_records, tmp_path / "whole", *longer)):
        assert rank.code == 0, rank.err
    command = _command(small_recipe, small_records, tmp_path / "stopped", *longer, "--devices", "2")
    process = subprocess.Popen([sys.executable, "-m", "topgb", *command], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list((tmp_path / "stopped").glob("checkpoints/step-*2")):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 143, told
    assert "as SIGTERM asked; the same command with --resume goes on" in told
    assert "Traceback" not in told
    assert not (tmp_path / "stopped/model.safetensors").exists()
    for rank in two_ranks([*_command(small_recipe, small_records, tmp_path / "stopped", *longer), "--resume"]):
        assert rank.code == 0, rank.err
    model = "model.safetensors"
    assert (tmp_path / "stopped" / model).read_bytes() == (tmp_path / "whole" / model).read_bytes()
    # The order of the records depends on how many ranks there are.
    alone = topgb(*_command(small_recipe, small_records, tmp_path / "stopped", *longer), "--resume")
    assert alone.returncode == 2
    assert "was started with ranks = 2, now it is None" in alone.stderr


def test_what_all_ranks_find_wrong_is_said_once(small_recipe, small_records, two_ranks, tmp_path):
    command = _command(small_recipe, {**small_records, "validate": "nowhere*"}, tmp_path / "run")
    ranks = two_ranks(command)
    assert [rank.code for rank in ranks] == [2, 2]
    told = "".join(rank.err for rank in ranks)
    assert told.count("topgb:") == 1
    assert "Traceback" not in told


def test_ranks_that_see_different_records_are_refused(small_recipe, small_records, two_ranks, tmp_path):
    script = tmp_path / "two_nodes.py"
    script.write_text(
        f"""
import os, sys
from pathlib import Path
from topgb.errors import TopgbError
from topgb.training.loop import TrainingJob, train
from topgb.training.recipe import load_recipe
records = {[small_records["train"], small_records["validate"]]!r}[int(os.environ["RANK"])]
try:
    train(TrainingJob(load_recipe({str(small_recipe)!r}), records, Path({str(tmp_path / "run")!r}), device="cpu"))
except TopgbError as error:
    print("refused:", error)
"""
    )
    told = "".join(rank.out for rank in two_ranks([], script))
    assert "refused: the first process and process 1 do not see the same records" in told
    assert told.count("refused") == 1


def test_all_ranks_multiply_by_the_first_ones_library(average_recipe, small_records, two_ranks, tmp_path):
    script = tmp_path / "libraries.py"
    script.write_text(
        f"""
import os
from pathlib import Path
from topgb.matmul_library import in_use, use
from topgb.training.loop import TrainingJob, train
from topgb.training.recipe import load_recipe

# As two machines may choose.
use("onednn" if os.environ["RANK"] == "0" else "mkl")
train(TrainingJob(load_recipe({str(average_recipe)!r}), {small_records["train"]!r}, Path({str(tmp_path / "run")!r})))
Path({str(tmp_path / "used")!r} + os.environ["RANK"]).write_text(in_use())
"""
    )
    done = two_ranks([], script)
    assert [rank.code for rank in done] == [0, 0], done
    assert [(tmp_path / f"used{rank}").read_text() for rank in (0, 1)] == ["onednn", "onednn"]
    assert json.loads((tmp_path / "run/settings.json").read_text())["matmul"] == "onednn"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not list threads in /proc")
@pytest.mark.parametrize("ending", ["trained", "failed"])
def test_no_thread_of_the_transport_outlives_training(ending, small_recipe, small_records, two_ranks, tmp_path):
    script = tmp_path / "threads.py"
    script.write_text(
        f"""
import atexit
import os
from pathlib import Path
from topgb.errors import TopgbError
from topgb.progress import Progress
from topgb.training.loop import TrainingJob, train
from topgb.training.recipe import load_recipe

def tell(line):
    # A file for each rank: on one stream their lines would mix.
    with open({str(tmp_path / "told")!r} + os.environ["RANK"], "a") as file:
        print(line, file=file)

def threads(when):
    names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
    tell(f"{{when}} {{sum('gloo' in name for name in names)}} threads")

class Watching(Progress):
    def say(self, line):
        if "epoch 2" in line:
            threads("in the middle")
            if {ending!r} == "failed":
                raise TopgbError("the progress bar broke")

# What is registered first is called last.
atexit.register(threads, "at the end")
recipe = load_recipe({str(small_recipe)!r})
job = TrainingJob(recipe, {small_records["train"]!r}, Path({str(tmp_path / "run")!r}), {small_records["validate"]!r})
try:
    train(job, Watching())
    tell("trained")
except TopgbError:
    tell("failed")
"""
    )
    done = two_ranks([], script)
    first, second = ((tmp_path / f"told{rank}").read_text().splitlines() for rank in (0, 1))
    assert first[-2:] == second == [ending, "at the end 0 threads"], done
    (middle,) = first[:-2]
    assert re.fullmatch(r"in the middle [1-9]\d* threads", middle)


def test_a_rank_that_dies_ends_the_others_with_a_sentence(small_recipe, small_records, tmp_path):
    command = _command(small_recipe, small_records, tmp_path / "run", "--set", "training.epochs=1000", "--devices", "2")
    process = subprocess.Popen([sys.executable, "-m", "topgb", *command], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list((tmp_path / "run").glob("checkpoints/step-*")):
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("this system does not list a process's children in /proc")

    for child in children.read_text().split():
        os.kill(int(child), signal.SIGKILL)
    told = process.communicate(timeout=120)[1]
    assert process.returncode != 0
    assert "Traceback" not in told


def test_torchrun_and_the_options_must_agree(monkeypatch):
    assert planned_ranks(None, None) == (1, 1)
    assert planned_ranks(4, 2) == (4, 2)
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    assert planned_ranks(None, None) == planned_ranks(4, 2) == (4, 2)
    with pytest.raises(InputError, match="torchrun runs 4 processes on each of 2 nodes, but devices and num_nodes"):
        planned_ranks(8, None)
