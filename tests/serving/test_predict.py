"""`/v1/predict` and its neighbours: answers are those of `topgb.load(…).predict`."""

import json

import numpy as np
import pytest

import topgb
from combining.small_models import AUDIO, model_file, stored_as, videos
from conftest import SMALL_CLASSES
from serving.running import Client, serving
from topgb.features import Feature, FeatureSpec
from topgb.modelfile.best import best_classes
from topgb.quantizing.schemes import Scheme
from topgb.serving.served import names_for

pytestmark = pytest.mark.numeric
NAMES = tuple(f"Klasse {index} ü" for index in range(SMALL_CLASSES))
THRESHOLDS = {"goal": "f1", "common": 0.5, "values": [0.1 * (index % 9) for index in range(SMALL_CLASSES)]}
FLOATS = FeatureSpec("video", (Feature("own", 6, "float32"),))
# The batches of the server are of other sizes than this test's, and sums of floats are rounded in another order.
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    first = model_file(folder / "first.safetensors", class_names=NAMES, extras={"thresholds": THRESHOLDS})
    packed = stored_as(model_file(folder / "x.safetensors", seed=1), folder / "packed.safetensors", Scheme("int8"))
    own = model_file(folder / "own.safetensors", {**AUDIO, "features": ["own"]}, features=FLOATS)
    return {path.stem: path for path in (first, packed, own)}


@pytest.fixture(scope="module")
def client(models):
    with serving(list(models.values())) as client:
        yield client


def _rows(reply, classes: int = SMALL_CLASSES) -> np.ndarray:
    """Probabilities [B, V] of an answer that has all classes."""
    assert reply.status == 200, reply
    rows = np.full((len(reply.json["predictions"]), classes), np.nan)
    for row, tags in zip(rows, reply.json["predictions"], strict=True):
        assert [tag["probability"] for tag in tags] == sorted((tag["probability"] for tag in tags), reverse=True)
        for tag in tags:
            row[tag["class"]] = tag["probability"]
    return rows


def test_the_server_says_what_it_has(client: Client, models):
    assert (client.get("/healthz").status, client.get("/healthz").json) == (200, {"status": "ok"})
    first, packed, own = client.get("/v1/models").json["models"]
    assert (first["name"], first["classes"], first["bytes"]) == ("first", 12, models["first"].stat().st_size)
    assert [(f["name"], f["size"]) for f in first["features"]] == [("rgb", 32), ("audio", 8)]
    assert (first["thresholds"], packed["thresholds"]) == (True, False)
    assert (own["level"], own["features"][0]["dtype"]) == ("video", "float32")


@pytest.mark.parametrize("name", ["first", "packed"])
def test_all_kinds_of_bodies_give_what_predict_gives(client: Client, models, name):
    model = topgb.load(models[name])
    stored = videos()
    floats = np.random.default_rng(1).uniform(-1.9, 1.9, stored.shape)
    query = f"?model={name}&top=all"
    asked = {"model": name, "top": None}
    for reply, given in (
        (client.predict(stored, query), stored),
        (client.predict(np.asfortranarray(stored), query), stored),
        (client.predict(stored[0], query), stored[:1]),
        (client.predict(stored[0, 0], query), stored[:1, :1]),
        (client.predict({**asked, "features": stored.tolist(), "encoding": "bytes"}), stored),
        (client.predict({**asked, "features": [stored[0].tolist(), stored[1, :2].tolist()], "encoding": "bytes"}),
         [stored[0], stored[1, :2]]),
        (client.predict(floats, query), floats),
        (client.predict(floats.astype(">f4"), query), floats.astype(np.float32)),
        (client.predict({**asked, "features": floats[0].tolist()}), floats[:1]),
    ):  # fmt: skip
        np.testing.assert_allclose(_rows(reply), model.predict(given), rtol=0, atol=ROUNDING)
        assert reply.json["model"] == name
        assert "warnings" not in reply.json
        assert reply.headers["server-timing"].startswith("model;dur=")


def test_video_level_features(client: Client, models):
    given = np.random.default_rng(0).normal(size=(5, 1, 6)).astype(np.float32)
    wanted = topgb.load(models["own"]).predict(given)
    np.testing.assert_allclose(_rows(client.predict(given, "?model=own&top=all")), wanted, rtol=0, atol=ROUNDING)
    refused = client.predict(given[:, 0], "?model=own")
    assert (refused.status, "video-level features" in refused.detail) == (422, True)


def test_what_is_chosen_is_what_tag_gives(client: Client, models):
    model = topgb.load(models["first"])
    stored = videos()
    for query, options in (
        ("", {}),
        ("?top=3", {"top": 3}),
        ("?top=all&threshold=model", {"top": None, "threshold": "model"}),
        ("?top=all&threshold=0.4", {"top": None, "threshold": 0.4}),
    ):
        found = client.predict(stored, query).json["predictions"]
        wanted = model.tag(list(stored), **options)
        assert [[tag["name"] for tag in tags] for tags in found] == [[name for name, _ in tags] for tags in wanted]
    as_json = client.predict({"features": stored.tolist(), "encoding": "bytes", "threshold": "model", "top": None})
    assert as_json.json["predictions"] == client.predict(stored, "?top=all&threshold=model").json["predictions"]


def test_the_answer_says_what_was_clipped_and_cut(client: Client):
    reply = client.predict(np.full((301, 40), 9.0))
    first, second, third = reply.json["warnings"]
    assert "301" not in first
    assert "the model looks at the first 300" in first
    assert "100.00% of the values of feature 'rgb' lie outside" in second
    assert "audio" in third


def test_the_figures_count(client: Client):
    client.predict(videos())
    before = client.get("/metrics").body.decode()
    client.predict(videos())
    client.get("/no/such/path")
    after = client.get("/metrics").body.decode()
    line = 'topgb_requests_total{path="/v1/predict",status="200"} '
    count = {text: float(text.split(line)[1].split("\n")[0]) for text in (before, after)}
    assert count[after] == count[before] + 1
    assert 'path="other",status="404"' in after
    assert "/no/such" not in after
    assert 'topgb_batch_videos_bucket{le="16.0",model="first"}' in after
    assert "topgb_waiting_videos 0.0" in after


def test_the_description_of_the_api_names_every_call(client: Client):
    described = client.get("/openapi.json").json
    assert set(described["paths"]) == {
        "/healthz",
        "/v1/models",
        "/v1/predict",
        "/v1/tag",
        "/v1/examples",
        "/v1/examples/{name}",
        "/v1/thresholds",
        "/metrics",
    }
    bodies = described["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
    assert set(bodies) == {"application/json", "application/octet-stream"}
    assert set(bodies["application/json"]["schema"]["properties"]) == {
        *("model", "features", "encoding", "top", "threshold"),
    }
    assert "$ref" not in json.dumps(bodies)


def test_names_of_models(tmp_path):
    one, two = tmp_path / "a" / "model.safetensors", tmp_path / "b" / "model.safetensors"
    run = tmp_path / "run.1"
    run.mkdir()
    assert names_for([one, run]) == ["model", "run.1"]
    assert names_for([one, two, run]) == ["a/model", "b/model", "run.1"]
    with pytest.raises(topgb.InputError, match="would both be called 'a/model'; rename"):
        names_for([one, one])


def test_best_classes_are_those_of_a_stable_sort():
    generator = np.random.default_rng(0)
    for _ in range(100):
        probabilities = generator.random(generator.integers(1, 40)).round(1).astype(np.float32)
        least = generator.random(len(probabilities)).astype(np.float32)
        every = np.argsort(-probabilities, kind="stable")
        for top in (1, 3, None):
            assert best_classes(probabilities, top, None) == every[:top].tolist()
        kept = every[probabilities[every] >= least[every]]
        assert best_classes(probabilities, 3, least) == kept[:3].tolist()
