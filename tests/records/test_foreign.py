"""Files that are not TFRecords are named for what they are, by every command that reads records."""

import bz2
import gzip
import io
import lzma
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from cli.program import topgb
from combining.small_models import model_file
from conftest import SMALL_CLASSES, SMALL_SPEC
from topgb.errors import NotRecordsError
from topgb.records.description import read_description
from topgb.records.framing import index_records
from topgb.records.shards import Shard, open_shard
from topgb.records.synth import SynthOptions, write_synthetic


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A shard of three records."""
    folder = tmp_path_factory.mktemp("sound")
    return write_synthetic(folder, SMALL_SPEC, SMALL_CLASSES, 3, SynthOptions(frames=(2, 3)))[0]


def _numpy(save) -> bytes:
    file = io.BytesIO()
    save(file, np.zeros((3, 4), np.float32))
    return file.getvalue()


def _bare(shard: Path) -> bytes:
    raw = memoryview(shard.read_bytes())
    index = index_records(raw)
    return bytes(raw[index.offsets[0] : index.offsets[0] + index.lengths[0]])


KINDS = {
    "CSV": (lambda shard: b"id,labels\nv1,cat\nv2,dog\n", "a CSV"),
    "semicolons": (lambda shard: b"id;labels\nv1;cat\n", "a CSV"),
    "HTML": (lambda shard: b"<!DOCTYPE html>\n<html><body>403 Forbidden", "HTML; a server sent it"),
    "XML": (lambda shard: b"\xef\xbb\xbf<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
    "Git LFS": (lambda shard: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n", "git lfs pull"),
    "npy": (lambda shard: _numpy(np.save), "NumPy array.*topgb data pack"),
    "npz": (lambda shard: _numpy(np.savez), "NumPy's .npz.*topgb data pack"),
    "zlib": (lambda shard: zlib.compress(shard.read_bytes()), "zlib"),
    "zlib, fast": (lambda shard: zlib.compress(shard.read_bytes(), 1), "zlib"),
    "bzip2": (lambda shard: bz2.compress(shard.read_bytes()), "bzip2; unpack it first"),
    "Arrow": (lambda shard: b"ARROW1\0\0" + bytes(99), "an Arrow or Feather table; write it as Parquet"),
    "Avro": (lambda shard: b"Obj\x01" + bytes(99), "an Avro file; write it as Parquet"),
    "SQLite": (lambda shard: b"SQLite format 3\0" + bytes(99), "an SQLite database"),
    "LZ4": (lambda shard: b"\x04\x22\x4d\x18" + bytes(99), "LZ4; unpack it first"),
    "xz": (lambda shard: lzma.compress(shard.read_bytes()), "xz; unpack it first"),
    "one message": (_bare, "a single SequenceExample .*topgb data pack"),
    "JSON": (lambda shard: b'{"features": [1, 2]}', "JSON"),
    "text": (lambda shard: "Größe und Länge\n".encode(), "text"),
    "prose": (lambda shard: b"# What, where, when\n", r"text \("),
    "UTF-16": (lambda shard: "id,labels\n".encode("utf-16"), "text in UTF-16"),
    "Parquet": (lambda shard: b"PAR1" + bytes(40), "a Parquet table; topgb data pack"),
    "video": (lambda shard: b"\0\0\0 ftypisom" + bytes(40), "an MP4 video"),
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_is_named_with_the_remedy(kind, pack, sound, tmp_path):
    make, said = KINDS[kind]
    path = tmp_path / "x.tfrecord"
    path.write_bytes(pack(make(sound)))
    begins = "it begins" if pack is bytes else "unpacked, it begins"
    with pytest.raises(NotRecordsError, match=f"^{path} is not a TFRecord file; {begins} like .*{said}"):
        open_shard(Shard(str(path)))


def test_a_model_file_is_no_file_of_records(sound, tmp_path):
    with pytest.raises(NotRecordsError, match="like a safetensors file, such as a model file"):
        open_shard(Shard(str(model_file(tmp_path / "m.tfrecord"))))


def test_a_shard_that_is_packed_twice(sound, tmp_path):
    path = tmp_path / "x.tfrecord.gz"
    path.write_bytes(gzip.compress(gzip.compress(sound.read_bytes())))
    with pytest.raises(NotRecordsError, match="unpacked, it begins like gzip; unpack it once"):
        open_shard(Shard(str(path)))


@pytest.mark.parametrize("cut", [7, 11, 20])
def test_a_damaged_shard_is_called_damaged(cut, sound, tmp_path):
    path = tmp_path / "x.tfrecord"
    for raw in (sound.read_bytes()[:cut], b"\1" + sound.read_bytes()[1:]):
        path.write_bytes(raw)
        assert open_shard(Shard(str(path))).damage is not None


def test_every_command_says_it(sound, small_records, small_recipe, tmp_path):
    model, other = model_file(tmp_path / "m.safetensors"), tmp_path / "x.tfrecord"
    other.write_text("id,labels\nv1,cat\n")
    out = tmp_path / "out"
    for arguments in (
        ["data", "inspect", other],
        ["train", small_recipe, "--data", other, "--out", out, "--on-damaged", "skip"],
        ["train", small_recipe, "--data", small_records["train"], "--validate", other, "--out", out],
        ["eval", model, other, "--on-damaged", "skip"],
        ["predict", model, other, "--out", out],
        ["distill", model, other, "--out", out],
        ["compare", model, model, other],
    ):
        done = topgb(*arguments)
        assert done.returncode == 2, arguments
        assert f"topgb: {other} is not a TFRecord file; it begins like a CSV" in done.stderr
        assert "damaged" not in done.stderr
        assert not out.exists()
    done = topgb("data", "verify", f"{other},{small_records['validate']}")
    assert done.returncode == 1
    assert done.stdout.startswith(f"{other} is not a TFRecord file")
    assert "90 sound records, 0 damaged, 1 unusable" in done.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("zlib.tfrecord", "zlib"),
        ("testvideos.csv", "a CSV|text"),
        ("lfs.tfrecord", "a Git LFS pointer"),
        ("html.tfrecord", "HTML|XML"),
        ("x.npy", "a NumPy array"),
    ],
)
def test_the_case_not_records(name, said, cases):
    with pytest.raises(NotRecordsError, match=f"{name} is not a TFRecord file; it begins like ({said})"):
        open_shard(Shard(str(cases / "not-records" / name)))


def test_a_gzip_without_its_suffix_is_read(cases):
    assert len(open_shard(Shard(str(cases / "not-records/gzip-no-suffix.tfrecord"))))


def test_the_case_packed_star(cases, tmp_path):
    data = tmp_path / "packed"
    shutil.copytree(cases / "packed-star", data, ignore=shutil.ignore_patterns("README*"))
    done = topgb("train", "own-frames", "--data", f"{data}/*", "--out", tmp_path / "run", "--device", "cpu")
    assert done.returncode == 2
    begins = "it begins like the description that topgb data pack writes"
    assert f"dataset.yaml is not a TFRecord file; {begins}" in done.stderr
    assert f"{data}/*.tfrecord in quotes" in done.stderr
    assert topgb("train", "own-frames", "--data", data, "--out", tmp_path / "run", "--device", "cpu").returncode == 0


@pytest.mark.parametrize("level", ["frame", "video"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_packed_folders_star(level, suffix, tmp_path):
    """The siblings of that case: other levels, other kinds of values, gzipped shards, and every command."""
    (tmp_path / "features").mkdir()
    for number in range(12):
        frames = np.random.default_rng(number).integers(0, 256, (3, 8), np.uint8)
        values = {"x": frames, "y": frames[:, :2] / 7} if level == "frame" else {"x": frames[0] / 7}
        np.savez(tmp_path / f"features/v{number}.npz", **values)
    (tmp_path / "l.csv").write_text("id,labels\n" + "".join(f"v{number},{'ab'[number % 2]}\n" for number in range(12)))
    data, out = tmp_path / "packed", tmp_path / "out"
    done = topgb("data", "pack", tmp_path / "features", "--labels", tmp_path / "l.csv", "--out", data)
    assert done.returncode == 0, done.stderr
    for path in data.glob("*.tfrecord") if suffix else ():
        path.with_name(path.name + suffix).write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    described = read_description(data / "dataset.yaml")
    section = {"aggregator": "average", "head": "logistic"}
    model = model_file(tmp_path / "m", section, features=described.spec, classes=2, class_names=("a", "b"))
    for command in (
        ("train", f"own-{level}s", "--data", f"{data}/*", "--out", out),
        ("eval", model, f"{data}/*"),
        ("predict", model, f"{data}/*", "--out", out),
        ("data", "inspect", f"{data}/*"),
    ):
        done = topgb(*command)
        assert done.returncode == 2, command
        assert "dataset.yaml is not a TFRecord file; it begins like the description" in done.stderr
        assert "damaged" not in done.stderr
    assert topgb("data", "verify", f"{data}/*").returncode == 1
    assert topgb("eval", model, data).returncode == 0
