"""Videos as uploads: what `topgb tag` says of them, from a process that can be ended."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import topgb
from combining.small_models import model_file
from serving.running import Client, serving, until
from tagging.tagged_clips import Clips, make_clips
from topgb.serving.settings import Settings
from topgb.video.extractors import find_extractor

# Batches have other sizes than this test's.
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Clips:
    """Clips of 3 and 5 seconds, and a model that looks at 4 seconds."""
    return make_clips(tmp_path_factory.mktemp("clips"), "sound", {"a": 3.0, "b": 5.0}, max_frames=4)


@pytest.fixture(scope="module")
def client(clips: Clips, place):
    with serving([clips.model], Settings(work_seconds=30)) as client:
        yield client


@pytest.mark.numeric
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tags_are_those_of_topgb_tag(client: Client, clips: Clips, place):
    for name, path in clips.videos.items():
        for timeline in (None, 2.0):
            wanted = topgb.tag(clips.model, path, timeline=timeline, progress=False).to_dict()["videos"][0]
            reply = client.tag(f"{name}.mp4", path.read_bytes(), {"timeline": str(timeline)} if timeline else {})
            assert reply.status == 200, reply
            (found,) = reply.json["videos"]
            remarks = found.pop("remarks", [])
            assert any("first 4 seconds" in remark for remark in remarks) == (name == "b")
            assert (found["path"], found["seconds"]) == (f"{name}.mp4", wanted["seconds"])
            parts = list(zip([found, *found["timeline"]], [wanted, *wanted["timeline"]], strict=True))
            assert len(parts) == (1 if timeline is None else 3 if name == "a" else 4)
            for ours, theirs in parts:
                assert {ours.get("start"), ours.get("end")} == {theirs.get("start"), theirs.get("end")}
                assert [tag["class"] for tag in ours["tags"]] == [tag["class"] for tag in theirs["tags"]]
                for a, b in zip(ours["tags"], theirs["tags"], strict=True):
                    assert a["probability"] == pytest.approx(b["probability"], abs=ROUNDING)
    assert list(place.iterdir()) == []


def test_what_is_no_video_is_refused(client: Client, place):
    for name, content in (("x.mp4", b"garbage"), ("x.txt", b"text"), ("x", b""), ("a/../b.png", b"\x89PNG\r\n\x1a\n")):
        reply = client.tag(name, content)
        assert (reply.status, reply.detail.startswith("cannot read ")) == (422, True), reply
        assert name.rpartition("/")[2] in reply.detail
        assert "secret-" not in reply.detail
        assert "upload" not in reply.detail
    assert list(place.iterdir()) == []


def test_a_model_without_an_extractor_says_so(tmp_path, clips: Clips):
    with serving([model_file(tmp_path / "m.safetensors")]) as client:
        reply = client.tag("a.mp4", clips.videos["a"].read_bytes())
    assert (reply.status, "does not say which extractor" in reply.detail) == (422, True), reply


def test_a_process_that_takes_too_long_or_dies_is_replaced(client: Client, clips: Clips):
    extracting = client.service.extracting
    content = clips.videos["a"].read_bytes()
    assert client.tag("a.mp4", content).status == 200
    process = extracting._process
    os.kill(process.pid, signal.SIGSTOP)
    extracting._seconds = 0.2
    reply = client.tag("a.mp4", content)
    assert (reply.status, reply.detail) == (
        422,
        "the file could not be read within 0.2 seconds; send a shorter or smaller one",
    )
    extracting._seconds = 30
    assert client.tag("a.mp4", content).status == 200
    os.kill(extracting._process.pid, signal.SIGKILL)
    until(lambda: extracting._process.poll() is not None)
    assert client.tag("a.mp4", content).status == 200


def test_a_client_that_hangs_up_ends_the_work(client: Client, clips: Clips, place):
    extracting = client.service.extracting
    content = clips.videos["a"].read_bytes()
    assert client.tag("a.mp4", content).status == 200
    process = extracting._process
    os.kill(process.pid, signal.SIGSTOP)
    _hang_up(client, content)
    # SIGKILL ends a stopped process, too.
    until(lambda: process.poll() is not None)
    until(lambda: not list(place.iterdir()))
    assert client.tag("a.mp4", content).status == 200


def _hang_up(client: Client, content: bytes) -> None:
    body = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n' + content
    body += b"\r\n--edge--\r\n"
    head = (
        "POST /v1/tag HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=edge\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with client.connect() as connection:
        connection.sendall(head.encode() + body)
        time.sleep(0.3)


def test_the_process_ends_with_a_server_that_is_killed(clips: Clips, tmp_path):
    """Its input ends then, while it works on a video."""
    identity, out = dict(find_extractor("sound").identity), tmp_path / "features.npz"
    order = {"path": str(clips.videos["b"]), "out": str(out), "identity": identity, "max_seconds": 600.0}
    command = [sys.executable, "-m", "topgb.serving.extracting"]
    ended = subprocess.run(command, input=json.dumps(order) + "\n", capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert not out.exists()
