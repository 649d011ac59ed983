"""Names and files that no command can use: outputs whose names are not UTF-8, and inputs that are no files."""

import os
import signal
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

from cli.program import topgb
from cli.test_every_model_command import COMMANDS, folder  # noqa: F401 - a fixture

WRITING = {name: text for name, text in COMMANDS.items() if "{out}" in text}
WRITING |= {
    "thresholds": "thresholds {m} {data} --out {out}",
    "report": "report {m} {data} --out {out}",
    "card": "model card {m} --out {out}",
    "segments": "predict {m} {data} --segments --out {out}",
    "extract": "extract {sound} --out {out}",
    "train": "train audioset-average --data {data} --out {out} --device cpu",
    "synth": "data synth {out} --videos 2 --features rgb:4",
    "drop-fakes": "data drop-fakes {data} {out}",
    "pack": "data pack {features} --out {out}",
    "download": "data download {out} --partition 2/frame/train",
}
# Of these another fault is found first: the records lack features, and there is no network.
FAULTY = ("train", "download")
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
    "model to tag with": "tag {f} video.mp4",
    "model to serve": "serve {f} --port 0",
    "model to decide": "thresholds {f} {data} --out {out}",
    "model to report": "report {m} {f} {data} --out {out}",
    "model of a card": "model card {f} --out {out}",
    "model to compare": "compare {m} {f} {data}",
    "model to teach": "distill {f} {data} --out {out}",
    "model to quantize": "model quantize {f} --out {out} --method int8",
    "records to decide on": "thresholds {m} {f} --out {out}",
    "records to report on": "report {m} {f} --out {out}",
    "records of a card": "model card {m} --data {f} --out {out}",
    "segments": "predict {m} {f} --segments --out {out}",
    "classes of segments": "predict {m} {data} --segments --classes {f} --out {out}",
    "labels of videos": "extract {sound} --labels {f} --out {out}",
    "submission": "submission check {f}",
    "submissions": "submission concat {f} {f} --out {out}",
}
# Of these nothing is read, because the name says that it is another thing.
BY_NAME = ("checkpoint", "recipe", "scores", "features")
# Root gives up what lets it read any file.
POWERLESS = """
import ctypes, os
from topgb.__main__ import run

if os.geteuid() == 0:
    version_and_process, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(version_and_process, none) == 0
run()
"""


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
    sound = tmp_path / "features/a.wav"
    sound.write_bytes(b"RIFF")
    return {**places, "data": data, "features": tmp_path / "features", "sound": sound, "out": tmp_path / "out"}


@pytest.mark.parametrize("name", WRITING)
def test_an_output_whose_name_is_not_utf_8_is_refused(words, tmp_path, name):
    done = _run(WRITING[name], **{**words, "out": tmp_path / "out\udcff"})
    assert done.returncode == 2, done
    assert r"out\udcff is not UTF-8; choose another name" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["features"]


@pytest.mark.parametrize("name", [name for name in WRITING if name not in FAULTY])
@pytest.mark.parametrize("kind", ["fifo", "device", "below a file"])
def test_an_output_that_cannot_be_a_file_is_named(words, tmp_path, name, kind):
    out = tmp_path / "special"
    if kind == "fifo":
        os.mkfifo(out)
    elif kind == "device":
        out = Path("/dev/full")
    else:
        out.touch()
        out = out / "out"
    done = _run(f"{WRITING[name]} --force", **{**words, "out": out})
    assert done.returncode == 2, done
    assert str(out) in done.stderr, done
    assert done.stderr.startswith("topgb: "), done
    assert len(done.stderr.splitlines()) == 1, done


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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets root give up its powers one by one")
@pytest.mark.parametrize("name", [name for name in READING if name not in BY_NAME])
def test_an_unreadable_file_is_named(words, zygote, tmp_path, name):
    special, script = tmp_path / "special", tmp_path / "powerless.py"
    special.write_text("secret")
    special.chmod(0)
    script.write_text(POWERLESS)
    said = {**words, "f": special}
    ended = zygote.start([part.format(**said) for part in READING[name].split()], script=script).wait()
    assert ended.code == 2, ended
    assert ended.err.startswith(f"topgb: cannot read {special}"), ended
    assert "permission" in ended.err.lower(), ended
    assert len(ended.err.splitlines()) == 1, ended
    assert not (tmp_path / "out").exists()
