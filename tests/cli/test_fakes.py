"""topgb data drop-fakes, from outside."""

import json

import numpy as np
import pytest

from cli.program import topgb
from topgb.records.codec import encode_example
from topgb.records.framing import frame_record


@pytest.fixture
def source(tmp_path):
    """Two shards: three real videos and two fakes, and a fake alone."""
    (tmp_path / "src").mkdir()
    for name, spreads in (("a.tfrecord", (0.4, 0.05, 0.4, 0.06, 0.375)), ("b.tfrecord", (0.05,))):
        records = [_video(f"{name[0]}{number}", spread) for number, spread in enumerate(spreads)]
        (tmp_path / "src" / name).write_bytes(b"".join(records))
    return f"{tmp_path}/src/*.tfrecord"


def _video(name, spread, feature="mean_rgb"):
    return frame_record(encode_example(name, {feature: np.float32([spread, -spread])}, None))


def test_in_words(source, tmp_path):
    done = topgb("data", "drop-fakes", source, tmp_path / "dst", "--fakes", tmp_path / "fakes.csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{tmp_path}/dst: 1 of 2 files, 3 of 6 videos",
        "kept     3 videos, std 0.3750 to 0.4000, mode 0.4000",
        "dropped  3 videos, std 0.0500 to 0.0600, mode 0.0500",
        "two modes: 0 videos lie within a tenth of the threshold 0.1",
        "1 file had no video left, and no copy was written",
        f"{tmp_path}/fakes.csv: 3 rows",
    ]
    assert (tmp_path / "fakes.csv").read_text() == "VideoId,LabelConfidencePairs\na1,0 0\na3,0 0\nb0,0 0\n"
    assert [path.name for path in (tmp_path / "dst").iterdir()] == ["a.tfrecord"]
    words = topgb("data", "drop-fakes", source, tmp_path / "0", "--threshold", "0.01").stdout.splitlines()
    assert words[2:] == ["dropped  0 videos", "one mode only: 0 videos lie within a tenth of the threshold 0.01"]


def test_in_json(source, tmp_path):
    (tmp_path / "src/c.tfrecord").write_bytes(_video("c0", 0.4)[:-1])
    arguments = ["data", "drop-fakes", source, tmp_path / "dst", "--json"]
    done = topgb(*arguments, "--on-damaged", "skip", "--threshold", "0.39")
    assert done.returncode == 0
    assert "skipped 1 damaged record:" in done.stderr
    found = json.loads(done.stdout)
    assert found["kept"] == pytest.approx({"videos": 2, "least": 0.4, "mode": 0.4, "greatest": 0.4, "width": 0})
    assert found["dropped"]["videos"] == 4
    assert {key: found[key] for key in ("videos", "files", "written", "threshold", "unlisted", "close", "damaged")} == {
        "videos": 6,
        "files": 3,
        "written": 1,
        "threshold": 0.39,
        "unlisted": 0,
        "close": 3,
        "damaged": 1,
    }
    assert found["parted"] is True


def test_a_threshold_inside_a_mode(tmp_path):
    records = [_video(f"v{number}", 0.3 + number / 500) for number in range(101)]
    (tmp_path / "x.tfrecord").write_bytes(b"".join(records))
    done = topgb("data", "drop-fakes", tmp_path / "x.tfrecord", tmp_path / "dst", "--threshold", "0.399")
    lines = done.stdout.splitlines()
    assert lines[1].startswith("kept     51 videos, std 0.4000 to 0.5000, mode 0.4")
    assert lines[2].startswith("dropped  50 videos, std 0.3000 to 0.3980, mode 0.3")
    assert lines[3] == "one mode only, which the threshold cuts: 40 videos lie within a tenth of the threshold 0.399"


def test_deviations_of_a_csv(source, tmp_path):
    (tmp_path / "stds.csv").write_text("vids,std\na1,0.3\na2,0.2\na3,0.01\n")
    done = topgb(
        "data", "drop-fakes", source, tmp_path / "dst", "--stats", tmp_path / "stds.csv", "--fakes", "/dev/null"
    )
    assert done.returncode == 2
    assert "/dev/null" in done.stderr
    done = topgb("data", "drop-fakes", source, tmp_path / "dst", "--stats", tmp_path / "stds.csv")
    assert done.stdout.splitlines()[:4] == [
        f"{tmp_path}/dst: 1 of 2 files, 2 of 6 videos",
        "kept     2 videos, std 0.2000 to 0.3000, mode 0.2500",
        "dropped  1 video, std 0.0100 to 0.0100, mode 0.0100",
        "         3 videos that the CSV lacks",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{src}", "{tmp}/src"], 2, "a.tfrecord lies in {tmp}/src itself"),
        (["{tmp}", "{tmp}/dst"], 2, "the folder {tmp} holds no *.tfrecord or *.tfrecord.gz"),
        (["{tmp}/none*", "{tmp}/dst"], 2, "no file matches"),
        (["{src}", "{tmp}/dst", "--feature", "audio"], 2, "has no feature 'audio'; it has: mean_rgb;"),
        (["{src}", "{tmp}/dst", "--feature", "a.b"], 2, "has no feature 'a.b'"),
        (["{src}", "{tmp}/dst", "--threshold", "-1"], 2, "--threshold"),
        (["{src}", "{tmp}/dst", "--threshold", "inf"], 2, "the threshold inf is no deviation"),
        (["{src}", "{tmp}/dst", "--stats", "{tmp}/absent.csv"], 2, "cannot read {tmp}/absent.csv: No such file"),
        (["{src}", "{tmp}/dst", "--stats", "{tmp}/src"], 2, "{tmp}/src is not a file; name a CSV"),
        (["{src}", "{tmp}/dst", "--stats", "{tmp}/src/a.tfrecord"], 2, "a.tfrecord"),
        (["{src}", "{tmp}/dst", "--stats", "{tmp}/s.csv", "--feature", "rgb"], 2, "--stats takes the deviations from"),
        (["{src}", "{tmp}/dst", "--fakes", "{tmp}/src/a.tfrecord"], 2, "a.tfrecord exists already; choose another"),
        (["{src}", "{tmp}/dst", "--fakes", "{tmp}/src", "--force"], 2, "{tmp}/src is not a file"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(source, tmp_path, arguments, code, words):
    before = (tmp_path / "src/a.tfrecord").read_bytes()
    done = topgb("data", "drop-fakes", *[text.format(src=source, tmp=tmp_path) for text in arguments])
    assert done.returncode == code
    assert words.format(tmp=tmp_path) in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("dst/*"))
    assert (tmp_path / "src/a.tfrecord").read_bytes() == before


def test_a_failure_leaves_no_list_of_fakes(source, tmp_path):
    with open(tmp_path / "src/b.tfrecord", "ab") as file:
        file.write(b"x")
    done = topgb("data", "drop-fakes", source, tmp_path / "dst", "--fakes", tmp_path / "fakes.csv")
    assert done.returncode == 2
    assert "b.tfrecord: record 1 at byte" in done.stderr
    assert "--on-damaged skip" in done.stderr
    assert not (tmp_path / "fakes.csv").exists()
