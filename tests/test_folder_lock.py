"""One writer at a time in a folder, however the others end."""

import errno
import fcntl
import multiprocessing
import os
import signal
import threading
import time

import pytest

from topgb import folder_lock
from topgb.errors import InputError
from topgb.folder_lock import writing_alone


def test_a_second_writer_is_refused_and_a_later_one_is_not(tmp_path):
    folder = tmp_path / "new" / "folder"
    with writing_alone(folder):
        with pytest.raises(InputError, match=rf"is being written to by another command \(process {os.getpid()} on "):
            with writing_alone(folder):
                pytest.fail("two writers")
        with writing_alone(tmp_path):
            pass
        (folder / "written").touch()
    assert os.listdir(folder) == ["written"]
    with pytest.raises(ValueError, match="a failure"), writing_alone(folder):
        raise ValueError("a failure")
    with writing_alone(folder):
        pass
    assert os.listdir(folder) == ["written"]
    with writing_alone(tmp_path / "other" / "folder"):
        pass
    assert os.listdir(tmp_path) == ["new"]


def test_the_lock_ends_with_a_killed_process_and_not_with_its_forks(tmp_path):
    # Forked while the lock is held, as a loader's workers are, and alive after its end.
    forks = multiprocessing.get_context("fork")
    with writing_alone(tmp_path):
        fork = forks.Process(target=time.sleep, args=[600])
        fork.start()
    with writing_alone(tmp_path):
        pass
    fork.kill()
    fork.join()
    ready = forks.Event()
    holding = forks.Process(target=_hold, args=[tmp_path, ready])
    holding.start()
    assert ready.wait(60)
    with pytest.raises(InputError, match=rf"process {holding.pid} on"), writing_alone(tmp_path):
        pytest.fail("two writers")
    os.kill(holding.pid, signal.SIGKILL)
    holding.join()
    with writing_alone(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def _hold(folder, ready):
    with writing_alone(folder):
        ready.set()
        time.sleep(600)


@pytest.mark.parametrize("missing", ["locks", "room for a file"])
def test_without_locks_work_goes_on(missing, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    if missing == "locks":
        monkeypatch.setattr(fcntl, "flock", fail)
        folder = tmp_path
    else:
        folder = tmp_path / "file"
        folder.touch()
    with writing_alone(folder), writing_alone(folder):
        pass
    assert list(tmp_path.iterdir()) == [path for path in [folder] if path.is_file()]


@pytest.mark.parametrize("moment", ["open", "unlink"])
def test_an_interrupt_leaves_no_lock(moment, tmp_path, monkeypatch):
    call, main = getattr(os, moment), threading.get_ident()

    def interrupted(*arguments, **options):
        monkeypatch.undo()
        if moment == "unlink":
            signal.pthread_kill(main, signal.SIGINT)
            return call(*arguments, **options)
        done = call(*arguments, **options)
        # To this thread: another one, which does not block the signal, might be late with it.
        signal.pthread_kill(main, signal.SIGINT)
        return done

    monkeypatch.setattr(os, moment, interrupted)
    with pytest.raises(KeyboardInterrupt), writing_alone(tmp_path / "folder"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_as_the_lock_is_given_up_leaves_no_lock(tmp_path, monkeypatch):
    waits, plain = [], folder_lock.waiting

    def interrupted(numbers):
        # Before the block waits: the system may deliver a signal by another thread, late.
        waits.append(numbers)
        if len(waits) == 2:
            signal.raise_signal(signal.SIGINT)
        return plain(numbers)

    monkeypatch.setattr(folder_lock, "waiting", interrupted)
    with pytest.raises(KeyboardInterrupt), writing_alone(tmp_path / "folder"):
        pass
    assert list(tmp_path.iterdir()) == []
    assert len(waits) == 3
