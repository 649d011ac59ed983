"""What the server refuses: each with a status, and one sentence that names no path of the server."""

import io
import json
import pickle
import struct
import tempfile

import numpy as np
import pytest

import topgb
from combining.small_models import model_file, videos
from serving.running import NPY, Client, npy, serving
from topgb.errors import InputError
from topgb.serving.settings import Settings, check_exposure

SECRET = "correct-horse"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return model_file(tmp_path_factory.mktemp("hidden-folder") / "m.safetensors")


@pytest.fixture(scope="module")
def client(model):
    with serving([model], Settings(body_bytes=1 << 20, upload_bytes=1 << 20)) as client:
        yield client


def _header(text: str, version: bytes = b"\x01\x00") -> bytes:
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + length + text.encode()


def _object_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{}]), allow_pickle=True)
    return file.getvalue()


STORED = {"features": videos()[0].tolist(), "encoding": "bytes"}


@pytest.mark.parametrize(
    ("body", "query", "status", "words"),
    [
        (b"", "", 400, "not a .npy file"),
        (b"garbage", "", 400, "not a .npy file"),
        (pickle.dumps([1]), "", 400, "not a .npy file"),
        (_object_array(), "", 422, "holds object; send one of uint8"),
        (npy(videos())[:-1], "", 400, "and 2,159 came; send all"),
        (npy(videos()) + b"x", "", 400, "and 2,161 came; send all"),
        (_header("{'descr': '|u1', 'fortran_order': False, 'shape': (99999999, 99999999)}"), "", 400, "send all"),
        (_header(" " * 60_000), "", 400, "60,000 bytes"),
        (_header("a" * 70_000, b"\x02\x00"), "", 400, "70,000 bytes"),
        (_header("__import__('os').system('id')"), "", 400, "not a .npy file"),
        (npy(np.zeros((2, 2, 2, 40), np.uint8)), "", 422, "has the shape [2, 2, 2, 40]"),
        (npy(np.uint8(1)), "", 422, "has the shape []"),
        (npy(np.zeros((0, 3, 40), np.uint8)), "", 422, "no video"),
        (npy(np.zeros((129, 1, 40), np.uint8)), "", 422, "ask in several"),
        (npy(np.zeros((3, 41), np.uint8)), "", 422, "this model takes [frames, 40]"),
        (npy(np.zeros((0, 40), np.uint8)), "", 422, "at least one frame"),
        (npy(np.zeros((3, 40), np.int64)), "", 422, "holds int64"),
        (npy(np.full((3, 40), np.nan)), "", 422, "NaN or infinite"),
        (npy(videos()), "?top=0", 422, "top: "),
        (npy(videos()), "?top=x", 422, "top: "),
        (npy(videos()), "?threshold=2", 422, '"threshold": 2.0 is no probability'),
        (npy(videos()), "?threshold=model", 422, 'or give "threshold": 0.5'),
        (npy(videos()), "?color=red", 422, "'color' is no field"),
        (npy(videos()), "?model=x", 404, "there is no model 'x' here; ask for m"),
        ({}, "", 422, "features: field required"),
        ([], "", 422, "the body: "),
        ({"features": []}, "", 422, "lists of numbers"),
        ({"features": [[]]}, "", 422, "lists of numbers"),
        ({"features": [[1, 2]]}, "", 422, "this model takes [frames, 40]"),
        ({"features": [[1, 2], [3]]}, "", 422, "equal numbers of values"),
        ({"features": [[1, 2], [3, 4]], "encoding": "base64"}, "", 422, "encoding: "),
        ({"features": [[1.5] * 40], "encoding": "bytes"}, "", 422, "whole numbers from 0 to 255"),
        ({"features": [[256] * 40], "encoding": "bytes"}, "", 422, "whole numbers from 0 to 255"),
        ({"features": [["1"] * 40]}, "", 422, "all of them numbers"),
        ({"features": [[None] * 40]}, "", 422, "all of them numbers"),
        ({"features": [[10**400] * 40]}, "", 422, "all of them numbers"),
        ({"features": [[[[1]]]]}, "", 422, "lists of numbers"),
        ({**STORED, "top": True}, "", 422, "top: "),
        ({**STORED, "threshold": "high"}, "", 422, "threshold: "),
        ({**STORED, "model": "\x1b[31m"}, "", 404, "'\\x1b[31m'"),
        ({**STORED, "__class__": 1}, "", 422, "'__class__' is no field"),
    ],
)  # fmt: skip
def test_wrong_bodies(client: Client, body, query, status, words):
    reply = client.predict(body, query)
    assert (reply.status, words in reply.detail) == (status, True), reply
    assert "hidden-folder" not in reply.detail


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b'{"features": [[NaN]]}',
        b'{"features": [[1e999]]}',
        b"[" * 5000,
        b"\xff",
        b'{"a": ' + b"1" * 9999 + b"}",
    ],
)
def test_text_that_is_no_json(client: Client, text):
    reply = client.ask("POST", "/v1/predict", text, content_type="application/json")
    assert (reply.status, reply.detail.startswith("the body is not JSON (")) == (400, True), reply


def test_other_paths_methods_and_types(client: Client):
    assert (client.get("/nothing").status, "see /docs" in client.get("/nothing").detail) == (404, True)
    assert client.get("/page/../server.py").status == 404
    assert client.get("/page/%2e%2e/server.py").status == 404
    for method in ("GET", "TRACE", "DELETE"):
        wrong = client.ask(method, "/v1/predict")
        assert (wrong.status, wrong.headers["allow"], "see /docs" in wrong.detail) == (405, "POST", True)
    # A redirection of either would be to where a proxy's clients cannot go.
    assert (client.get("/v1/models/").status, client.get("/healthz/").status) == (404, 404)
    text = client.ask("POST", "/v1/predict", b"x", content_type="text/plain")
    assert (text.status, "'text/plain'; send application/json" in text.detail) == (415, True)


def test_heads_are_those_of_the_answers(client: Client):
    for path in ("/healthz", "/", "/page/page.css", "/v1/models", "/nothing"):
        head, whole = client.ask("HEAD", path), client.get(path)
        assert (head.status, head.body) == (whole.status, b"")
        for name in ("content-type", "content-length"):
            assert head.headers[name] == whole.headers[name]


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        ("", b"--e--\r\n", "Missing boundary"),
        ("; boundary=other", b"--e--\r\n", "Invalid multipart"),
        ("; boundary=e", b"--e\r\nx\r\n--e--\r\n", "Invalid multipart"),
        ("; boundary=e", 9 * b'--e\r\ncontent-disposition: form-data; name="x"\r\n\r\ny\r\n', "Too many fields"),
        ("; boundary=e", 2 * b'--e\r\ncontent-disposition: form-data; name="f"; filename="x"\r\n\r\n\r\n', "Too many"),
        ("; boundary=e", b'--e\r\ncontent-disposition: form-data; name="x"\r\n\r\n' + 5000 * b"y", "Part exceeded"),
    ],
)  # fmt: skip
def test_forms_that_cannot_be_read(client: Client, kind, body, reason):
    reply = client.ask("POST", "/v1/tag", body, content_type=f"multipart/form-data{kind}")
    assert (reply.status, reply.detail.startswith(f"the form cannot be read ({reason}")) == (400, True), reply
    assert reply.detail.endswith("; send one file, and the fields that /docs names")


def test_bodies_that_are_too_big(client: Client):
    reply = client.predict(np.zeros((1 << 20, 2), np.uint8))
    assert (reply.status, reply.detail) == (413, "the body has more than 1,048,576 bytes; send less at once")
    # Nothing says how long this one is, and it has no end.
    with client.connect() as connection:
        connection.sendall(
            f"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: {NPY}\r\n"
            "transfer-encoding: chunked\r\n\r\n".encode()
        )
        for _ in range(17):
            connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")
    json_body = b'{"features": ' + b" " * (17 << 20) + b"}"
    with serving(list(client.service.models.values())) as large:
        reply = large.ask("POST", "/v1/predict", json_body, content_type="application/json")
        assert (reply.status, "send a .npy file as" in reply.detail) == (413, True)


def test_pages_of_others_are_refused(client: Client):
    for host in ("evil.example", "evil.example:8000", "", "127.0.0.1.evil.example"):
        reply = client.get("/v1/models", host=host)
        assert (reply.status, "not called" in reply.detail) == (403, True)
    for host in ("[::1", "localhost:evil", "[localhost]", "[::1]evil", "a:b:c"):
        reply = client.get("/v1/models", host=host)
        assert (reply.status, "header Host" in reply.detail) == (400, True), host
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "x"):
        reply = client.predict(videos(), "", origin=origin)
        assert (reply.status, "another site's page" in reply.detail) == (403, True)
    port = client.port
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", "::1", "LOCALHOST"):
        assert client.predict(videos(), "", host=host, origin=f"http://{host}").status == 200
    assert client.ask("OPTIONS", "/v1/predict", origin="http://evil.example").status == 403
    assert "access-control-allow-origin" not in client.get("/v1/models").headers


def test_named_hosts_and_tokens(client: Client):
    with serving(list(client.service.models.values()), Settings(token=SECRET, hosts=("tags.example",))) as client:
        assert client.get("/v1/models", host="tags.example").status == 401
        for path in ("/healthz", "/docs", "/openapi.json", "/page/page.css"):
            assert client.get(path, host="tags.example").status == 200, path
        for given in (None, "", "Bearer", "Bearer wrong", f"Basic {SECRET}", f"Bearer {SECRET}x", "Bearer é"):
            for path in ("/v1/models", "/metrics"):
                reply = client.get(path, **({} if given is None else {"authorization": given}))
                assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
                assert SECRET not in reply.detail
        assert client.predict(videos()).status == 401
        client.headers = {"authorization": f"Bearer {SECRET}"}
        assert client.predict(videos()).status == 200
        assert client.get("/metrics").status == 200


def test_exposure_needs_a_token():
    for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9"):
        check_exposure(host, None)
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.com"):
        with pytest.raises(topgb.InputError, match=r"protect it with token='SECRET'"):
            check_exposure(host, None)
        check_exposure(host, SECRET)
    for token in ("", "short", "with a blank", "ümläutümläut", "new\nline\nnew"):
        with pytest.raises(topgb.InputError, match="8 characters"):
            check_exposure("127.0.0.1", token)


def test_defects_are_told_to_the_log_alone(client: Client, monkeypatch, capsys):
    monkeypatch.setattr(client.service, "predict", lambda *given: json.loads("{"))
    reply = client.predict(videos())
    assert (reply.status, reply.detail) == (500, "the server failed; what went wrong is in its log")
    assert "JSONDecodeError" in capsys.readouterr().err
    monkeypatch.undo()
    assert client.predict(videos()).status == 200


def test_the_documentation_loads_nothing_from_elsewhere(client: Client):
    for path in ("/docs", "/page/docs.js", "/page/page.css"):
        reply = client.get(path)
        assert (reply.status, b"http://" in reply.body, b"https://" in reply.body) == (200, False, False)
        assert reply.headers["x-content-type-options"] == "nosniff"
    for path in ("/", "/docs"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert (headers["referrer-policy"], headers["cache-control"]) == ("no-referrer", "no-store")


def test_a_server_without_a_place_for_uploads_does_not_start(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(InputError, match="uploads have no place: .* set TMPDIR to a folder that can be written"):
        topgb.serve([tmp_path / "model.safetensors"], port=0)
