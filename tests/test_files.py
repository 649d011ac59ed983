"""Files are whole or absent, and nothing that is no file is replaced by one."""

import os
from pathlib import Path

import pytest

from topgb.errors import InputError, TopgbError
from topgb.files import atomic_path, atomic_write, refuse_existing


def test_a_block_that_raises_leaves_what_was_there(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(ValueError, match="stop"), atomic_write(path) as file:
        file.write(b"new")
        raise ValueError("stop")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


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
            partial.symlink_to("/dev/full")
            with open(partial, "wb", buffering=0) as file:
                file.write(b"x")
    assert raised.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []
