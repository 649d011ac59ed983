"""topgb submission, from outside: from test records with fakes among them to a checked CSV."""

import json

import numpy as np
import pytest

from cli.program import topgb
from topgb.features import YOUTUBE8M_VIDEOS
from topgb.records.codec import encode_example
from topgb.records.framing import frame_record
from topgb.records.synth import SynthOptions, write_synthetic

HEADER = "VideoId,LabelConfidencePairs"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "good.csv").write_text(f"{HEADER}\na,1 1\nb,2 0.5 1 0.25\n")
    (tmp_path / "fake.csv").write_text(f"{HEADER}\nc,0 0\n")
    (tmp_path / "bad.csv").write_text(f"{HEADER}\na,1 1\na,1 1\nd,1 0.5 2 0.75\n" + "e,1\n" * 30)
    records = [encode_example(name, {"x": np.float32([1, 2])}, None) for name in "abc"]
    (tmp_path / "x.tfrecord").write_bytes(b"".join(map(frame_record, records)))
    return tmp_path


def test_concat_and_check(files):
    done = topgb("submission", "concat", files / "good.csv", files / "fake.csv", "--out", files / "all.csv.gz")
    assert (done.returncode, done.stdout) == (0, f"{files}/all.csv.gz: 3 videos (2 and 1)\n"), done.stderr
    done = topgb("submission", "check", files / "all.csv.gz")
    assert (done.returncode, done.stdout) == (0, f"{files}/all.csv.gz: 3 rows, 0 problems\n")
    done = topgb("submission", "check", files / "all.csv.gz", "--data", files / "x.tfrecord")
    told = f"{files}/all.csv.gz: 3 rows, 0 of the data's 3 videos missing, 0 problems\n"
    assert (done.returncode, done.stdout) == (0, told)


def test_problems_are_named(files):
    done = topgb("submission", "check", files / "bad.csv", "--data", files / "x.tfrecord")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        f"{files}/bad.csv: line 3: video 'a': it has a row already, in line 2",
        f"{files}/bad.csv: line 4: video 'd': its pairs are not sorted: 0.75 of class 2 comes after 0.5",
    ]
    assert len(lines) == 22
    # 1 twice, 1 unsorted, 30 without a probability, of which 29 are a repeated id; b and c missing, d and e unknown.
    assert lines[20:] == [
        "and 16 more",
        f"{files}/bad.csv: 33 rows, 2 of the data's 3 videos missing, 36 problems",
    ]


def test_problems_in_json(files):
    done = topgb("submission", "check", files / "bad.csv", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["problems"][0] == {"line": 3, "id": "a", "what": "it has a row already, in line 2"}
    assert (found["rows"], found["count"], found["videos"]) == (33, 32, None)
    done = topgb("submission", "check", files / "good.csv", "--json", "--data", files / "x.tfrecord")
    assert done.returncode == 1
    assert json.loads(done.stdout)["missing"] == 1


def test_damaged_data(files):
    (files / "x.tfrecord").write_bytes((files / "x.tfrecord").read_bytes()[:-1])
    arguments = ["submission", "check", files / "good.csv", "--data", files / "x.tfrecord"]
    done = topgb(*arguments)
    assert done.returncode == 2
    assert "x.tfrecord: record 2 at byte" in done.stderr
    done = topgb(*arguments, "--on-damaged", "skip")
    assert (done.returncode, done.stdout.endswith("0 of the data's 2 videos missing, 0 problems\n")) == (0, True)
    assert "skipped 1 damaged record:" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "{tmp}/absent.csv"], "cannot read {tmp}/absent.csv: No such file"),
        (["check", "{tmp}"], "{tmp} is not a file; name a CSV"),
        (["check", "{tmp}/good.csv", "--data", "{tmp}/none"], "no file matches"),
        (
            ["check", "{tmp}/good.csv", "--data", "{tmp}/good.csv"],
            "good.csv is not a TFRecord file; it begins like a CSV",
        ),
        (["concat", "{tmp}/good.csv", "{tmp}/good.csv", "--out", "{tmp}/o"], "video 'a' again, after line 2 of"),
        (["concat", "{tmp}/good.csv", "{tmp}/x.tfrecord", "--out", "{tmp}/o"], "x.tfrecord"),
        (["concat", "{tmp}/good.csv", "{tmp}/fake.csv", "--out", "{tmp}/bad.csv"], "bad.csv exists already"),
        (["concat", "{tmp}/good.csv", "{tmp}/fake.csv", "--out", "{tmp}", "--force"], "{tmp} is not a file"),
        (["concat", "{tmp}/good.csv", "{tmp}/fake.csv", "--out", "{tmp}/bad.csv/o"], "bad.csv is a file"),
        (["concat", "{tmp}/good.csv", "{tmp}/fake.csv"], "--out"),
    ],
)
def test_bad_input_is_one_sentence(files, arguments, words):
    before = (files / "bad.csv").read_bytes()
    done = topgb("submission", *[text.format(tmp=files) for text in arguments])
    assert done.returncode == 2
    assert words.format(tmp=files) in done.stderr
    assert "Traceback" not in done.stderr
    assert not (files / "o").exists()
    assert (files / "bad.csv").read_bytes() == before


def test_bytes_of_all_kinds_have_no_traceback(files):
    generator = np.random.default_rng(0)
    path = files / "odd.csv"
    for head in (b"", f"{HEADER}\n".encode(), b"\x1f\x8b", b"\x00", f'{HEADER}\na,1 1\n"'.encode()):
        for tail in (b"", b"\x00\n,\n", b"\xff\xfe", generator.bytes(5000)):
            path.write_bytes(head + tail)
            for name in ("odd.csv", "odd.csv.gz"):
                path.rename(files / name)
                done = topgb("submission", "check", files / name)
                assert done.returncode in (1, 2)
                done = topgb("submission", "concat", files / "good.csv", files / name, "--out", files / "o", "--force")
                assert done.returncode in (0, 2)
                assert "Traceback" not in done.stderr
                (files / name).rename(path)


def test_from_test_records_to_a_checked_submission(tmp_path):
    """The commands of docs/challenge.md, in its order."""
    (tmp_path / "test").mkdir()
    write_synthetic(
        tmp_path / "test",
        YOUTUBE8M_VIDEOS,
        5,
        12,
        SynthOptions(videos_per_shard=6, labelled=False, prefix="test", frames=(2, 3)),
    )
    with open(tmp_path / "test/test0001.tfrecord", "ab") as file:
        for number in range(4):
            values = {"mean_rgb": np.full(1024, 0.01, np.float32), "mean_audio": np.zeros(128, np.float32)}
            file.write(frame_record(encode_example(f"fake{number}", values, None)))
    write_synthetic(tmp_path / "train", YOUTUBE8M_VIDEOS, 5, 40, SynthOptions(seed=1, frames=(2, 3)))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "data: {level: video, classes: 5, features: [{name: mean_rgb, size: 1024, dtype: float32}, "
        "{name: mean_audio, size: 128, dtype: float32}]}\n"
        "model: {aggregator: average, head: {name: logistic}}\n"
        "training: {batch_size: 20, epochs: 1}\noptimizer: {learning_rate: 0.01}\n"
    )
    test, real, fakes = f"{tmp_path}/test/*.tfrecord", tmp_path / "real", tmp_path / "fakes.csv"
    for arguments in (
        ["train", recipe, "--data", f"{tmp_path}/train/*", "--out", tmp_path / "run", "--device", "cpu"],
        ["data", "drop-fakes", test, real, "--fakes", fakes],
        ["predict", tmp_path / "run", f"{real}/*.tfrecord", "--out", tmp_path / "good.csv.gz", "--device", "cpu"],
        ["submission", "concat", tmp_path / "good.csv.gz", fakes, "--out", tmp_path / "submission.csv.gz"],
        ["submission", "check", tmp_path / "submission.csv.gz", "--data", test],
    ):
        done = topgb(*arguments)
        assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("16 rows, 0 of the data's 16 videos missing, 0 problems\n")
    # Without the fakes it is not complete.
    done = topgb("submission", "check", tmp_path / "good.csv.gz", "--data", test)
    assert done.returncode == 1
    assert "video 'fake3': it is in the data, but has no row" in done.stdout
