"""Synthetic data: the same bytes for the same seed, the formats of the real sets, and something to learn."""

import builtins
import errno

import numpy as np
import pytest

from topgb.errors import InputError, TopgbError
from topgb.features import Feature, FeatureSpec
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.synth import SynthOptions, write_synthetic

FRAMES = FeatureSpec("frame", (Feature("rgb", 60), Feature("audio", 12)))
VECTORS = FeatureSpec("video", (Feature("mean_rgb", 60, "float32"), Feature("mean_audio", 12)))


def read(pattern, spec, classes):
    return list(evaluation_batches(open_dataset(str(pattern), spec, classes, 300), 10_000))


@pytest.mark.parametrize("spec", [FRAMES, VECTORS])
def test_same_seed_same_bytes(tmp_path, spec):
    seen = []
    first = write_synthetic(
        tmp_path / "a",
        spec,
        9,
        25,
        SynthOptions(videos_per_shard=10, seed=3),
        on_progress=lambda *told: seen.append(told),
    )
    second = write_synthetic(tmp_path / "b", spec, 9, 25, SynthOptions(videos_per_shard=10, seed=3))
    other = write_synthetic(tmp_path / "c", spec, 9, 25, SynthOptions(videos_per_shard=10, seed=4))
    assert [path.name for path in first] == ["train0000.tfrecord", "train0001.tfrecord", "train0002.tfrecord"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert first[0].read_bytes() != other[0].read_bytes()
    assert (seen[0], seen[-1], len(seen)) == ((1, 25), (25, 25), 25)
    more = write_synthetic(tmp_path / "d", spec, 9, 40, SynthOptions(videos_per_shard=10, seed=3))
    assert more[0].read_bytes() == first[0].read_bytes()


def test_shapes_and_labels(tmp_path):
    write_synthetic(tmp_path, FRAMES, 40, 400, SynthOptions(frames=(4, 11)))
    (batch,) = read(f"{tmp_path}/*", FRAMES, 40)
    assert batch.features.shape == (400, 11, 72)
    assert (int(batch.num_frames.min()), int(batch.num_frames.max())) == (4, 11)
    assert 2.5 < batch.labels.sum(1).float().mean() < 3.5
    often = batch.labels.sum(0)
    assert often[:5].sum() > 4 * often[-5:].sum() > 0
    valid = batch.features[batch.num_frames == 11].float()
    assert 115 < valid.mean() < 140
    assert ((valid == 0) | (valid == 255)).float().mean() < 0.03


def test_few_classes_and_no_labels(tmp_path):
    write_synthetic(tmp_path / "one", FRAMES, 1, 5)
    assert read(f"{tmp_path}/one/*", FRAMES, 1)[0].labels.all()
    write_synthetic(tmp_path / "none", FRAMES, 9, 5, SynthOptions(labelled=False))
    assert read(f"{tmp_path}/none/*", FRAMES, 9)[0].labels is None


@pytest.mark.parametrize("spec", [FRAMES, VECTORS])
def test_sets_of_a_world_share_their_classes(tmp_path, spec):
    """Class means of one set tell the classes of another set, and of no other world."""

    def means(folder, seed, world_seed):
        write_synthetic(
            tmp_path / folder, spec, 6, 600, SynthOptions(frames=(5, 9), seed=seed, world_seed=world_seed, noise=0.5)
        )
        (batch,) = read(f"{tmp_path}/{folder}/*", spec, 6)
        vectors = (batch.features.float().sum(1) / batch.num_frames[:, None]).numpy()
        labels = batch.labels.numpy().astype(np.float32)
        centred = vectors - vectors.mean(0)
        return (labels - labels.mean(0)).T @ centred / len(vectors)

    train, validate, elsewhere = means("a", 1, 0), means("b", 2, 0), means("c", 1, 5)
    assert np.corrcoef(train.ravel(), validate.ravel())[0, 1] > 0.8
    assert abs(np.corrcoef(train.ravel(), elsewhere.ravel())[0, 1]) < 0.4


def test_existing_files_are_kept(tmp_path):
    (path,) = write_synthetic(tmp_path, FRAMES, 9, 3)
    before = path.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        write_synthetic(tmp_path, FRAMES, 9, 4)
    assert path.read_bytes() == before
    write_synthetic(tmp_path, FRAMES, 9, 4, force=True)
    assert path.read_bytes() != before


def test_a_smaller_set_replaces_a_larger_one_whole(tmp_path):
    write_synthetic(tmp_path, FRAMES, 9, 6, SynthOptions(videos_per_shard=2))
    others = [
        tmp_path / name for name in ("train0001.txt", "train00010.tfrecord", "train-a.tfrecord", "test0.tfrecord")
    ]
    for other in others:
        other.write_bytes(b"")
    with pytest.raises(InputError, match="cannot make"):
        write_synthetic(tmp_path, FRAMES, 9, 0, SynthOptions(videos_per_shard=2), force=True)
    assert len(list(tmp_path.iterdir())) == 3 + len(others)
    (path,) = write_synthetic(tmp_path, FRAMES, 9, 2, SynthOptions(videos_per_shard=2), force=True)
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])


def test_a_set_does_not_mix_with_an_earlier_ones_shards(tmp_path):
    for path in write_synthetic(tmp_path, FRAMES, 9, 6, SynthOptions(videos_per_shard=2))[:2]:
        path.unlink()
    with pytest.raises(InputError, match=r"train0002\.tfrecord exists already"):
        write_synthetic(tmp_path, FRAMES, 9, 2, SynthOptions(videos_per_shard=2))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "wrong",
    [{"videos": 0}, {"classes": 0}, {"options": SynthOptions(frames=(0, 3))}, {"options": SynthOptions(frames=(5, 3))}],
)
def test_senseless_sizes(tmp_path, wrong):
    with pytest.raises(InputError, match="cannot make"):
        write_synthetic(tmp_path, FRAMES, **{"classes": 3, "videos": 3, **wrong})


def test_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    class Full:
        """A file on a disk that fills up."""

        def __init__(self, file):
            self.file, self.left = file, 20_000

        def write(self, data):
            self.left -= len(data)
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

    opened = builtins.open
    monkeypatch.setattr(builtins, "open", lambda *arguments: Full(opened(*arguments)))
    with pytest.raises(TopgbError, match=r"cannot write .*train0000\.tfrecord: No space left on device") as caught:
        write_synthetic(tmp_path, FRAMES, 9, 500)
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []
