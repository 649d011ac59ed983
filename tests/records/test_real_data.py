"""The real records that lie beside the checkout, where they do."""

import numpy as np
import pytest

from topgb.features import Feature, FeatureSpec
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.inspect import inspect_shards
from topgb.records.label_statistics import label_counts
from topgb.records.layout import Layout
from topgb.records.protobuf_decoding import decode_generally
from topgb.records.shards import open_shard
from topgb.records.verify import verify_shards

SETS = {
    "yt8m-2018-video": (
        FeatureSpec("video", (Feature("mean_rgb", 1024, "float32"), Feature("mean_audio", 128, "float32"))),
        3862,
        {"train": 12_861, "validate": 2_252},
    ),
    "audioset-frame": (
        FeatureSpec("frame", (Feature("audio_embedding", 128),)),
        527,
        {"train": 22_160, "validate": 5_384},
    ),
}


@pytest.mark.parametrize("name", SETS)
def test_every_record_reads_alike_both_ways(real_data, name):
    spec, classes, parts = SETS[name]
    dataset = open_dataset(f"{real_data}/{name}/validate/*.tfrecord", spec, classes, 300)
    assert dataset.num_records == parts["validate"]
    layout = Layout(spec, classes)
    for shard, batch in enumerate(evaluation_batches(dataset, 1_000_000)):
        opened = open_shard(dataset.shards[shard])
        for record in range(0, len(opened), 7):
            who, frames = decode_generally(opened.data(record), layout, opened.place(record))
            assert batch.ids[record] == who.id
            assert batch.labels[record].nonzero().flatten().tolist() == sorted(who.labels)
            joined = np.hstack(frames)
            np.testing.assert_array_equal(batch.features[record, : batch.num_frames[record]].numpy(), joined)


@pytest.mark.parametrize("name", SETS)
def test_as_described(real_data, name):
    spec, classes, parts = SETS[name]
    for part, records in parts.items():
        found = verify_shards(f"{real_data}/{name}/{part}/*.tfrecord")
        assert (found.sound, found.damaged) == (records, [])
    found = inspect_shards(f"{real_data}/{name}/validate/*.tfrecord")
    assert found.suggested_spec == spec
    assert found.labelled == found.records == parts["validate"]
    assert found.suggested_classes <= classes


def test_train_labels(real_data):
    spec, classes, parts = SETS["yt8m-2018-video"]
    counts, videos = label_counts(open_dataset(f"{real_data}/yt8m-2018-video/train/*", spec, classes, 300))
    assert videos == parts["train"]
    assert (counts > 0).sum() == 2897
