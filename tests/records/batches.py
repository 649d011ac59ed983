"""The videos that the small shards of `conftest.py` hold, and checks of batches of them."""

from pathlib import Path

import numpy as np
import torch

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


def first_shard(pattern):
    return Path(pattern.replace("*", "000"))


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
