"""Training says which shards are copies of others, and when it validates on what it trains on."""

import gzip
import shutil

import pytest

from cli.program import topgb
from conftest import SMALL_CLASSES, SMALL_SPEC
from topgb.records.dataset import open_dataset
from topgb.records.synth import SynthOptions, write_synthetic
from topgb.training.copied_shards import copied_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two shards, and a copy of the first under another name, gzipped."""
    folder = tmp_path_factory.mktemp("copies")
    options = SynthOptions(frames=(2, 3), videos_per_shard=6)
    first, second = write_synthetic(folder, SMALL_SPEC, SMALL_CLASSES, 12, options)
    copy = folder / "copy.tfrecord.gz"
    copy.write_bytes(gzip.compress(first.read_bytes()))
    return first, second, copy


def _said(training, validation=None):
    opened = [
        None if paths is None else open_dataset(list(map(str, paths)), SMALL_SPEC, SMALL_CLASSES, 300)
        for paths in (training, validation)
    ]
    return list(copied_shards(*opened))


def test_other_records_are_no_copies(shards):
    first, second, _ = shards
    assert _said([first, second]) == []
    assert _said([first], [second]) == []


def test_a_copy_to_train_on_is_named(shards):
    first, second, copy = shards
    (said,) = _said([first, second, copy])
    assert "of the shards to train on, 1 shard is a copy of another and count" in said
    assert f"{first} holds the records of {copy}" in said


def test_validating_on_what_is_trained_on_is_told(shards):
    first, second, copy = shards
    (said,) = _said([first, second], [first])
    assert said.endswith(f"too good: {first} is trained on, too")
    (said,) = _said([first, second], [copy])
    assert said.endswith(f"{copy} holds the records of {first}, which is trained on")


def test_train_says_it_and_goes_on(shards, small_recipe, tmp_path):
    first, second, _ = shards
    shutil.copy(first, tmp_path / "again.tfrecord")
    done = topgb(
        *("train", small_recipe, "--data", f"{first},{tmp_path}/again.tfrecord", "--validate", second),
        *("--out", tmp_path / "run", "--set", "training.epochs=1"),
    )
    assert done.returncode == 0, done.stderr
    assert "warning: of the shards to train on, 1 shard is a copy" in done.stderr
    assert "too good" not in done.stderr
