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


def test_parse_sampling():
    assert parse_sampling("all") == FrameSampling("all")
    assert parse_sampling("random:300") == FrameSampling("random", 300)
    assert parse_sampling("sequence:7") == FrameSampling("sequence", 7)


@pytest.mark.parametrize("text", ["", "random", "random:", "random:0", "random:-3", "all:3", "sequence:x", "first:3"])
def test_parse_sampling_refuses(text):
    with pytest.raises(InputError, match="all, random:N or sequence:N"):
        parse_sampling(text)
