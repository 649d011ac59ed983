"""Downloading, end to end, from a local server that fails in every way it can."""

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from topgb.errors import InputError, TopgbError
from topgb.progress import Progress
from topgb.youtube8m.download import MOST_FAILURES, Download
from topgb.youtube8m.fetch import MOST_WRONG
from topgb.youtube8m.http import Patience
from youtube8m.plan_server import PARTITION, PLAN, QUICK, PlanServer, download_from

BYTES = 300_000


def _content(name: str) -> bytes:
    return (hashlib.sha256(name.encode()).digest() * (BYTES // 32 + 1))[:BYTES]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = PlanServer({name: _content(name) for name in ("train00.tfrecord", "trainZz.tfrecord", "trainzz.tfrecord")})
    yield server
    server.close()


def _is_whole(server: PlanServer, folder: Path) -> bool:
    return {path.name: path.read_bytes() for path in folder.iterdir()} == server.files


def test_every_file_comes_and_a_second_call_fetches_none(server, tmp_path):
    done = download_from(server, tmp_path / "a" / "b")
    assert _is_whole(server, tmp_path / "a" / "b")
    assert done == Download(files=3, fetched=3, received=3 * BYTES)
    server.requests.clear()
    assert download_from(server, tmp_path / "a" / "b") == Download(files=3, there=3)
    assert server.requests == [(PLAN, None)]


@pytest.mark.parametrize("fault", ["drop", "short", "cut chunk"])
def test_a_broken_connection_is_taken_up_where_it_broke(server, tmp_path, fault):
    server.faults["train00.tfrecord"] = [fault, fault]
    assert download_from(server, tmp_path).fetched == 3
    assert _is_whole(server, tmp_path)
    first, second, third = server.ranges_asked("train00.tfrecord")
    assert first is None
    if fault != "drop":  # A reset can overtake bytes that were sent.
        assert (second, third) == (f"bytes={BYTES // 2}-", f"bytes={BYTES * 3 // 4}-")


def test_a_silent_server_is_left_and_asked_again(server, tmp_path):
    server.faults["train00.tfrecord"] = ["stall"]
    assert download_from(server, tmp_path, patience=Patience(3, 0.001, timeout=0.3)).fetched == 3
    assert _is_whole(server, tmp_path)
    assert server.ranges_asked("train00.tfrecord") == [None, f"bytes={BYTES // 2}-"]


def test_as_long_as_more_comes_no_number_of_breaks_is_too_many(server, tmp_path):
    server.faults["train00.tfrecord"] = ["short"] * 10
    assert download_from(server, tmp_path).fetched == 3
    assert _is_whole(server, tmp_path)


def test_a_server_that_breaks_off_and_knows_no_ranges_is_given_up(server, tmp_path):
    server.ranges, server.always = False, {"train00.tfrecord": "short"}
    done = download_from(server, tmp_path)
    assert (done.fetched, [name for name, _ in done.failed]) == (2, ["train00.tfrecord"])
    assert f"broke {BYTES // 2:,} bytes before the end" in done.failed[0][1]
    assert len(server.ranges_asked("train00.tfrecord")) == QUICK.tries
    assert (tmp_path / ".train00.tfrecord.partial").stat().st_size == BYTES // 2
    assert not (tmp_path / "train00.tfrecord").exists()


@pytest.mark.parametrize("fault", ["whole", "chunked"])
def test_without_a_length_the_sum_tells_the_end(server, tmp_path, fault):
    server.always = dict.fromkeys(server.files, fault)
    assert download_from(server, tmp_path).fetched == 3
    assert _is_whole(server, tmp_path)


def test_a_server_without_ranges_begins_anew(server, tmp_path):
    server.ranges, server.faults["train00.tfrecord"] = False, ["short"]
    assert download_from(server, tmp_path).received == 3 * BYTES + BYTES // 2
    assert _is_whole(server, tmp_path)


def test_another_range_than_asked_for_is_not_taken(server, tmp_path):
    server.faults["train00.tfrecord"] = ["short", "shifted"]
    assert download_from(server, tmp_path).fetched == 3
    assert _is_whole(server, tmp_path)
    assert server.ranges_asked("train00.tfrecord")[1:] == [f"bytes={BYTES // 2}-", None]


@pytest.mark.parametrize("extra", [0, 7])
def test_a_partial_file_that_is_too_long_begins_anew(server, tmp_path, extra):
    (tmp_path / ".train00.tfrecord.partial").write_bytes(b"x" * (BYTES + extra))
    assert download_from(server, tmp_path).fetched == 3
    assert _is_whole(server, tmp_path)
    assert server.ranges_asked("train00.tfrecord") == [f"bytes={BYTES + extra}-", None]


def test_a_partial_file_that_is_complete_needs_no_request(server, tmp_path):
    (tmp_path / ".train00.tfrecord.partial").write_bytes(server.files["train00.tfrecord"])
    assert download_from(server, tmp_path).received == 2 * BYTES
    assert _is_whole(server, tmp_path)
    assert server.ranges_asked("train00.tfrecord") == []


def test_the_partial_file_of_something_else_does_no_harm(server, tmp_path):
    (tmp_path / ".train00.tfrecord.partial").write_bytes(b"y" * 1000)
    assert download_from(server, tmp_path).fetched == 3
    assert _is_whole(server, tmp_path)


def test_wrong_bytes_are_fetched_again_and_never_named(server, tmp_path):
    server.faults["train00.tfrecord"], server.always = ["wrong"], {"trainzz.tfrecord": "wrong"}
    done = download_from(server, tmp_path)
    assert done.fetched == 2
    assert done.failed == [("trainzz.tfrecord", "its bytes do not have the plan's MD5 sum, 3 times in a row")]
    assert len(server.ranges_asked("trainzz.tfrecord")) == MOST_WRONG
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train00.tfrecord", "trainZz.tfrecord"]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_busy_server_is_asked_again(server, tmp_path, status):
    server.faults = {"train00.tfrecord": [status, status], "trainZz.tfrecord": [], "trainzz.tfrecord": []}
    server.faults[PLAN] = [status]
    assert download_from(server, tmp_path).fetched == 3
    assert _is_whole(server, tmp_path)


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (204, 1), (500, 3)])
def test_a_file_that_the_server_has_not_fails_and_the_others_go_on(server, tmp_path, status, requests):
    server.always = {"train00.tfrecord": status}
    done = download_from(server, tmp_path, jobs=1)
    assert (done.fetched, done.untried) == (2, 0)
    assert done.failed[0][0] == "train00.tfrecord"
    assert done.failed[0][1].startswith(f"the server answers {status} ")
    assert len(server.ranges_asked("train00.tfrecord")) == requests
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trainZz.tfrecord", "trainzz.tfrecord"]


def test_failures_in_a_row_end_it(server, tmp_path):
    server.plan = json.dumps({"files": {f"absent{number:02d}": "0" * 32 for number in range(60)}}).encode()
    done = download_from(server, tmp_path, jobs=2)
    assert len(done.failed) == MOST_FAILURES
    assert done.untried == 60 - MOST_FAILURES
    assert list(tmp_path.iterdir()) == []


def test_other_bytes_are_refused_before_anything_is_fetched(server, tmp_path):
    (tmp_path / "trainZz.tfrecord").write_bytes(b"mine")
    (tmp_path / "train00.tfrecord").write_bytes(server.files["train00.tfrecord"])
    with pytest.raises(InputError, match="other bytes in trainZz.tfrecord than 2/frame/train.*force=True"):
        download_from(server, tmp_path)
    assert server.requests == [(PLAN, None)]
    assert (tmp_path / "trainZz.tfrecord").read_bytes() == b"mine"
    assert download_from(server, tmp_path, force=True) == Download(files=3, there=1, fetched=2, received=2 * BYTES)
    assert _is_whole(server, tmp_path)


def test_a_file_is_kept_until_its_replacement_is_whole(server, tmp_path):
    (tmp_path / "trainZz.tfrecord").write_bytes(b"mine")
    server.always = {"trainZz.tfrecord": "short"}
    server.ranges = False
    assert len(download_from(server, tmp_path, force=True).failed) == 1
    assert (tmp_path / "trainZz.tfrecord").read_bytes() == b"mine"


def test_what_another_process_holds_is_left_to_it(server, tmp_path):
    with open(tmp_path / ".train00.tfrecord.partial", "wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = download_from(server, tmp_path)
        assert done.failed == [("train00.tfrecord", "another process is fetching it")]
        assert server.ranges_asked("train00.tfrecord") == []
    assert download_from(server, tmp_path).fetched == 1
    assert _is_whole(server, tmp_path)


def test_two_downloads_into_one_folder_do_no_harm(server, tmp_path):
    done = []
    threads = [threading.Thread(target=lambda: done.append(download_from(server, tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 3
    assert {reason for one in done for _, reason in one.failed} <= {"another process is fetching it"}
    assert download_from(server, tmp_path).failed == []
    assert _is_whole(server, tmp_path)


def test_progress_counts_files_and_tells_bytes(server, tmp_path):
    class Told(Progress):
        def __init__(self):
            self.calls = []

        def begin(self, what, total, unit, done=0):
            self.calls.append((what, total, unit, done))

        def advance(self, count, note=""):
            self.calls.append((count, note))

    (tmp_path / "train00.tfrecord").write_bytes(server.files["train00.tfrecord"])
    told = Told()
    download_from(server, tmp_path, progress=told)
    assert [call for call in told.calls if len(call) == 4] == [
        ("checking", 1, "files", 0),
        ("downloading", 3, "files", 1),
    ]
    assert sum(call[0] for call in told.calls if len(call) == 2) == 3
    assert told.calls[-1][1].startswith("1 MB, ")


def test_places_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file; a download needs a directory"):
        download_from(server, tmp_path / "file")
    with pytest.raises(TopgbError, match="cannot write .*file/below: Not a directory"):
        download_from(server, tmp_path / "file" / "below")
    (tmp_path / "train00.tfrecord").mkdir()
    with pytest.raises(InputError, match="train00.tfrecord is not a file"):
        download_from(server, tmp_path)
    (tmp_path / "other" / ".train00.tfrecord.partial").mkdir(parents=True)
    with pytest.raises(TopgbError, match="cannot write .*train00.tfrecord: Is a directory"):
        download_from(server, tmp_path / "other")
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / ".train00.tfrecord.partial").symlink_to(tmp_path / "file")
    with pytest.raises(TopgbError, match="cannot write .*train00.tfrecord"):
        download_from(server, tmp_path / "third")
    assert (tmp_path / "file").read_text() == "x"


def _program(server: PlanServer, folder: Path) -> subprocess.Popen:
    """`topgb data download` in a process of its own, once it waits in the middle of train00.tfrecord."""
    arguments = [
        "data",
        "download",
        folder,
        "--partition",
        PARTITION,
        "--mirror",
        server.mirror,
        "--plans",
        server.plans,
    ]
    server.faults["train00.tfrecord"] = ["stall"]
    process = subprocess.Popen([sys.executable, "-m", "topgb", *arguments], stderr=subprocess.PIPE, text=True)
    partial = folder / ".train00.tfrecord.partial"
    others = [folder / name for name in server.files if name != "train00.tfrecord"]
    deadline = time.monotonic() + 60
    while not (all(map(Path.exists, others)) and partial.exists() and partial.stat().st_size == BYTES // 2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_ends_in_the_middle_is_taken_up_by_the_next(server, tmp_path, sign):
    process = _program(server, tmp_path)
    os.kill(process.pid, sign)
    _, told = process.communicate(timeout=60)
    assert process.returncode == (130 if sign == signal.SIGINT else -signal.SIGKILL), told
    if sign == signal.SIGINT:
        assert told == "topgb: interrupted; the same command goes on where this one stopped\n"
    assert not (tmp_path / "train00.tfrecord").exists()
    assert download_from(server, tmp_path) == Download(files=3, there=2, fetched=1, received=BYTES // 2)
    assert server.ranges_asked("train00.tfrecord") == [None, f"bytes={BYTES // 2}-"]
    assert _is_whole(server, tmp_path)
