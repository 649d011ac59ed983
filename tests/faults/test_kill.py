"""SIGKILL at random moments: nothing is half-written, and the same command again ends in the same files."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from faults.after_kill import check_after_kill
from faults.commands import NAMES, Case, final_files, fresh, spare, succeeded
from faults.programs import Command, Zygote
from faults.whole import leftovers


@pytest.mark.parametrize("name", NAMES)
def test_killed_while_working(name, dose, inputs, zygote, undisturbed, tmp_path):
    spare(name, dose)
    wanted, seconds = undisturbed(inputs.case(name))
    moments = random.Random(f"{name} working")
    for _ in range(dose):
        _kill_and_run_again(inputs.case(name), zygote, moments.uniform(0, seconds), wanted, fresh(tmp_path / "out"))


@pytest.mark.parametrize("name", NAMES)
def test_killed_from_start_to_end(name, dose, inputs, command, undisturbed, tmp_path):
    """As a user starts it: half of the time is the start-up."""
    if dose < 10 and name != "train":
        pytest.skip("starting a process for every kill takes minutes; make test-faults does it")
    wanted, _ = undisturbed(inputs.case(name))
    seconds = succeeded(command.start(inputs.case(name).arguments(fresh(tmp_path / "out"))).wait()).seconds
    assert final_files(tmp_path / "out") == wanted
    moments = random.Random(f"{name} whole")
    for _ in range(dose if dose >= 10 else 1):
        _kill_and_run_again(inputs.case(name), command, moments.uniform(0, seconds), wanted, fresh(tmp_path / "out"))


def _kill_and_run_again(
    case: Case, program: Command | Zygote, moment: float, wanted: dict[str, bytes], out: Path
) -> None:
    running = program.start(case.arguments(out))
    time.sleep(moment)
    running.signal(signal.SIGKILL)
    ended = running.wait()
    check_after_kill(case, program, ended, wanted, out, f"{case.name}, {program.words}")


def test_a_killed_loader_worker_is_named(inputs, zygote, tmp_path):
    running = zygote.start([*inputs.case("train").arguments(tmp_path), "--workers", "1"])
    # Before the first step PyTorch imports on demand, and takes any error for one of the import.
    while not list(tmp_path.glob("run/checkpoints/step-*")):
        time.sleep(0.005)
    os.kill(_children(running.group)[0], signal.SIGKILL)
    ended = running.wait()
    assert ended.code == 1
    # Python may still complain where the loss is noticed again while the loader is taken down.
    assert ended.err.splitlines()[-1].startswith("topgb: a process that reads records ahead was lost (")
    assert leftovers(tmp_path) == []


def _children(process: int) -> list[int]:
    """The processes that `process` has started (Linux alone says)."""
    path = Path(f"/proc/{process}/task/{process}/children")
    if not path.exists():
        pytest.skip("this system does not list a process's children")
    return [int(child) for child in path.read_text().split()]
