"""Clients that are slow, silent, rude or gone hurt nobody else, and nobody gets another's answer."""

import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import topgb
from combining.small_models import model_file
from conftest import SMALL_SPEC
from faults.programs import Zygote
from serving.running import NPY, PATIENCE, Client, HeldModel, npy, serving, until
from topgb.serving import connections
from topgb.serving.settings import Settings

# Batches have other sizes than this test's.
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return model_file(tmp_path_factory.mktemp("model") / "m.safetensors")


@pytest.fixture
def client(model, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.4)
    with serving([model], Settings(read_seconds=0.4)) as client:
        yield client


def _video(seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (generator.integers(1, 8), SMALL_SPEC.width), dtype=np.uint8)


def _request(body: bytes, length: int | None = None) -> bytes:
    head = (
        f"POST /v1/predict?top=all HTTP/1.1\r\nhost: localhost\r\ncontent-type: {NPY}\r\n"
        f"content-length: {len(body) if length is None else length}\r\n\r\n"
    )
    return head.encode() + body


def _end(connection: socket.socket) -> bytes:
    """What still comes until the server hangs up."""
    found = b""
    try:
        while part := connection.recv(1 << 16):
            found += part
    except ConnectionResetError:
        pass
    return found


def test_a_silent_client_and_half_a_head_are_hung_up_on(client: Client):
    for sent in (b"", b"GET / HT", b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\n"):
        with client.connect() as connection:
            connection.sendall(sent)
            assert _end(connection) == b""
    # Also behind a request that was answered.
    with client.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\nGET /healthz HTT")
        assert _end(connection).startswith(b"HTTP/1.1 200 ")


def test_half_a_body_times_out(client: Client):
    with client.connect() as connection:
        connection.sendall(_request(b"x" * 10, 1000))
        answer = _end(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not come within 0.4 seconds" in answer


def test_garbage_is_answered_with_a_problem(client: Client):
    for sent in (b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"):
        with client.connect() as connection:
            connection.sendall(sent + b"\r\n\r\n")
            answer = _end(connection)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 400
    assert client.get("/healthz").status == 200


def test_the_oldest_idle_connection_makes_room_for_a_new_one(client: Client, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", PATIENCE)
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 2)
    held = [client.connect(), client.connect()]
    for connection in held:
        _ask_healthz(connection)
    assert client.get("/healthz").status == 200
    assert _end(held[0]) == b""
    _ask_healthz(held[1])
    for connection in held:
        connection.close()


def _ask_healthz(connection: socket.socket) -> None:
    connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
    answer = b""
    while not answer.endswith(b"}"):
        answer += connection.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_client_that_has_gone_costs_no_computing_and_a_full_server_says_when_to_come_again(model):
    held = HeldModel(model)
    with serving([held.served()], Settings(queue=2)) as client, ThreadPoolExecutor(4) as pool:
        first = pool.submit(client.predict, _video(0))
        assert held.begun.wait(PATIENCE)
        gone = client.connect()
        gone.sendall(_request(npy(_video(1))))
        until(lambda: client.service.batcher.waiting == 1)
        stays = pool.submit(client.predict, _video(2))
        until(lambda: client.service.batcher.waiting == 2)
        refused = client.predict(_video(3))
        assert (refused.status, "ask again" in refused.detail) == (429, True)
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        gone.close()
        until(lambda: 'path="/v1/predict",status="499"' in client.get("/metrics").body.decode())
        held.go.set()
        assert (first.result().status, stays.result().status) == (200, 200)
    assert held.videos == [1, 1]


def test_bodies_are_held_within_bounds(model):
    with serving([model], Settings(held_bytes=1 << 20)) as client:
        held = client.connect()
        held.sendall(_request(b"x" * (900 << 10), 1 << 20))
        until(lambda: b'topgb_body_bytes{where="memory"} 921' in client.get("/metrics").body)
        reply = client.predict(np.zeros((200 << 10, 1), np.uint8))
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        held.close()
        until(lambda: client.predict(np.zeros((200 << 10, 1), np.uint8)).status == 422)


@pytest.mark.numeric
def test_nothing_is_lost_or_mixed_up(model):
    """300 requests of 12 clients at once, a third of which hang up, send half or send garbage."""
    expected = topgb.load(model)

    def ask(seed: int) -> str:
        video = _video(seed)
        if seed % 3 == 0:
            with client.connect() as connection:
                request = _request(npy(video))
                connection.sendall([request, request[:-9], request[: len(request) // 3], b"\x00" * 99][seed // 3 % 4])
            return "rude"
        if seed % 3 == 1:
            reply = client.predict({"features": video.tolist(), "encoding": "bytes", "top": None})
        else:
            reply = client.predict(video, "?top=all")
        assert reply.status == 200, reply
        found = {tag["class"]: tag["probability"] for tag in reply.json["predictions"][0]}
        wanted = expected.predict(video)
        np.testing.assert_allclose([found[place] for place in range(len(wanted))], wanted, rtol=0, atol=ROUNDING)
        return "answered"

    with serving([model]) as client, ThreadPoolExecutor(12) as pool:
        done = list(pool.map(ask, range(300)))
        until(lambda: client.service.batcher.waiting == 0)
    assert (done.count("answered"), done.count("rude")) == (200, 100)


def _begun(zygote: Zygote, model, script=None):
    """The program, and the port at which it listens."""
    running = zygote.start(["serve", model, "--port", "0"], script=script)
    out = running._folder / "out"
    until(lambda: "listening at http://127.0.0.1:" in out.read_text())
    return running, int(out.read_text().rpartition(":")[2])


@pytest.mark.parametrize(
    "numbers", [("SIGTERM",), ("SIGTERM", "SIGTERM"), ("SIGINT",), ("SIGHUP",), ("SIGHUP", "SIGTERM")]
)
def test_the_program_finishes_what_it_has_when_it_is_asked_to_end(numbers, model, zygote: Zygote):
    running, port = _begun(zygote, model)
    body = npy(_video(0))
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(_request(body)[:-5])
        time.sleep(0.2)
        for number in numbers:
            running.signal(signal.Signals[number])
            time.sleep(0.3)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        connection.sendall(body[-5:])
        answer = _end(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    ended = running.wait()
    said = f"m: 12 classes, {model.stat().st_size:,} bytes\nstopped; all requests that had begun are answered\n"
    assert (ended.code, ended.err) == (0, said)


def test_a_signal_after_the_end_changes_nothing(model, zygote: Zygote):
    running, _ = _begun(zygote, model)
    err = running._folder / "err"
    running.signal(signal.SIGTERM)
    until(lambda: "stopped; " in err.read_text())
    # The line comes a moment before the program is deaf.
    time.sleep(0.01)
    running.signal(signal.SIGTERM)
    assert running.wait().code == 0


def test_requests_that_are_cut_off_are_said(model, zygote: Zygote, tmp_path):
    running, port = _begun(zygote, model)
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(_request(npy(_video(0)))[:-5])
        time.sleep(0.2)
        for _ in range(2):
            running.signal(signal.SIGINT)
            time.sleep(0.3)
        ended = running.wait()
    assert ended.code == 0, ended
    assert ended.err.splitlines()[-1] == "stopped; 1 request that had begun got no answer"


def test_a_hangup_is_ignored_under_nohup(model, zygote: Zygote, tmp_path):
    script = tmp_path / "nohup.py"
    script.write_text(
        "import signal\nfrom topgb.__main__ import run\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\nrun()\n"
    )
    running, port = _begun(zygote, model, script)
    running.signal(signal.SIGHUP)
    time.sleep(0.5)
    socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
    running.signal(signal.SIGTERM)
    assert running.wait().code == 0
