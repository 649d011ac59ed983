"""Plans: their faults, which files a shard takes, and where things are."""

import json

import pytest

from topgb.errors import InputError, TopgbError
from topgb.youtube8m import plan as download_plan
from topgb.youtube8m.download import DownloadOptions, download
from topgb.youtube8m.plan import find_partition, parse_shard, take_shard
from youtube8m.plan_server import PARTITION, PLAN, QUICK, PlanServer, download_from


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = PlanServer({name: name.encode() for name in ("train00.tfrecord", "trainZz.tfrecord", "trainzz.tfrecord")})
    yield server
    server.close()


def test_a_plan_is_waited_for(server, tmp_path):
    server.faults[PLAN] = ["short", "drop"]
    assert download_from(server, tmp_path).files == 3


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (b"<html>", "is not JSON"),
        (b"", "is not JSON"),
        (b"\xff\xfe{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "lists no files"),
        (b"{}", "lists no files"),
        (b'{"files": {}}', "lists no files"),
        (b'{"files": ["a"]}', "lists no files"),
        *(
            (json.dumps({"files": {name: "0" * 32}}).encode(), "no plain file name")
            for name in (
                "../a",
                "/etc/x",
                "a/b",
                "a\\b",
                "",
                ".",
                "..",
                ".hidden",
                "a\0b",
                "-rf",
                "é",
                "a b",
                "a" * 201,
            )
        ),
        (b'{"files": {"a": "123"}}', "no MD5 sum for a, but '123'"),
        (b'{"files": {"a": null}}', "no MD5 sum for a, but 'None'"),
        (b'{"files": {"a": "' + b"g" * 32 + b'"}}', "no MD5 sum for a"),
    ],
)
def test_a_bad_plan_is_one_sentence(server, tmp_path, plan, words):
    server.plan = plan
    with pytest.raises(InputError, match=words) as raised:
        download_from(server, tmp_path / "new")
    assert f"{server.plans}/2/download_plans/frame_train.json" in str(raised.value)
    assert not (tmp_path / "new").exists()


def test_a_plan_that_is_too_large_is_not_held(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download_plan, "MOST_PLAN_BYTES", 10)
    with pytest.raises(InputError, match="more than 10 bytes"):
        download_from(server, tmp_path)


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (404, InputError, "404 Not Found; check the names"),
        (500, TopgbError, "500 Internal Server Error; check the connection"),
        ("empty", TopgbError, "broke .* before the end"),
    ],
)
def test_no_plan(server, tmp_path, fault, error, words):
    server.always = {PLAN: fault}
    with pytest.raises(TopgbError, match=f"cannot fetch the plan of 2/frame/train from http://.*{words}") as raised:
        download_from(server, tmp_path)
    assert type(raised.value) is error


def test_no_server(server, tmp_path):
    server.close()
    with pytest.raises(TopgbError, match="Connection refused; check the connection"):
        download_from(server, tmp_path)


@pytest.mark.parametrize(
    ("partition", "options", "words"),
    [
        ("2/frame", {}, "not VERSION/LEVEL/SPLIT"),
        ("2/frame/../x", {}, "not VERSION/LEVEL/SPLIT"),
        ("2/frame/train\n", {}, "not VERSION/LEVEL/SPLIT"),
        (PARTITION, {"mirror": "mars"}, "no mirror 'mars'; there are us, eu, asia"),
        (PARTITION, {"mirror": "file:///etc"}, "mirror 'file:///etc' is not the address"),
        (PARTITION, {"mirror": "http://"}, "is not the address"),
        (PARTITION, {"plans": "http://[::1"}, "plans 'http://\\[::1' is not the address"),
        (PARTITION, {"plans": "plans"}, "plans 'plans' is not the address"),
        (PARTITION, {"plans": "http://" + "a" * 70}, "cannot fetch the plan"),
        (PARTITION, {"plans": "http://a:b@localhost"}, "cannot fetch the plan"),
        (PARTITION, {"plans": "http://é h"}, "cannot fetch the plan"),
        (PARTITION, {"jobs": 0}, "the least is 1"),
    ],
)
def test_senseless_arguments(tmp_path, partition, options, words):
    with pytest.raises(InputError, match=words):
        download(tmp_path, partition, options=DownloadOptions(patience=QUICK, **options))


def test_where_things_are():
    first = find_partition("1/frame_level/validate", "asia")
    assert first.plan == "http://data.yt8m.org/1/download_plans/frame_level_validate.json"
    assert first.file("validate00.tfrecord") == ("http://asia.data.yt8m.org/1/frame_level/validate/validate00.tfrecord")


def test_shards_divide_the_files():
    files = {f"train{a}{b}.tfrecord": "0" * 32 for a in "0aZ" for b in "0123456789abc"}
    parts = [take_shard(files, (part, 7)) for part in range(1, 8)]
    assert sorted(name for part in parts for name in part) == sorted(files)
    # By md5sum, the sum of this name is 51cb6d39a598f7b5cf56931e5947527e, which is 4 modulo 7.
    assert "train00.tfrecord" in parts[4]
    assert parse_shard("3, 7") == (3, 7)
    with pytest.raises(InputError, match="takes none of the plan's 1 files"):
        take_shard({"a": ""}, (1, 2))  # The sum of this name is odd.
    for text in ("0,7", "8,7", "1", "a,b", "1,2,3", "", "-1,3", "1," + "9" * 5000):
        with pytest.raises(InputError, match="is not X,Y"):
            parse_shard(text)


def test_names_that_a_file_system_takes_for_one_are_refused(server, tmp_path, monkeypatch):
    assert download_plan.tells_case(tmp_path)
    assert list(tmp_path.iterdir()) == []
    # No such file system can be mounted here.
    monkeypatch.setattr(download_plan, "tells_case", lambda folder: False)
    with pytest.raises(InputError, match="takes trainZz.tfrecord and trainzz.tfrecord for the same file"):
        download_from(server, tmp_path)
    del server.files["trainZz.tfrecord"]
    assert download_from(server, tmp_path).fetched == 2
