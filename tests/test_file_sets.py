"""Sets of files are whole or absent, whatever stops their writer."""

import errno
import os
import shutil

import pytest

from topgb.errors import InputError, TopgbError
from topgb.file_sets import finish_earlier, write_set
from topgb.files import UNFINISHED, refuse_unfinished
from topgb.records.shards import find_shards

OLD = {"a0.tfrecord": b"old a0", "a1.tfrecord": b"old a1", "other.txt": b"of the user"}
NEW = {"a0.tfrecord": b"new a0", "b0.tfrecord": b"new b0"}


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "set"
    made.mkdir()
    for name, content in OLD.items():
        (made / name).write_bytes(content)
    return made


def _contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _write(folder):
    with write_set(folder, gone=[folder / "a0.tfrecord", folder / "a1.tfrecord", folder / "absent"]) as files:
        for name, content in NEW.items():
            files.write(name, content)


AFTER = {**NEW, "other.txt": OLD["other.txt"]}


def test_new_files_replace_old_ones_at_the_end(folder):
    with write_set(folder, gone=[folder / "a1.tfrecord"]) as files:
        files.write("a0.tfrecord", b"x")
        with files.open("b.gz") as file:
            file.write(b"y")
        assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == set(OLD)
    assert set(_contents(folder)) == {"a0.tfrecord", "b.gz", "other.txt"}
    assert (folder / "b.gz").read_bytes()[:2] == b"\x1f\x8b"


def test_an_error_leaves_everything_as_it_was(folder):
    with pytest.raises(ValueError, match="mine"), write_set(folder, gone=[folder / "a1.tfrecord"]) as files:
        files.write("a0.tfrecord", b"x")
        raise ValueError("mine")
    assert _contents(folder) == OLD
    with (
        pytest.raises(TopgbError, match=r"cannot write .*set/a0.tfrecord: No space.*unchanged"),
        write_set(folder) as f,
    ):
        with f.open("a0.tfrecord"):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert _contents(folder) == OLD


def test_what_cannot_be_a_file_or_a_folder_is_refused(folder):
    (folder / "b0.tfrecord").mkdir()
    with pytest.raises(InputError, match="b0.tfrecord is not a file"):
        _write(folder)
    with pytest.raises(InputError, match="other.txt is a file, not a directory"):
        _write(folder / "other.txt")
    shutil.rmtree(folder / "b0.tfrecord")
    assert _contents(folder) == OLD


def test_a_stop_while_files_are_put_in_place_is_finished_by_the_next_call(folder, monkeypatch):
    replace, moved = os.replace, []

    def stop(*names):
        moved.append(names)
        if len(moved) == 2:
            raise OSError(errno.EIO, "Input/output error")
        replace(*names)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(TopgbError, match="cannot put all files in place in .*set: Input/output error; .*finishes it"):
        _write(folder)
    monkeypatch.undo()
    assert (folder / UNFINISHED).is_dir()
    with pytest.raises(InputError, match="only some are in place"):
        find_shards(str(folder / "*.tfrecord"))
    with pytest.raises(InputError, match="only some are in place"):
        find_shards([folder / "a0.tfrecord"])
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match="^. holds a set"):
        find_shards("a0.tfrecord")
    finish_earlier(folder)
    refuse_unfinished(folder)
    assert _contents(folder) == AFTER


def test_an_interrupt_while_files_are_put_in_place_comes_after(folder, monkeypatch):
    replace, moved = os.replace, []

    def interrupt(*names):
        moved.append(names)
        if len(moved) == 2:
            raise KeyboardInterrupt
        replace(*names)

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _write(folder)
    assert _contents(folder) == AFTER


def test_what_a_killed_writer_left_is_removed_and_a_living_ones_stays(folder):
    dead = folder / ".topgb-set.01234567.partial"
    (dead / "new").mkdir(parents=True)
    (dead / "new" / "a0.tfrecord").write_bytes(b"half")
    with write_set(folder) as outer:
        outer.write("a0.tfrecord", b"outer")
        assert not dead.exists()
        _write(folder)
        assert _contents_of_files(folder) == AFTER
    assert _contents(folder) == {**AFTER, "a0.tfrecord": b"outer"}


def _contents_of_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_strangers_unfinished_set_reaches_no_other_folder(folder, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "secret").write_bytes(b"s")
    unfinished = folder / UNFINISHED
    unfinished.mkdir()
    (unfinished / "gone").write_bytes(b"../mine/secret\0..\0.\0/etc/passwd\0")
    (unfinished / "new").symlink_to(mine)
    with pytest.raises(InputError, match="is a link"):
        _write(folder)
    (unfinished / "new").unlink()
    (unfinished / "new").mkdir()
    _write(folder)
    assert _contents(folder) == AFTER
    assert _contents(mine) == {"secret": b"s"}
