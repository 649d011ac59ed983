"""Ctrl-C: one line, exit code 130, no stack, at whatever moment; SIGTERM: the end, and nothing half-written."""

import fcntl
import os
import pty
import random
import signal
import subprocess
import sys
import termios
import time
from contextlib import suppress

import pytest

from faults.after_kill import run_again
from faults.commands import NAMES, final_files, fresh, spare, succeeded
from faults.programs import ENVIRONMENT, one_line
from faults.whole import check_whole, leftovers

GO_ON = {"train": "; the same command with --resume goes on", "download": "; the same command goes on where"}


def _interrupt(program, arguments, moment, number=signal.SIGINT):
    running = program.start(arguments)
    time.sleep(moment)
    running.signal(number)
    return running.wait()


@pytest.mark.parametrize("name", NAMES)
def test_interrupted_while_working(name, dose, few, inputs, zygote, undisturbed, tmp_path):
    spare(name, dose)
    case = inputs.case(name)
    wanted, seconds = undisturbed(case)
    moments = random.Random(f"{name} interrupted")
    for _ in range(few):
        out = fresh(tmp_path / "out")
        ended = _interrupt(zygote, case.arguments(out), moments.uniform(0.02, seconds))
        if ended.code == 0 or (ended.code == -signal.SIGINT and final_files(out) == wanted):
            # All was done.
            continue
        said = one_line(ended)
        assert ended.code == 130
        assert said == "topgb: interrupted" or said.startswith(f"topgb: interrupted{GO_ON.get(name, '')}"), said
        check_whole(out, inputs.sums(wanted) if name == "download" else None)
        # What a rerun goes on with, or clears away.
        assert name in ("train", "download") or leftovers(out) == []
        run_again(case, zygote, wanted, out)


def test_interrupted_with_loader_workers(few, inputs, zygote, undisturbed, tmp_path):
    case = inputs.case("train")
    wanted, seconds = undisturbed(case)
    moments = random.Random("workers")
    for _ in range(few):
        out = fresh(tmp_path / "out")
        ended = _interrupt(zygote, [*case.arguments(out), "--workers", "2"], moments.uniform(0.1, seconds))
        if ended.code != 0 and final_files(out) != wanted:
            assert ended.code == 130
            assert one_line(ended).startswith("topgb: interrupted")
        succeeded(zygote.start([*case.again(out), "--workers", "2"]).wait())
        assert final_files(out) == wanted


def test_interrupted_in_start_up(few, inputs, command, tmp_path):
    """Imports too: from the program's first line on, which Python needs a moment to reach."""
    moments = random.Random("start-up")
    case = inputs.case("train")
    for _ in range(few):
        out = fresh(tmp_path / "out")
        ended = _interrupt(command, case.arguments(out), moments.uniform(0.3, 3))
        assert ended.code == 130, ended.err
        assert one_line(ended).startswith("topgb: interrupted")


def test_a_second_interrupt_ends_at_once(inputs, zygote, tmp_path):
    running = zygote.start(inputs.case("train").arguments(tmp_path))
    time.sleep(0.3)
    running.signal(signal.SIGINT)
    running.signal(signal.SIGINT)
    ended = running.wait()
    assert ended.code in (130, -signal.SIGINT)
    assert "Traceback" not in ended.err


def test_an_interrupt_that_a_library_turned_into_another_error(inputs):
    """As PyTorch does of one in two while safetensors has it make a tensor."""
    code = """
import os, signal, sys
from topgb import tensors
from topgb.__main__ import run

def interrupted(*arguments, **options):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise ValueError("could not determine the shape of object type") from None

tensors.safe_open = interrupted
run()
"""
    command = [sys.executable, "-c", code, "model", "show", str(inputs.model)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "topgb: interrupted\n")


def test_an_interrupt_waits_for_the_end_of_an_import(inputs, tmp_path):
    """PyTorch's C++ aborts at some, and modules make them errors of their own."""
    (tmp_path / "slow.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('imported')\n")
    code = """
import time
from topgb import tensors
from topgb.__main__ import run

def late(*arguments, **options):
    import slow
    time.sleep(60)

tensors.safe_open = late
run()
"""
    command = [sys.executable, "-c", code, "model", "show", str(inputs.model)]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=50)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "imported\n", "topgb: interrupted\n")


def test_an_interrupt_that_leaves_a_loader_half_made(inputs, tmp_path):
    """PyTorch's finaliser then asks for what its constructor had not yet set, and Python tells of it."""
    code = """
import os, signal, sys
import torch.multiprocessing
from topgb.__main__ import run

torch.multiprocessing.Queue = lambda *arguments: os.kill(os.getpid(), signal.SIGINT)
run()
"""
    arguments = [str(a) for a in inputs.case("train").arguments(tmp_path)]
    command = [sys.executable, "-c", code, *arguments, "--workers", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in ended.stderr.splitlines() if not line.startswith(("memory: ", "warning: "))]
    assert ended.returncode == 130
    assert [line.split(";")[0] for line in said] == ["topgb: interrupted"]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "train"])
def test_terminated(name, dose, inputs, zygote, undisturbed, tmp_path):
    spare(name, dose)
    case = inputs.case(name)
    wanted, seconds = undisturbed(case)
    ended = _interrupt(zygote, case.arguments(tmp_path), seconds / 3, signal.SIGTERM)
    assert ended.code == -signal.SIGTERM
    assert "Traceback" not in ended.err
    check_whole(tmp_path, inputs.sums(wanted) if name == "download" else None)
    if final_files(tmp_path) != wanted:
        run_again(case, zygote, wanted, tmp_path)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("workers", ["0", "2"])
def test_terminated_training_saves_a_checkpoint(workers, inputs, zygote, undisturbed, tmp_path):
    case = inputs.case("train")
    wanted, _ = undisturbed(case)
    # Seldom enough that any checkpoint in the first epoch is SIGTERM's.
    seldom = ["--checkpoint-minutes", "60", "--workers", workers]
    running = zygote.start([*case.arguments(tmp_path), *seldom])
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.005)
    running.signal(signal.SIGTERM)
    ended = running.wait()
    assert ended.code == 143
    assert "stopped" in one_line(ended)
    assert "--resume" in one_line(ended)
    assert [path.name.split("-")[0] for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step"]
    succeeded(zygote.start([*case.again(tmp_path), *seldom]).wait())
    model = "run/model.safetensors"
    assert final_files(tmp_path)[model] == wanted[model]


def test_interrupted_on_a_terminal(inputs, tmp_path):
    """The bar is taken down before the line is said, and the cursor comes back."""
    terminal, ours = pty.openpty()
    arguments = inputs.case("predict").arguments(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "topgb", *arguments],
        stdin=ours,
        stderr=ours,
        env={**ENVIRONMENT, "TERM": "xterm"},
        start_new_session=True,
        # Whose Ctrl-C is this session's.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(ours)
    shown = b""
    with open(terminal, "r+b", buffering=0) as screen:
        while b"videos/s" not in shown:
            shown += screen.read(4096)
        screen.write(b"\x03")
        with suppress(OSError):
            # Linux says EIO at the end of a terminal's output.
            while more := screen.read(4096):
                shown += more
    assert process.wait() == 130
    last = shown.rsplit(b"\x1b[?25h", 1)[1]
    assert last == b"topgb: interrupted\r\n"
