"""Processes that read ahead: whatever is signalled, and however their parent ends."""

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from faults.programs import ENVIRONMENT, PATIENCE
from topgb.records.reader_processes import prepare_reader, reading_ahead

GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Starting:
    """A loader whose process gets all signals of a group before it has ignored any, as does the one who starts it."""

    num_workers = 1

    def __init__(self, came=()):
        self.came = came

    def __iter__(self):
        self.started = multiprocessing.get_context("fork").Process(target=self._read)
        self.started.start()
        for number in GROUP_SIGNALS:
            # To this thread: another one, which does not block the signal, might be late with it.
            signal.pthread_kill(threading.get_ident(), number)
        self.heard = list(self.came)
        return self

    def __next__(self):
        raise StopIteration

    def _shutdown_workers(self):
        self.started.join()

    @staticmethod
    def _read():
        for number in GROUP_SIGNALS:
            os.kill(os.getpid(), number)
        prepare_reader(0)
        for number in GROUP_SIGNALS:
            os.kill(os.getpid(), number)


@pytest.fixture
def came():
    """The signals of a group that Python has heard."""
    numbers = []
    before = [signal.signal(number, lambda number, frame: numbers.append(number)) for number in GROUP_SIGNALS]
    yield numbers
    for number, handler in zip(GROUP_SIGNALS, before, strict=True):
        signal.signal(number, handler)


def test_signals_wait_while_readers_start(came):
    loader = Starting(came)
    with reading_ahead(loader) as items:
        assert loader.heard == []
        assert sorted(came) == sorted(GROUP_SIGNALS)
        assert items is loader
    assert loader.started.exitcode == 0


def test_an_interrupt_while_readers_start_ends_them():
    loader = Starting()
    before = [signal.signal(number, signal.SIG_IGN) for number in GROUP_SIGNALS[1:]]
    try:
        with pytest.raises(KeyboardInterrupt) as kept, reading_ahead(loader):
            pytest.fail("the interrupt was not heard")
    finally:
        for number, handler in zip(GROUP_SIGNALS[1:], before, strict=True):
            signal.signal(number, handler)
    assert kept.value.__traceback__ is not None
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("kernel", ["as it is", "that does not help"])
def test_no_reader_outlives_a_killed_parent(kernel, zygote, tmp_path):
    """Not even one that is busy: it would hold the lock that all processes share."""
    script, lock = tmp_path / "reading.py", tmp_path / "lock"
    script.write_text(
        f"""
import fcntl, os, time
from pathlib import Path
from torch.utils.data import DataLoader
from topgb.records import reader_processes

class Items(list):
    def __getitem__(self, number):
        if number > 1:
            Path({str(tmp_path)!r}, f"busy{{number}}").touch()
            time.sleep(600)
        return number

if {kernel!r} == "that does not help":
    reader_processes._killed_with_parent = lambda: False
shared = os.open({str(lock)!r}, os.O_CREAT | os.O_RDWR)
os.set_inheritable(shared, True)
fcntl.flock(shared, fcntl.LOCK_EX)
loader = DataLoader(Items(range(9)), batch_size=None, num_workers=2, worker_init_fn=reader_processes.prepare_reader)
with reader_processes.reading_ahead(loader) as items:
    next(items), next(items), next(items)
"""
    )
    running = zygote.start([], script=script)
    _until(lambda: (tmp_path / "busy2").exists() and (tmp_path / "busy3").exists())
    os.kill(running.group, signal.SIGKILL)
    assert running.wait().code == -signal.SIGKILL
    with open(lock) as shared:
        _until(lambda: _locks(shared))


def _locks(file):
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _until(true):
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_python_ends_although_something_keeps_the_iterator(zygote, tmp_path):
    """`multiprocessing` would send SIGTERM to its processes, which they ignore, and wait for them."""
    script = tmp_path / "keeping.py"
    script.write_text(
        """
from torch.utils.data import DataLoader
from topgb.records.reader_processes import prepare_reader, reading_ahead
kept = reading_ahead(DataLoader(range(9), batch_size=None, num_workers=1, worker_init_fn=prepare_reader))
print(next(kept.__enter__()))
"""
    )
    ended = zygote.start([], script=script).wait()
    assert (ended.code, ended.out, ended.err) == (0, "0\n", "")


def test_the_path_of_temporary_files_may_be_long(tmp_path):
    """The system bounds the path of a socket, over which a reader hands a tensor on; its parent would wait for ever."""
    folder, script = tmp_path / ("long" * 40), tmp_path / "reading.py"
    folder.mkdir()
    script.write_text(
        """
import tempfile
import torch
from torch.utils.data import DataLoader
from topgb.records.reader_processes import prepare_reader, reading_ahead
with reading_ahead(DataLoader(torch.arange(9), batch_size=3, num_workers=2, worker_init_fn=prepare_reader)) as items:
    print(sum(int(batch.sum()) for batch in items), tempfile.gettempdir())
"""
    )
    environment = {**ENVIRONMENT, "TMPDIR": str(folder)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"36 {folder}\n", "")
    assert list(folder.glob("pymp-*")) == []
