"""Damaged records and files stop the reading, or are left out and noted."""

import multiprocessing
import pickle

import numpy as np
import pytest

from records.batches import CLASSES, check_batch, first_shard, frames_found
from topgb.errors import DamagedRecordError, InputError
from topgb.features import Feature, FeatureSpec
from topgb.records.codec import encode_example
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.framing import frame_record
from topgb.records.label_statistics import label_counts
from topgb.records.sampling import FrameSampling, parse_sampling
from topgb.records.training_batches import TrainingBatches, load_batches


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


def test_input_errors_in_workers_keep_their_sentence(shards, spec):
    dataset = open_dataset(shards(6), FeatureSpec("frame", (Feature("speech", 3),)), CLASSES, 300)
    with pytest.raises(InputError, match=r"^.*part000\.tfrecord: record \d at byte \d+ has no feature 'speech'"):
        list(load_batches(TrainingBatches(dataset, 2, 0, FrameSampling()), range(3), workers=1))


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
    with pytest.raises(InputError, match=r"^no record can be read from .*part000\.tfrecord; topgb data verify says"):
        open_dataset(pattern, spec, CLASSES, 300, on_damaged="skip")
    (first_shard(pattern).parent / "part001.tfrecord").write_bytes(b"")
    with pytest.raises(InputError, match=r"from any of 2 files, .*part000\.tfrecord the first; topgb data verify"):
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
