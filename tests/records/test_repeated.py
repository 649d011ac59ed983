"""Videos that occur more than once are found by hashes of their ids, and named with their shards."""

import json
import shutil
import unicodedata

import numpy as np
import pytest

import topgb
from cli.program import topgb as program
from combining.small_models import AUDIO, model_file
from conftest import SMALL_CLASSES, SMALL_SPEC
from topgb.errors import TopgbWarning
from topgb.records.codec import encode_example, encode_sequence_example
from topgb.records.framing import frame_record
from topgb.records.repeated import IdHashes, Repeated, hashes


def _shard(path, *ids, level="frame"):
    generator = np.random.default_rng(len(ids))
    payloads = []
    for number, video_id in enumerate(ids):
        frames = {f.name: generator.integers(0, 256, (2, f.size), np.uint8) for f in SMALL_SPEC.features}
        labels = [number % SMALL_CLASSES]
        if level == "frame":
            payloads.append(encode_sequence_example(video_id, frames, labels))
        else:
            means = {f"mean_{name}": values.astype(np.float32)[0] for name, values in frames.items()}
            payloads.append(encode_example(video_id, means, labels))
    path.write_bytes(b"".join(map(frame_record, payloads)))
    return path


def test_hashes_depend_on_the_id_alone():
    ids = ["a", "", "12345678", "123456789", "x" * 64, "x" * 65, "x" * 10_000, "Küche", "a\0b", "\udcff"]
    together = hashes(ids)
    assert together.dtype == np.uint64
    assert [int(value) for value in together] == [int(hashes([one])[0]) for one in ids]
    assert len(set(together.tolist())) == len(ids)
    assert hashes([unicodedata.normalize("NFD", "Küche")]) == hashes(["Küche"])
    assert not len(hashes([]))
    # They must not change from process to process: workers send them.
    assert hashes(["a", "clip-00000001-1"]).tolist() == [0xF3051F49C83C1CBC, 0x5341EAD5F5265A18]


def test_many_ids_do_not_collide():
    ids = [f"{number:x}" for number in range(50_000)] + [f"clip-{number:08d}-{number % 7}" for number in range(50_000)]
    found = hashes(ids)
    assert len(np.unique(found)) == len(ids)
    # Both halves are spread evenly.
    for half in (found >> np.uint64(48), found & np.uint64(0xFFFF)):
        assert np.bincount((half % np.uint64(16)).astype(int), minlength=16).min() > len(ids) / 16 * 0.8


def test_ids_are_counted_once_each_and_again_after_a_new_beginning():
    found = IdHashes()
    for _ in range(2):
        for shard, ids in enumerate((["a", "b", "b"], ["c", "b", "a"], [])):
            found.begin(shard)
            found.add(ids)
    repeated = found.repeated("xyz", lambda path: {"x": ["a", "b", "b"], "y": ["c", "b", "a"]}[path])
    assert repeated.videos == 2
    assert (repeated.id, repeated.shards) in [("a", ("x", "y")), ("b", ("x", "x"))]
    found.put(0, hashes(["d"]))
    assert found.repeated("xyz", lambda path: []) is None


def test_sentences():
    assert Repeated(1, "a", ("x", "y")).sentence() == "1 video occurs more than once: the id 'a' stands in x and in y"
    assert "of one, its id stands twice in x" in Repeated(2_000, None, ("x", "x")).sentence()


@pytest.mark.parametrize("level", ["frame", "video"])
@pytest.mark.parametrize("copied", [True, False])
def test_verify_and_inspect_find_them(tmp_path, level, copied):
    """A copy of a shard under another name, or two records of the same id (in two forms of Unicode) in one."""
    if copied:
        _shard(tmp_path / "a.tfrecord", "v0", "v1", level=level)
        shutil.copy(tmp_path / "a.tfrecord", tmp_path / "b.tfrecord")
        words, shards = "2 videos occur more than once; of one, the id 'v", ["a.tfrecord", "b.tfrecord"]
    else:
        ids = ("Küche", "v1", unicodedata.normalize("NFD", "Küche"))
        _shard(tmp_path / "a.tfrecord", *ids, level=level)
        words, shards = "1 video occurs more than once: the id 'Küche' stands twice in", ["a.tfrecord"]
    for command in ("verify", "inspect"):
        done = program("data", command, tmp_path / "*.tfrecord")
        assert done.returncode == (command == "verify")
        assert words in done.stdout
        assert all(str(tmp_path / shard) in done.stdout for shard in shards)
        found = json.loads(program("data", command, tmp_path / "*.tfrecord", "--json").stdout)["repeated"]
        assert found["videos"] == 1 + copied
    assert (topgb.inspect(tmp_path / "a.tfrecord", progress=False).repeated is None) == copied


def test_sound_records_have_none(tmp_path):
    _shard(tmp_path / "a.tfrecord", "v0", "v1")
    _shard(tmp_path / "b.tfrecord", "v2", "v3")
    assert program("data", "verify", tmp_path).returncode == 0
    assert json.loads(program("data", "verify", tmp_path, "--json").stdout)["repeated"] is None


def test_eval_and_predict_say_so(tmp_path):
    model = model_file(tmp_path / "model.safetensors", AUDIO)
    _shard(tmp_path / "a.tfrecord", "v0", "v1", "v2")
    _shard(tmp_path / "b.tfrecord", "v3", "v1")
    done = program("eval", model, tmp_path / "*.tfrecord", "--json")
    assert done.returncode == 0, done.stderr
    sentence = (
        f"1 video occurs more than once: the id 'v1' stands in {tmp_path}/a.tfrecord and in {tmp_path}/b.tfrecord"
    )
    assert f"warning: {sentence}, and counts each time" in done.stderr
    assert json.loads(done.stdout)["repeated"] == 1
    with pytest.warns(TopgbWarning, match="1 video occurs more than once"):
        found = topgb.evaluate(model, tmp_path / "*.tfrecord", frames="random:2", rounds=2, progress=False)
    assert found.repeated.videos == found.to_dict()["repeated"] == 1
    with pytest.warns(TopgbWarning, match="1 video occurs more than once"):
        topgb.predict(model, tmp_path / "*.tfrecord", tmp_path / "p.csv", progress=False)
    for command in ("predict", "distill", "thresholds"):
        done = program(command, model, tmp_path / "*.tfrecord", "--out", tmp_path / command)
        assert done.returncode == 0, done.stderr
        assert sentence in done.stderr, command
    alone = program("eval", model, tmp_path / "a.tfrecord", "--json")
    assert "more than once" not in alone.stderr
    assert "repeated" not in json.loads(alone.stdout)
