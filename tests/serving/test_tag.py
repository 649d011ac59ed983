"""`/v1/tag`: files of features through a model, whole and in stretches."""

import io
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import topgb
from combining.small_models import AUDIO, model_file, videos
from conftest import SMALL_CLASSES
from serving.running import PATIENCE, Client, HeldModel, npy, serving, until
from topgb.features import Feature, FeatureSpec
from topgb.serving.settings import Settings

NAMES = tuple(f"class {index}" for index in range(SMALL_CLASSES))
# Batches have other sizes than this test's.
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secret-models")
    frames = model_file(folder / "frames.safetensors", class_names=NAMES)
    spec = FeatureSpec("video", (Feature("own", 6, "float32"),))
    return {
        "frames": frames,
        "own": model_file(folder / "own.safetensors", {**AUDIO, "features": ["own"]}, features=spec),
    }


@pytest.fixture(scope="module")
def client(models, place):
    with serving(list(models.values()), Settings(upload_bytes=1 << 20, video_seconds=400)) as client:
        yield client


@pytest.fixture(autouse=True)
def _nothing_stays(place):
    yield
    assert list(place.iterdir()) == []


def _probabilities(tags) -> np.ndarray:
    found = np.full(SMALL_CLASSES, np.nan)
    for tag in tags:
        found[tag["class"]] = tag["probability"]
        assert tag["name"] == NAMES[tag["class"]]
    return found


def _npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.numeric
def test_arrays_whole_and_in_stretches(client: Client, models):
    model = topgb.load(models["frames"])
    frames = np.concatenate(videos())[:20]
    apart = {feature.name: frames[:, model.features.columns(feature.name)] for feature in model.features.features}
    for name, content in (("a b.npy", npy(frames)), ("C:\\x\\own.NPZ", _npz(**apart))):
        reply = client.tag(name, content, {"top": "all", "timeline": "8"})
        assert reply.status == 200, reply
        assert "features;dur=" in reply.headers["server-timing"]
        (video,) = reply.json["videos"]
        assert (video["path"], video["seconds"]) == (name.rpartition("\\")[2], 20.0)
        assert [(s["start"], s["end"]) for s in video["timeline"]] == [(0, 8), (8, 16), (16, 20)]
        wanted = model.predict([frames, frames[:8], frames[8:16], frames[16:]])
        found = [_probabilities(part["tags"]) for part in (video, *video["timeline"])]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=ROUNDING)
    plain = client.tag("x.npy", npy(frames)).json["videos"][0]
    assert (len(plain["tags"]), plain["timeline"]) == (5, [])


@pytest.mark.numeric
def test_records(client: Client, models, small_records):
    shard = Path(small_records["unlabelled"].replace("*", "0000"))
    reply = client.tag("mine.tfrecord", shard.read_bytes(), {"top": "all", "model": "frames"})
    assert reply.status == 200, reply
    table = topgb.predict(models["frames"], str(shard), top=SMALL_CLASSES, progress=False).columns()
    ids = list(dict.fromkeys(table["id"]))
    assert [video["path"] for video in reply.json["videos"]] == [f"mine.tfrecord: {name}" for name in ids]
    wanted = np.array(table["probability"]).reshape(len(ids), SMALL_CLASSES)
    found = [[tag["probability"] for tag in video["tags"]] for video in reply.json["videos"]]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=ROUNDING)


def test_what_was_not_looked_at_is_said(client: Client):
    (video,) = client.tag("long.npy", npy(np.full((500, 40), 9.0))).json["videos"]
    assert video["seconds"] == 300
    assert [
        any(word in remark for remark in video["remarks"]) for word in ("first 400", "first 300", "lie outside")
    ] == [
        *(True, True, True),
    ]


@pytest.mark.parametrize(
    ("name", "content", "options", "status", "words"),
    [
        ("x.npy", b"", {}, 422, "x.npy is cut off in the header of the array 'features'"),
        ("x.npy", b"x" * 99, {}, 422, "x.npy: 'features' is not a NumPy array"),
        ("../../etc/x.npz", b"PK", {}, 422, "x.npz is not a .npz file"),
        ("x.tfrecord", b"garbage", {}, 422, "x.tfrecord"),
        ("x.tfrecord", b"", {}, 422, "; copy or download the file again"),
        ("x.npy", npy(np.zeros((3, 41), np.uint8)), {}, 422, "this model takes [frames, 40]"),
        ("x.npz", _npz(other=np.zeros((3, 40), np.uint8)), {}, 422, "has the features other; this model takes"),
        ("x.npy", npy(videos()[0]), {"timeline": "0"}, 422, "timeline: "),
        ("x.npy", npy(videos()[0]), {"timeline": "301"}, 422, '"timeline": 301.0 is no length of a stretch'),
        ("x.npy", npy(videos()[0]), {"timeline": "1", "model": "own"}, 422, 'leave "timeline" out'),
        ("x.npy", npy(videos()[0]), {"model": "z"}, 404, "ask for frames, own"),
        ("x.npy", npy(videos()[0]), {"colour": "red"}, 422, "'colour' is no field"),
        ("x.npy", npy(videos()[0]), {"threshold": "model"}, 422, 'give "threshold": 0.5'),
        ("x.npy", b"x" * ((1 << 20) + 1), {}, 413, "has 1,048,577 bytes, and may have 1,048,576"),
        ("\x1b[31m.npy", b"", {}, 422, "\\x1b[31m.npy"),
    ],
)  # fmt: skip
def test_wrong_files(client: Client, place, name, content, options, status, words):
    reply = client.tag(name, content, options)
    assert (reply.status, words in reply.detail) == (status, True), reply
    # Nor is there an option to leave a record out, as commands have.
    for secret in ("secret-", "upload", str(place), "on-damaged"):
        assert secret not in reply.detail


def test_forms_without_a_file(client: Client):
    body = b'--edge\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n--edge--\r\n'
    reply = client.ask("POST", "/v1/tag", body, content_type="multipart/form-data; boundary=edge")
    assert (reply.status, reply.detail) == (400, "the form has no file; put one in its field file")
    assert client.ask("POST", "/v1/tag", body, content_type="multipart/form-data").status == 400
    assert client.ask("POST", "/v1/tag", b"x", content_type="text/plain").status == 415
    two = body.replace(b'name="file"', b'name="file"; filename="a.npy"')
    two = two.replace(
        b"--edge--", b'--edge\r\nContent-Disposition: form-data; name="b"; filename="b"\r\n\r\nx\r\n--edge--'
    )
    assert client.ask("POST", "/v1/tag", two, content_type="multipart/form-data; boundary=edge").status == 400


def test_packed_files_are_bounded(client: Client, monkeypatch):
    monkeypatch.setattr("topgb.unpacked_size._chosen", 1 << 20)
    file = io.BytesIO()
    np.savez_compressed(file, rgb=np.zeros((1 << 16, 32), np.uint8))
    reply = client.tag("bomb.npz", file.getvalue())
    assert (reply.status, "unpacks to more than 1,048,576" in reply.detail) == (422, True), reply
    assert "the server's option max-unpacked" in reply.detail
    assert zlib.crc32(file.getvalue()) != 0


def test_no_more_files_than_are_worked_with(models):
    held = HeldModel(models["frames"])
    content = npy(videos()[0])
    with serving([held.served()], Settings(uploads=1)) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.tag, "x.npy", content)
        assert held.begun.wait(PATIENCE)
        refused = client.tag("x.npy", content)
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        held.go.set()
        assert first.result().status == 200
        assert client.tag("x.npy", content).status == 200


def test_a_slow_upload_takes_no_others_place(client: Client, models):
    head = (
        b"POST /v1/tag HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=edge\r\n"
        b"content-length: 900000\r\n\r\n--edge\r\n"
    )
    with serving([models["frames"]], Settings(uploads=1, stored_bytes=1 << 20)) as client:
        slow = [client.connect() for _ in range(3)]
        for connection in slow:
            connection.sendall(head + b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n')
        content = npy(np.zeros((1000, 40), np.uint8))
        assert client.tag("x.npy", content).status == 200
        # Unless they have filled the place for all files.
        slow[0].sendall(b"x" * 899_000)
        until(lambda: b'topgb_body_bytes{where="disk"} 899' in client.get("/metrics").body)
        assert client.tag("x.npy", content * 4).status == 429
        for connection in slow:
            connection.close()
        until(lambda: client.tag("x.npy", content).status == 200)


def test_examples(client: Client, models, tmp_path):
    names = [entry["name"] for entry in client.get("/v1/examples").json["examples"]]
    assert names == ["made-up-40-frame.npy", "made-up-6-video.npy"]
    for name, model, timeline in zip(names, ("frames", "own"), ({"timeline": "6"}, {}), strict=True):
        content = client.get(f"/v1/examples/{name}").body
        (video,) = client.tag(name, content, {"model": model, **timeline}).json["videos"]
        assert ("remarks" in video, len(video["timeline"])) == (False, 5 if timeline else 0)
    (tmp_path / "b c.npy").write_bytes(npy(videos()[0]))
    (tmp_path / "notes.txt").write_text("not shown")
    with serving([models["frames"]], Settings(examples=tmp_path)) as own:
        assert own.get("/v1/examples").json == {"examples": [{"name": "b c.npy", "bytes": 368}]}
        assert own.get("/v1/examples/b%20c.npy").body == npy(videos()[0])
        for path in ("notes.txt", "..%2Fnotes.txt", "%2e%2e", "made-up-40-frame.npy"):
            assert own.get(f"/v1/examples/{path}").status == 404


def test_the_cases_as_uploads(client: Client, cases):
    """Files that were once answered wrongly: none fails the server, and each is answered or refused in a sentence."""
    sent = [path for path in sorted(cases.rglob("*")) if path.is_file() and path.stat().st_size < 1 << 20]
    assert len(sent) > 20
    for path in sent:
        reply = client.tag(path.name, path.read_bytes())
        assert reply.status in (200, 422, 503), (path, reply)
        if reply.status != 200:
            assert str(path.parent) not in reply.detail
            assert reply.detail.isprintable()
    assert client.get("/healthz").status == 200
