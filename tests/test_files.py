"""Files are whole or absent, and nothing that is no file is replaced by one."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from topgb.errors import InputError, TopgbError
from topgb.files import atomic_path, atomic_write, partials_of, refuse_existing


def test_a_block_that_raises_leaves_what_was_there(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(ValueError, match="stop"), atomic_write(path) as file:
        file.write(b"new")
        raise ValueError("stop")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_dead_writers_left_goes_when_the_file_is_written_again(tmp_path):
    # The second is of a writer that named it by its process.
    dead = [tmp_path / ".f.0123abcd.partial", tmp_path / ".f.4711.partial"]
    others = [
        tmp_path / name for name in (".f.partial", ".f.g.0123abcd.partial", "f.0123abcd.partial", ".f.mine.partial")
    ]
    for path in (*dead, *others):
        path.write_text("half")
    assert sorted(partials_of(tmp_path / "f")) == sorted(dead)
    with atomic_write(tmp_path / "f"):
        pass
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "f", *others])


def test_what_a_living_writer_has_stays(tmp_path):
    with atomic_write(tmp_path / "f") as first:
        first.write(b"first")
        with atomic_write(tmp_path / "f") as second:
            second.write(b"second")
        assert (tmp_path / "f").read_bytes() == b"second"
        assert len(partials_of(tmp_path / "f")) == 1
    assert (tmp_path / "f").read_bytes() == b"first"


def test_without_locks_nothing_is_taken_for_dead(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    (tmp_path / ".f.0123abcd.partial").write_text("half")
    with atomic_write(tmp_path / "f") as file:
        file.write(b"x")
    assert {path.name for path in tmp_path.iterdir()} == {"f", ".f.0123abcd.partial"}


def test_folders_are_made_and_links_followed(tmp_path):
    real, link = tmp_path / "a" / "b" / "real", tmp_path / "link"
    with atomic_write(real) as file:
        file.write(b"1")
    link.symlink_to(real)
    with atomic_write(link) as file:
        file.write(b"2")
    assert link.is_symlink()
    assert real.read_bytes() == b"2"


def test_devices_and_directories_are_never_replaced(tmp_path):
    # A pipe stands for a device: a failing test must not cost the machine its /dev/null.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for target in (pipe, tmp_path):
        for attempt in (lambda t: refuse_existing(t, force=True), lambda t: atomic_write(t).__enter__()):
            with pytest.raises(InputError, match="cannot be replaced"):
                attempt(target)
    assert pipe.is_fifo()


def test_below_a_file_is_bad_input(tmp_path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(InputError, match="is a file, not a directory"), atomic_write(tmp_path / "f" / "g" / "h"):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_a_failure_that_names_the_file(tmp_path):
    with pytest.raises(TopgbError, match="cannot write .*f: No space left on device") as raised:
        with atomic_path(tmp_path / "f") as partial:
            partial.unlink()
            partial.symlink_to("/dev/full")
            with open(partial, "wb", buffering=0) as file:
                file.write(b"x")
    assert raised.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []
