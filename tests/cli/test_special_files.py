"""Names and files that no command can use: outputs whose names are not UTF-8, and inputs that are no files."""

import os
import signal
import socket

import numpy as np
import pytest

from cli.program import topgb
from cli.test_every_model_command import COMMANDS, folder  # noqa: F401 - a fixture

WRITING = {name: text for name, text in COMMANDS.items() if "{out}" in text}
WRITING |= {
    "train": "train audioset-average --data {data} --out {out} --device cpu",
    "synth": "data synth {out} --videos 2 --features rgb:4",
    "drop-fakes": "data drop-fakes {data} {out}",
    "pack": "data pack {features} --out {out}",
    "download": "data download {out} --partition 2/frame/train",
}
# {f} is a FIFO, a socket or a device where a file is expected.
READING = {
    "model": "model show {f}",
    "model to evaluate": "eval {f} {data}",
    "model to export": "model export {f} --to pt2 --out {out}",
    "models": "model average {f} {f} --out {out}",
    "parent": "train own-frames --data {data} --out {out} --init-from {f}",
    "checkpoint": "model import-tf {f} --out {out}",
    "records": "eval {m} {f}",
    "records to train": "train own-frames --data {f} --out {out}",
    "records to inspect": "data inspect {f}",
    "records to verify": "data verify {f}",
    "records to copy": "data drop-fakes {f} {out}",
    "recipe": "train {f} --data {data} --out {out}",
    "vocabulary": "model show {m} --vocabulary {f}",
    "scores": "model rerank {m} --data {data} --scores {f} --out {out}",
    "deviations": "data drop-fakes {data} {out} --stats {f}",
    "features": "data pack {f} --out {out}",
    "labels": "data pack {features} --labels {f} --out {out}",
    "submission": "submission check {f}",
    "submissions": "submission concat {f} {f} --out {out}",
}


def _run(command, **words):
    def late(number, frame):
        raise TimeoutError

    earlier = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    try:
        return topgb(*(part.format(**words) for part in command.split()))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)


@pytest.fixture
def words(folder, tmp_path):  # noqa: F811 - the fixture
    (tmp_path / "features").mkdir()
    np.save(tmp_path / "features/a.npy", np.ones((2, 3), np.float32))
    places = {"m": folder / "m.safetensors", "other": folder / "other.safetensors", "scores": folder / "scores"}
    data = f"{folder}/data/*.tfrecord"
    return {**places, "data": data, "features": tmp_path / "features", "out": tmp_path / "out"}


@pytest.mark.parametrize("name", WRITING)
def test_an_output_whose_name_is_not_utf_8_is_refused(words, tmp_path, name):
    done = _run(WRITING[name], **{**words, "out": tmp_path / "out\udcff"})
    assert done.returncode == 2, done
    assert r"out\udcff is not UTF-8; choose another name" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["features"]


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_what_is_no_file_is_named(words, tmp_path, name, kind):
    special = tmp_path / "special"
    if kind == "fifo":
        os.mkfifo(special)
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(tmp_path)
        try:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind("special")
        finally:
            os.chdir(here)
    else:
        special = "/dev/zero"
    done = _run(READING[name], **{**words, "f": special})
    assert done.returncode == 2, done
    assert str(special) in done.stderr, done
    assert len(done.stderr.splitlines()) == 1, done
    assert not (tmp_path / "out").exists()
