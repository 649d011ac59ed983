"""Ctrl-C: one line, exit code 130, no stack, at whatever moment; SIGTERM and SIGHUP: the end, nothing half-written."""

import fcntl
import os
import pty
import random
import re
import signal
import subprocess
import sys
import termios
import time
from contextlib import suppress

import pytest

from faults.after_kill import run_again
from faults.commands import LONG, NAMES, final_files, fresh, spare, succeeded
from faults.programs import ENVIRONMENT, Ended, one_line
from faults.whole import check_whole, leftovers
from topgb.training.run_folder import is_run

GO_ON = dict.fromkeys(("download", "extract"), "; the same command goes on where")
# Signals its whole group in a step, as a terminal or a cluster does.
SIGNALLED = """
import os, signal
from topgb.__main__ import run
from topgb.training.loop import _Trainer

take = _Trainer._take_step

def signalled(self, batch, curves, asked):
    if self.step == 3:
        os.killpg(0, signal.{name})
    return take(self, batch, curves, asked)

_Trainer._take_step = signalled
if {ignored}:
    signal.signal(signal.{name}, signal.SIG_IGN)
run()
"""
# Tells when it has come to hear interrupts: Python needs a moment.
TELLING = """
import os
from topgb import __main__ as program

class Telling(program.Interrupts):
    def install(self):
        super().install()
        os.write({ready}, b"!")

program.Interrupts = Telling
program.run()
"""


def _interrupt(program, arguments, moment, number=signal.SIGINT):
    running = program.start(arguments)
    time.sleep(moment)
    running.signal(number)
    return running.wait()


def _check_advice(said, run):
    """`train` says what it has kept, and what goes on with that."""
    if list(run.glob("checkpoints/step-*")):
        assert re.fullmatch(
            r"topgb: interrupted( after .*)?; the same command with --resume goes on( from the last checkpoint)?", said
        )
    elif is_run(run):
        assert said == ("topgb: interrupted; there is no checkpoint yet, so the same command with --resume begins anew")
    else:
        assert said in ("topgb: interrupted", "topgb: interrupted; training had not begun")


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
        if name == "train":
            _check_advice(said, out / "run")
        else:
            assert said == "topgb: interrupted" or said.startswith(f"topgb: interrupted{GO_ON.get(name, '')}"), said
        check_whole(out, inputs.sums(wanted) if name == "download" else None)
        # What a rerun goes on with, or clears away.
        assert name in ("train", "download", "extract") or leftovers(out) == []
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


def test_interrupted_in_start_up(few, inputs, tmp_path):
    """Imports too: from the program's first line on."""
    moments = random.Random("start-up")
    arguments = inputs.case("train").arguments(tmp_path)
    for _ in range(few):
        fresh(tmp_path / "run")
        told, ready = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-c", TELLING.format(ready=ready), *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
            pass_fds=[ready],
        )
        os.close(ready)
        assert os.read(told, 1) == b"!"
        os.close(told)
        time.sleep(moments.uniform(0, 2))
        process.send_signal(signal.SIGINT)
        said = Ended(process.wait(), "", process.communicate()[1], 0)
        assert said.code == 130, said.err
        _check_advice(one_line(said), tmp_path / "run")


def test_a_second_interrupt_ends_at_once(inputs, zygote, tmp_path):
    running = zygote.start(inputs.case("train").arguments(tmp_path))
    while not list(tmp_path.glob("run/metrics.jsonl")):
        time.sleep(0.005)
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
    time.sleep(600)

tensors.safe_open = late
run()
"""
    command = [sys.executable, "-c", code, "model", "show", str(inputs.model)]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=500)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "imported\n", "topgb: interrupted\n")


def test_an_interrupt_while_a_loader_is_made(inputs, zygote, tmp_path):
    """It leaves nothing half made, and is heard."""
    script = tmp_path / "interrupted.py"
    script.write_text(
        """
import os, signal
import torch.multiprocessing
from topgb.__main__ import run

make = torch.multiprocessing.Queue

def interrupted(*arguments):
    torch.multiprocessing.Queue = make
    os.kill(os.getpid(), signal.SIGINT)
    return make(*arguments)

torch.multiprocessing.Queue = interrupted
run()
"""
    )
    arguments = [*inputs.case("train").arguments(tmp_path), "--workers", "2"]
    ended = zygote.start(arguments, script=script).wait()
    assert ended.code == 130
    assert one_line(ended) == "topgb: interrupted after step 1 of 26; the same command with --resume goes on"


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "train"])
def test_ended_by_a_signal(name, signal_name, dose, inputs, zygote, undisturbed, tmp_path):
    spare(name, dose, but=LONG if signal_name == "SIGTERM" else ("distill",))
    number = signal.Signals[signal_name]
    case = inputs.case(name)
    wanted, seconds = undisturbed(case)
    ended = _interrupt(zygote, case.arguments(tmp_path), seconds / 3, number)
    # A command that ran faster than the undisturbed one may have come to its end.
    assert ended.code == -number or (ended.code == 0 and final_files(tmp_path) == wanted)
    assert "Traceback" not in ended.err
    check_whole(tmp_path, inputs.sums(wanted) if name == "download" else None)
    if final_files(tmp_path) != wanted:
        run_again(case, zygote, wanted, tmp_path)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(("name", "workers"), [("SIGTERM", 0), ("SIGTERM", 2), ("SIGHUP", 0), ("SIGINT", 2)])
def test_signalled_training_saves_a_checkpoint(name, workers, inputs, zygote, undisturbed, tmp_path):
    case = inputs.case("train")
    wanted, _ = undisturbed(case)
    # Seldom enough that any checkpoint in the first epoch is the signal's.
    seldom = ["--checkpoint-minutes", "60", "--workers", str(workers)]
    script = tmp_path / "signalled.py"
    script.write_text(SIGNALLED.format(name=name, ignored=False))
    out = tmp_path / "out"
    ended = zygote.start([*case.arguments(out), *seldom], script=script).wait()
    assert ended.code == 128 + signal.Signals[name]
    asked = "interrupted after step 5 of 26" if name == "SIGINT" else f"stopped after step 5 of 26, as {name} asked"
    assert one_line(ended) == f"topgb: {asked}; the same command with --resume goes on"
    assert [path.name.split("-")[0] for path in (out / "run" / "checkpoints").iterdir()] == ["step"]
    succeeded(zygote.start([*case.again(out), *seldom]).wait())
    model = "run/model.safetensors"
    assert final_files(out)[model] == wanted[model]


def test_nohup(inputs, zygote, undisturbed, tmp_path):
    case = inputs.case("train")
    script = tmp_path / "signalled.py"
    script.write_text(SIGNALLED.format(name="SIGHUP", ignored=True))
    succeeded(zygote.start([*case.arguments(tmp_path / "out"), "--workers", "1"], script=script).wait())
    assert final_files(tmp_path / "out") == undisturbed(case)[0]


def test_interrupted_on_a_terminal(inputs, tmp_path):
    """The bar is taken down before the line is said, and the cursor comes back."""
    terminal, ours = pty.openpty()
    # A terminal shows ^C when it is typed, which may be after the bar's end.
    settings = termios.tcgetattr(ours)
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(ours, termios.TCSANOW, settings)
    _, model, records, *_ = inputs.case("predict").arguments(tmp_path)
    # So many that it cannot have ended by the time of the Ctrl-C.
    rounds = ["--frames", "random:5", "--rounds", "10000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "topgb", "eval", model, records, *rounds],
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
