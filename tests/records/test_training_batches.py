"""Batches for training and sampled frames: their order, their division among ranks, and the workers that read them."""

import itertools
import multiprocessing
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from records.batches import CLASSES, check_batch, frames_found
from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.order import BLOCK_RECORDS, POOL_BLOCKS, epoch_order, piece
from topgb.records.sampling import FrameSampling, parse_sampling
from topgb.records.synth import write_synthetic
from topgb.records.training_batches import TrainingBatches, load_batches


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


def test_all_frames_in_training(shards, spec):
    dataset = open_dataset(shards(6), spec, CLASSES, 300)
    batch, _ = TrainingBatches(dataset, 6, 0, FrameSampling())[0]
    check_batch(batch, [int(video_id[1:]) for video_id in batch.ids])


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


def test_senseless_settings(shards, spec, tmp_path):
    dataset = open_dataset(shards(3), spec, CLASSES, 300)
    with pytest.raises(InputError, match="batch size 0"):
        TrainingBatches(dataset, 0, 0, FrameSampling())
    video = FeatureSpec("video", (Feature("mean_rgb", 7, "float32"),))
    write_synthetic(tmp_path / "video", video, CLASSES, 6)
    dataset = open_dataset(f"{tmp_path}/video/*", video, CLASSES, 300)
    with pytest.raises(InputError, match=r"no frames to sample; 'training\.frames' must be all, not random"):
        TrainingBatches(dataset, 2, 0, FrameSampling("random", 3))
    with pytest.raises(InputError, match="no frames to sample; frames must be all, not shuffle"):
        next(evaluation_batches(dataset, 2, sampling=FrameSampling("shuffle")))
