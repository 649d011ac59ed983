"""Batches: what is in them, in which order, and what happens with damaged records."""

import itertools
import json
import multiprocessing
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from topgb.errors import DamagedRecordError, InputError
from topgb.features import Feature, FeatureSpec
from topgb.records.codec import encode_example
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.framing import frame_record
from topgb.records.label_statistics import label_counts
from topgb.records.labels import Targets
from topgb.records.order import BLOCK_RECORDS, POOL_BLOCKS, epoch_order, piece
from topgb.records.sampling import FrameSampling, parse_sampling
from topgb.records.synth import SynthOptions, write_synthetic
from topgb.records.training_batches import TrainingBatches, load_batches

CLASSES = 5


def expected_features(number, frames):
    generator = np.random.default_rng(number)
    rgb = generator.integers(0, 256, (frames, 6), np.uint8)
    return np.hstack([rgb, generator.integers(0, 256, (frames, 3), np.uint8)])


def check_batch(batch, numbers, max_frames=300):
    lengths = [min(1 + number % 7, max_frames) for number in numbers]
    assert batch.ids == [f"v{number}" for number in numbers]
    assert batch.num_frames.tolist() == lengths
    assert batch.num_frames.dtype == torch.int32
    assert batch.features.dtype == torch.uint8
    assert batch.features.shape == (len(numbers), max(lengths), 9)
    assert batch.features.is_contiguous()
    assert batch.labels.dtype == torch.bool
    for row, labels, number, length in zip(batch.features.numpy(), batch.labels, numbers, lengths, strict=True):
        np.testing.assert_array_equal(row[:length], expected_features(number, 1 + number % 7)[:length])
        assert not row[length:].any()
        assert labels.nonzero().flatten().tolist() == [number % 5]


def test_evaluation_order(shards, spec):
    dataset = open_dataset(shards(5, 1, 4), spec, CLASSES, 300)
    assert dataset.num_records == 10
    batches = list(evaluation_batches(dataset, 3))
    for batch, numbers in zip(batches, [[0, 1, 2], [3, 4], [5], [6, 7, 8], [9]], strict=True):
        check_batch(batch, numbers)
    assert [batch.ids for batch in evaluation_batches(dataset, 3, shards=[2, 0])] == [
        batches[index].ids for index in (3, 4, 0, 1)
    ]


def test_fingerprint(shards, spec, tmp_path):
    pattern = shards(2, 3)
    (tmp_path / "more").mkdir()
    shutil.copy(tmp_path / "part001.tfrecord", tmp_path / "more" / "part000.tfrecord")
    found = open_dataset(f"{pattern},{tmp_path}/more/*", spec, CLASSES, 300).fingerprint()
    assert json.loads(json.dumps(found)) == found
    # Framing takes 16 bytes of each record.
    sizes = [(tmp_path / f"part00{n}.tfrecord").stat().st_size - 16 * count for n, count in enumerate((2, 3))]
    digests = [row.pop() for row in found]
    assert digests[0] == digests[2] != digests[1]
    assert found == [
        ["part000.tfrecord", 3, sizes[1]],
        ["part000.tfrecord", 2, sizes[0]],
        ["part001.tfrecord", 3, sizes[1]],
    ]


def test_long_videos_are_cut(shards, spec):
    dataset = open_dataset(shards(8), spec, CLASSES, max_frames=4)
    check_batch(dataset.read_batch([(0, 6), (0, 1), (0, 7)]), [6, 1, 7], max_frames=4)


def test_most_frames_are_known_without_reading(shards, spec, tmp_path):
    pattern = shards(3, 5, 2)
    dataset = open_dataset(pattern, spec, CLASSES, 300)
    # Video 6 has 7 frames; what else is in its record might have been two more.
    assert 7 <= dataset.most_frames <= 9
    assert open_dataset(pattern, spec, CLASSES, 4).most_frames == 4
    video = FeatureSpec("video", (Feature("mean_rgb", 7, "float32"),))
    write_synthetic(tmp_path / "video", video, CLASSES, 6)
    assert open_dataset(f"{tmp_path}/video/*", video, CLASSES, 300).most_frames == 1


def test_floats_and_bytes_joined(tmp_path):
    spec = FeatureSpec("frame", (Feature("a", 3, "float32"), Feature("b", 2)))
    write_synthetic(tmp_path, spec, CLASSES, 4, SynthOptions(frames=(2, 5)))
    batch = next(evaluation_batches(open_dataset(f"{tmp_path}/*", spec, CLASSES, 300), 4))
    assert batch.features.dtype == torch.float32
    assert batch.features.shape == (4, int(batch.num_frames.max()), 5)
    stored = batch.features[0, : batch.num_frames[0], 3:]
    assert (stored == stored.round()).all()


def test_video_level(tmp_path):
    spec = FeatureSpec("video", (Feature("mean_rgb", 7, "float32"), Feature("mean_audio", 2, "float32")))
    write_synthetic(tmp_path, spec, CLASSES, 6)
    batches = list(evaluation_batches(open_dataset(f"{tmp_path}/*", spec, CLASSES, 300), 4))
    assert [tuple(batch.features.shape) for batch in batches] == [(4, 1, 9), (2, 1, 9)]
    assert all((batch.num_frames == 1).all() for batch in batches)


def test_unlabelled(shards, spec, tmp_path):
    dataset = open_dataset(shards(3, labelled=False), spec, CLASSES, 300)
    assert next(evaluation_batches(dataset, 3)).labels is None
    assert label_counts(dataset)[1] == 0
    shutil.copy(tmp_path / "part000.tfrecord", tmp_path / "test.tfrecord")
    shards(3)
    mixed = open_dataset(f"{tmp_path}/*.tfrecord", spec, CLASSES, 300)
    with pytest.raises(InputError, match=r"test\.tfrecord: video 'v1' has no labels, but .*part000\.tfrecord has"):
        mixed.read_batch([(0, 0), (1, 1)])


def test_labels_are_not_looked_at(shards, spec, tmp_path):
    shards(3, labelled=False)
    (tmp_path / "part000.tfrecord").rename(tmp_path / "test.tfrecord")
    pattern = shards(7).replace("part*", "*")
    # Label 4 is outside the classes, and the last shard has no labels.
    dataset = open_dataset(pattern, spec, 4, 300, targets=Targets(False))
    batch = dataset.read_batch([(0, 4), (1, 0), (0, 0)])
    assert (batch.ids, batch.labels) == (["v4", "v0", "v0"], None)
    assert dataset.read_batch([]).labels is None
    assert label_counts(dataset)[1] == 0


def test_label_counts(shards, spec):
    dataset = open_dataset(shards(7, 6), spec, CLASSES, 300)
    counts, videos = label_counts(dataset)
    assert (counts.tolist(), counts.dtype, videos) == ([3, 3, 3, 2, 2], np.int64, 13)
    assert label_counts(dataset, limit=6)[1] == 6
    assert label_counts(dataset, limit=100)[1] == 13


@given(st.integers(0, 200), st.integers(1, 30))
def test_pieces_are_a_partition(total, pieces):
    bounds = [piece(total, pieces, number) for number in range(pieces)]
    assert [stop - start for start, stop in bounds] == [len(part) for part in np.array_split(np.arange(total), pieces)]
    assert bounds[0][0] == 0
    assert all(left[1] == right[0] for left, right in itertools.pairwise(bounds))


@given(st.lists(st.integers(0, 9000), min_size=1, max_size=12), st.integers(0, 9), st.integers(0, 9))
def test_an_epoch_has_every_record_once(counts, seed, epoch):
    order = epoch_order(np.array(counts), seed, epoch)
    np.testing.assert_array_equal(np.sort(order), np.arange(sum(counts)))
    np.testing.assert_array_equal(order, epoch_order(np.array(counts), seed, epoch))


def test_epochs_and_seeds_differ_and_records_mix():
    counts = np.full(40, 1000)
    order = epoch_order(counts, 1, 0)
    assert (order != epoch_order(counts, 1, 1)).mean() > 0.99
    assert (order != epoch_order(counts, 2, 0)).mean() > 0.99
    # A batch draws on most shards of its window, and few records keep their neighbour.
    assert len(set(order[:128] // 1000)) > 10
    assert (np.diff(order) == 1).mean() < 0.02
    # Yet the records of a pool come in runs.
    pool = np.sort(order[: BLOCK_RECORDS * POOL_BLOCKS])
    assert (np.diff(pool) == 1).mean() > 0.9


@pytest.mark.parametrize(("batch_size", "ranks"), [(1, 1), (4, 1), (3, 2), (7, 3), (100, 1), (100, 4)])
def test_ranks_share_an_epoch_without_loss_or_repetition(shards, spec, batch_size, ranks):
    dataset = open_dataset(shards(9, 11, 3), spec, CLASSES, 300)
    parts = [TrainingBatches(dataset, batch_size, 1, FrameSampling(), rank, ranks) for rank in range(ranks)]
    steps = parts[0].steps_per_epoch
    assert steps == len(parts[0]) == -(-23 // (batch_size * ranks))
    for epoch in (0, 1):
        numbers, sizes, before = [], [], 23 * epoch
        for step in range(epoch * steps, (epoch + 1) * steps):
            assert parts[0].examples_before(step) == before
            assert parts[0].epoch_of(step) == epoch
            drawn = [part.records_of(step).tolist() for part in parts]
            assert max(map(len, drawn)) - min(map(len, drawn)) <= 1
            assert max(map(len, drawn)) <= batch_size
            numbers += itertools.chain.from_iterable(drawn)
            sizes.append(sum(map(len, drawn)))
            before += sizes[-1]
        assert sorted(numbers) == list(range(23))
        assert max(sizes) - min(sizes) <= 1
    # Any step can be asked for in any order.
    assert parts[0].records_of(0).tolist() == parts[0].records_of(0).tolist()


def as_values(loaded):
    return [(b.ids, b.features.numpy().copy(), b.num_frames.tolist(), b.labels.numpy().copy()) for b, _ in loaded]


def assert_same(left, right):
    for (ids, features, frames, labels), other in zip(left, right, strict=True):
        assert (ids, frames) == (other[0], other[2])
        np.testing.assert_array_equal(features, other[1])
        np.testing.assert_array_equal(labels, other[3])


def test_same_batches_for_any_workers_and_after_resuming(shards, spec):
    dataset = open_dataset(shards(20, 11), spec, CLASSES, 300)

    def batches():
        return TrainingBatches(pickle.loads(pickle.dumps(dataset)), 4, 3, FrameSampling("random", 6))

    alone = as_values(load_batches(batches(), range(20)))
    assert_same(alone, as_values(load_batches(batches(), range(20), workers=1)))
    assert_same(alone, as_values(load_batches(batches(), range(20), workers=2)))
    assert_same(alone[13:], as_values(load_batches(batches(), range(13, 20), workers=1)))
    assert_same(alone[13:14], as_values([pickle.loads(pickle.dumps(batches()))[13]]))


def frames_found(batch, max_frames):
    """The numbers of the frames that each video's rows are, by video id."""
    found = {}
    for video_id, row, count in zip(batch.ids, batch.features.numpy(), batch.num_frames.tolist(), strict=True):
        number = int(video_id[1:])
        known = expected_features(number, 1 + number % 7)[:max_frames]
        places = [(known == frame).all(axis=1).nonzero()[0] for frame in row[:count]]
        assert all(len(place) == 1 for place in places)
        assert not row[count:].any()
        found[video_id] = np.concatenate(places).tolist()
    return found


@pytest.mark.parametrize("text", ["random:4", "sequence:3", "sample_all", "shuffle"])
def test_sampled_frames(shards, spec, text):
    sampling = parse_sampling(text)
    dataset = open_dataset(shards(14), spec, CLASSES, 5)
    batches = TrainingBatches(dataset, 14, 0, sampling)
    epochs = {}
    for epoch in (0, 1):
        batch, damaged = batches[epoch]
        assert damaged == []
        for video_id, rows in frames_found(batch, 5).items():
            frames = min(1 + int(video_id[1:]) % 7, 5)
            assert len(rows) == {"random": 4, "sequence": 3, "sample_all": 5, "shuffle": frames}[sampling.mode]
            if sampling.mode == "sequence":
                assert rows == [min(rows[0] + step, frames - 1) for step in range(3)]
            elif sampling.mode == "sample_all":
                assert rows[:frames] == list(range(frames))
            elif sampling.mode == "shuffle":
                assert sorted(rows) == list(range(frames))
            epochs.setdefault(video_id, []).append(rows)
    assert any(first != second for first, second in epochs.values())
    # The frames of a video don't depend on the batch it comes in.
    whole = frames_found(batches[0][0], 5)
    for step in range(5):
        for video_id, rows in frames_found(TrainingBatches(dataset, 3, 0, sampling)[step][0], 5).items():
            assert rows == whole[video_id]


@pytest.mark.parametrize("text", ["random:4", "sequence:3", "sample_all", "shuffle"])
def test_sampled_evaluation_does_not_depend_on_the_division(shards, spec, text):
    dataset = open_dataset(shards(9, 5, 7), spec, CLASSES, 300 if text != "sample_all" else 9)

    def frames(batch_size, shards=None, seed=1, round_number=2):
        found = {}
        for batch in evaluation_batches(dataset, batch_size, shards, parse_sampling(text), seed, round_number):
            found |= frames_found(batch, 300)
        return found

    whole = frames(100)
    assert list(whole) == [f"v{number}" for number in range(21)]
    assert frames(2) == whole
    assert {**frames(3, [2]), **frames(4, [1, 0])} == whole
    assert frames(100, seed=2) != whole
    assert frames(100, round_number=3) != whole


def test_sampling_of_damaged_records_is_that_of_the_others(shards, spec, damage):
    pattern = shards(6, 4)
    sampling = parse_sampling("random:4")
    sound = {}
    for batch in evaluation_batches(open_dataset(pattern, spec, CLASSES, 300), 100, sampling=sampling):
        sound |= frames_found(batch, 300)
    damage(first_shard(pattern), -8)
    dataset = open_dataset(pattern, spec, CLASSES, 300, on_damaged="skip")
    found = {}
    for batch in evaluation_batches(dataset, 100, sampling=sampling):
        found |= frames_found(batch, 300)
    assert found == {video_id: rows for video_id, rows in sound.items() if video_id != "v5"}
    assert [error.record for error in dataset.damaged] == [5]


def test_all_frames_in_training(shards, spec):
    dataset = open_dataset(shards(6), spec, CLASSES, 300)
    batch, _ = TrainingBatches(dataset, 6, 0, FrameSampling())[0]
    check_batch(batch, [int(video_id[1:]) for video_id in batch.ids])


def test_senseless_settings(shards, spec, tmp_path):
    dataset = open_dataset(shards(3), spec, CLASSES, 300)
    with pytest.raises(InputError, match="batch size 0"):
        TrainingBatches(dataset, 0, 0, FrameSampling())
    video = FeatureSpec("video", (Feature("mean_rgb", 7, "float32"),))
    write_synthetic(tmp_path / "video", video, CLASSES, 6)
    dataset = open_dataset(f"{tmp_path}/video/*", video, CLASSES, 300)
    with pytest.raises(InputError, match="no frames to sample"):
        TrainingBatches(dataset, 2, 0, FrameSampling("random", 3))
    with pytest.raises(InputError, match="no frames to sample"):
        next(evaluation_batches(dataset, 2, sampling=FrameSampling("shuffle")))


def first_shard(pattern):
    return Path(pattern.replace("*", "000"))


def test_damaged_data_stops_or_is_skipped(shards, spec, damage):
    pattern = shards(6, 4)
    whole = first_shard(pattern).stat().st_size
    # The last bytes of a record are its CRC, those before it frames.
    damage(first_shard(pattern), whole - 8)
    dataset = open_dataset(pattern, spec, CLASSES, 300)
    with pytest.raises(
        DamagedRecordError, match=r"part000\.tfrecord: record 5 at byte \d+ is damaged: its data does not"
    ):
        list(evaluation_batches(dataset, 4))
    dataset = open_dataset(pattern, spec, CLASSES, 300, on_damaged="skip")
    for batch, numbers in zip(evaluation_batches(dataset, 4), [[0, 1, 2, 3], [4], [6, 7, 8, 9]], strict=True):
        check_batch(batch, numbers)
    assert [(error.record, error.reason) for error in dataset.damaged] == [(5, "its data does not match its CRC")]
    list(evaluation_batches(dataset, 1))
    assert len(dataset.damaged) == 1


def test_values_that_are_not_finite_are_damage(tmp_path):
    spec = FeatureSpec("video", (Feature("x", 2, "float32"),))
    records = [encode_example(f"v{n}", {"x": np.float32([1, n])}, [0]) for n in (0, np.nan, 2)]
    (tmp_path / "x.tfrecord").write_bytes(b"".join(map(frame_record, records)))
    with pytest.raises(DamagedRecordError, match="record 1 .*'x' holds values that are not finite"):
        list(evaluation_batches(open_dataset(f"{tmp_path}/*", spec, CLASSES, 300), 4))
    dataset = open_dataset(f"{tmp_path}/*", spec, CLASSES, 300, on_damaged="skip")
    (batch,) = evaluation_batches(dataset, 4)
    assert batch.features.tolist() == [[[1, 0]], [[1, 2]]]
    assert [error.record for error in dataset.damaged] == [1]


def test_damage_in_workers_reaches_this_process(shards, spec, damage):
    pattern = shards(6, 4)
    damage(first_shard(pattern), -8)
    for workers in (0, 2):
        dataset = open_dataset(pattern, spec, CLASSES, 300, on_damaged="skip")
        batches = TrainingBatches(dataset, 1, 0, FrameSampling())
        loaded = list(load_batches(batches, range(20), workers=workers))
        assert sorted(len(batch) for batch, _ in loaded) == [0, 0] + [1] * 18
        empty = next(batch for batch, found in loaded if found)
        assert (empty.ids, empty.features.shape[2], tuple(empty.labels.shape)) == ([], 9, (0, CLASSES))
        assert sum(len(found) for _, found in loaded) == 2
        assert [error.record for error in dataset.damaged] == [5]
        dataset = open_dataset(pattern, spec, CLASSES, 300)
        with pytest.raises(DamagedRecordError) as caught:
            list(load_batches(TrainingBatches(dataset, 1, 0, FrameSampling()), range(10), workers=workers))
        assert caught.value.record == 5
        # The error is still held here, and its traceback with it.
        assert multiprocessing.active_children() == []


def test_workers_end_with_the_one_who_no_longer_reads(shards, spec):
    dataset = open_dataset(shards(6), spec, CLASSES, 300)
    batches = load_batches(TrainingBatches(dataset, 1, 0, FrameSampling()), range(100), workers=2)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert multiprocessing.active_children() == []


def test_workers_do_not_tell_of_the_end_of_main(shards, spec, monkeypatch, capfd):
    """As `multiprocessing` would, in the thread of a worker that hands tensors over."""
    dataset = open_dataset(shards(6), spec, CLASSES, 300)
    batches = TrainingBatches(dataset, 2, 0, FrameSampling())
    read = TrainingBatches.__getitem__

    def telling(self, step):
        for error in (BrokenPipeError("broken"), EOFError("ended"), ValueError("a defect")):
            sys.excepthook(type(error), error, None)
        return read(self, step)

    monkeypatch.setattr(TrainingBatches, "__getitem__", telling)
    list(load_batches(batches, range(1), workers=1))
    assert capfd.readouterr().err == "ValueError: a defect\n"


def test_input_errors_in_workers_keep_their_sentence(shards, spec):
    dataset = open_dataset(shards(6), FeatureSpec("frame", (Feature("speech", 3),)), CLASSES, 300)
    with pytest.raises(InputError, match=r"^\S*part000\.tfrecord: record \d at byte \d+ has no feature 'speech'"):
        list(load_batches(TrainingBatches(dataset, 2, 0, FrameSampling()), range(3), workers=1))


def test_truncated_file(shards, spec):
    pattern = shards(6, 4)
    path = first_shard(pattern)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(
        DamagedRecordError, match=r"part000\.tfrecord: record 5 at byte \d+ is damaged: the file is cut off"
    ):
        open_dataset(pattern, spec, CLASSES, 300)
    dataset = open_dataset(pattern, spec, CLASSES, 300, on_damaged="skip")
    assert dataset.num_records == 9
    assert [error.record for error in dataset.damaged] == [5]
    assert [len(batch) for batch in evaluation_batches(dataset, 100)] == [5, 4]


def test_garbled_length(shards, spec, damage):
    pattern = shards(6)
    damage(first_shard(pattern), 3)
    with pytest.raises(DamagedRecordError, match="record 0 at byte 0 is damaged: its length field"):
        open_dataset(pattern, spec, CLASSES, 300)
    with pytest.raises(InputError, match=r"^no record can be read from \S*part000\.tfrecord; topgb data verify says"):
        open_dataset(pattern, spec, CLASSES, 300, on_damaged="skip")
    (first_shard(pattern).parent / "part001.tfrecord").write_bytes(b"")
    with pytest.raises(InputError, match=r"from any of 2 files, \S*part000\.tfrecord the first; topgb data verify"):
        open_dataset(pattern, spec, CLASSES, 300, on_damaged="skip")


def test_empty_file(shards, spec, tmp_path):
    pattern = shards(3)
    (tmp_path / "part999.tfrecord").write_bytes(b"")
    with pytest.raises(InputError, match=r"part999\.tfrecord.*is empty"):
        open_dataset(pattern, spec, CLASSES, 300)
    assert open_dataset(pattern, spec, CLASSES, 300, on_damaged="skip").num_records == 3


def test_a_file_that_changes_while_in_use(shards, spec, tmp_path):
    dataset = open_dataset(shards(6), spec, CLASSES, 300)
    shards(3)
    with pytest.raises(InputError, match="holds 3 records, 6 when it was opened"):
        pickle.loads(pickle.dumps(dataset)).read_batch([(0, 5)])
    (tmp_path / "part000.tfrecord").unlink()
    with pytest.raises(InputError, match="cannot read"):
        pickle.loads(pickle.dumps(dataset)).read_batch([(0, 0)])


def test_labels_outside_the_classes(shards, spec):
    dataset = open_dataset(shards(6), spec, 4, 300, on_damaged="skip")
    with pytest.raises(InputError, match="label 4 is outside the 4 classes"):
        list(evaluation_batches(dataset, 6))
    with pytest.raises(InputError, match="label 4 is outside the 4 classes"):
        label_counts(dataset)
