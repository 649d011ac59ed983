"""The samplers by their properties; tests/golden compares them with the 2018 code's own draws."""

import numpy as np
import pytest

from topgb.errors import InputError
from topgb.records.sampling import (
    FrameSampling,
    parse_sampling,
    random_frames,
    random_sequence,
    sampled_rows,
    sampling_for,
    shuffle_frames,
)


def test_the_largest_draw_never_reaches_past_the_last_frame():
    largest = np.nextafter(np.float32(1), np.float32(0))
    for num_frames in range(1, 3000):
        assert random_frames(np.array([largest]), num_frames)[0] == num_frames - 1


def test_sequence_of_a_short_video_repeats_its_last_frame():
    assert random_sequence(0.9, 3, 5).tolist() == [0, 1, 2, 2, 2]


def test_rows_depend_on_seed_epoch_and_record_alone():
    sampling = FrameSampling("random", 50)
    rows = sampled_rows(sampling, 300, seed=1, epoch=2, record=3)
    np.testing.assert_array_equal(rows, sampled_rows(sampling, 300, seed=1, epoch=2, record=3))
    for other in [(2, 2, 3), (1, 3, 3), (1, 2, 4)]:
        assert not np.array_equal(rows, sampled_rows(sampling, 300, *other))
    assert sampled_rows(FrameSampling(), 300, 1, 2, 3) is None


def test_sample_all_takes_every_frame_and_then_others():
    sampling = sampling_for(FrameSampling("sample_all"), "frame", 40, "frames")
    rows = sampled_rows(sampling, 30, seed=1, epoch=2, record=3)
    assert len(rows) == 40
    np.testing.assert_array_equal(rows[:30], np.arange(30))
    assert 0 <= rows[30:].min() < rows[30:].max() < 30
    assert not np.array_equal(rows, sampled_rows(sampling, 30, seed=1, epoch=3, record=3))
    np.testing.assert_array_equal(sampled_rows(sampling, 40, 1, 2, 3), np.arange(40))


def test_shuffle_takes_every_frame_once():
    rows = sampled_rows(FrameSampling("shuffle"), 50, seed=1, epoch=2, record=3)
    np.testing.assert_array_equal(np.sort(rows), np.arange(50))
    assert not np.array_equal(rows, np.arange(50))
    assert not np.array_equal(rows, sampled_rows(FrameSampling("shuffle"), 50, seed=1, epoch=2, record=4))


def test_of_equal_draws_the_earlier_frame_comes_first():
    draws = np.array([0.5, 0.0, 0.9, 0.5, 0.9, 0.5, 0.99], np.float32)
    assert shuffle_frames(draws, 6).tolist() == [2, 4, 0, 3, 5, 1]


def test_sampling_must_fit_the_records():
    assert sampling_for(FrameSampling("random", 300), "frame", 300, "frames") == FrameSampling("random", 300)
    assert sampling_for(FrameSampling("shuffle"), "frame", 300, "frames").count == 0
    assert sampling_for(FrameSampling(), "video", 300, "frames") == FrameSampling()
    with pytest.raises(InputError, match=r"'sequence:301' takes more frames .*'model\.max_frames' is 300"):
        sampling_for(FrameSampling("sequence", 301), "frame", 300, "frames")
    for sampling in (FrameSampling("random", 3), FrameSampling("sample_all"), FrameSampling("shuffle")):
        with pytest.raises(InputError, match="no frames to sample"):
            sampling_for(sampling, "video", 300, "frames")


def test_parse_sampling():
    assert parse_sampling("all") == FrameSampling("all")
    assert parse_sampling("random:300") == FrameSampling("random", 300)
    assert parse_sampling("sequence:7") == FrameSampling("sequence", 7)
    assert parse_sampling("sample_all") == FrameSampling("sample_all")
    assert parse_sampling("shuffle") == FrameSampling("shuffle")


@pytest.mark.parametrize(
    "text", ["", "random", "random:", "random:0", "random:-3", "all:3", "sequence:x", "shuffle:3", "first:3"]
)
def test_parse_sampling_refuses(text):
    with pytest.raises(InputError, match="all, random:N, sequence:N, sample_all or shuffle"):
        parse_sampling(text)
