"""topgb data download, from outside."""

import pytest

from cli.program import topgb
from youtube8m.plan_server import PARTITION, PLAN, PlanServer


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = PlanServer({f"train{number:02d}.tfrecord": bytes([number]) * 1000 for number in range(30)})
    yield server
    server.close()


def _download(server, folder, *more):
    where = ("--mirror", server.mirror, "--plans", server.plans)
    return topgb("data", "download", folder, "--partition", PARTITION, *where, *more)


def test_a_download_and_the_rest_of_it(server, tmp_path):
    done = _download(server, tmp_path / "new", "--shard", "2,3", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    part = len(list((tmp_path / "new").iterdir()))
    assert 0 < part < 30
    size = f"{part / 1000:.1f}"
    assert done.stdout == f"{tmp_path / 'new'}: {part} of {part} files, {part} fetched now ({size} MB)\n"
    rest = _download(server, tmp_path / "new")
    assert rest.stdout.startswith(f"{tmp_path / 'new'}: 30 of 30 files, {30 - part} fetched now (")


def test_failures_are_listed_at_the_end(server, tmp_path):
    server.always = {"train03.tfrecord": 404, "train07.tfrecord": "wrong"}
    server.faults["train07.tfrecord"] = []
    done = _download(server, tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{tmp_path}: 28 of 30 files, 28 fetched now (")
    assert done.stderr.splitlines() == [
        "train03.tfrecord: the server answers 404 Not Found",
        "train07.tfrecord: its bytes do not have the plan's MD5 sum, 3 times in a row",
        "topgb: 2 files could not be fetched; the same command tries them again",
    ]


def test_a_mirror_without_the_files_is_not_asked_for_every_one(server, tmp_path):
    plans = server.plans
    server.mirror += "/elsewhere"
    done = _download(server, tmp_path, "--jobs", "1")
    assert plans == server.plans
    assert done.returncode == 1
    assert done.stderr.endswith(
        "20 files could not be fetched, and 10 were not tried any more; the same command tries them again\n"
    )


def test_force_fetches_damaged_files_again(server, tmp_path):
    _download(server, tmp_path)
    (tmp_path / "train05.tfrecord").write_bytes(b"damaged")
    refused = _download(server, tmp_path)
    assert refused.returncode == 2
    assert "other bytes in train05.tfrecord than 2/frame/train" in refused.stderr
    server.requests.clear()
    assert _download(server, tmp_path, "--force").returncode == 0
    assert [name for name, _ in server.requests] == [PLAN, "train05.tfrecord"]
    assert (tmp_path / "train05.tfrecord").read_bytes() == bytes([5]) * 1000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--partition", "frame/train"], "--partition 'frame/train' is not VERSION/LEVEL/SPLIT"),
        (["--partition", PARTITION, "--shard", "0,10"], "--shard '0,10' is not X,Y"),
        (["--partition", PARTITION, "--mirror", "mars"], "no mirror 'mars'"),
        (["--partition", "2/frame/tests", "--plans", "{plans}"], "404 Not Found; check the names"),
        (["--partition", PARTITION, "--jobs", "0"], "--jobs"),
        ([], "--partition"),
    ],
)
def test_bad_input_is_one_sentence(server, tmp_path, arguments, words):
    done = topgb("data", "download", tmp_path / "x", *[text.format(plans=server.plans) for text in arguments])
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x").exists()
