"""Many videos are encoded together: what is stored and said is what each video by itself would have."""

import numpy as np
import pytest

from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec
from topgb.modelfile import given_arrays
from topgb.modelfile.given_arrays import padded, to_stored

SPECS = {
    "bytes": FeatureSpec("frame", (Feature("a", 4), Feature("b", 3, range=(-1.0, 3.0)))),
    "floats": FeatureSpec("frame", (Feature("a", 5, "float32"), Feature("b", 2, "float32"))),
    "both": FeatureSpec("frame", (Feature("a", 4, range=(-1.0, 3.0)), Feature("b", 3, "float32"))),
}
DTYPES = (np.float32, np.float32, np.float64, np.float16, np.float32)


def _videos(bytes_too: bool) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    floats = [random.normal(scale=2, size=(1 + n % 4, 7)).astype(DTYPES[n % len(DTYPES)]) for n in range(23)]
    return [*floats, *(random.integers(0, 256, (2, 7), dtype=np.uint8) for _ in range(3 * bytes_too)), floats[0][0]]


@pytest.mark.parametrize("block", [1, 40, 1 << 18])
@pytest.mark.parametrize("kind", SPECS)
def test_videos_together_are_stored_as_each_alone(monkeypatch, kind, block):
    monkeypatch.setattr(given_arrays, "BLOCK", block)
    spec, videos = SPECS[kind], _videos(kind == "bytes")
    together = to_stored(videos, spec, 3)
    alone = [to_stored(video, spec, 3) for video in videos]
    for found, expected in zip(together.stored, alone, strict=True):
        np.testing.assert_array_equal(found, expected.stored[0], strict=True)
    assert together.cut == sum(each.cut for each in alone)
    for name in ("a", "b"):
        counts = [each.clipped[name] for each in alone if name in each.clipped]
        assert together.clipped.get(name, (0, 0)) == tuple(map(sum, zip(*counts, strict=True))) or not counts
        assert bool(counts) == (name in together.clipped)
    features, counts = padded(together.stored)
    for row, count, expected in zip(features, counts, alone, strict=True):
        np.testing.assert_array_equal(row[:count], expected.stored[0])
        assert not row[count:].any()


@pytest.mark.parametrize("amiss", [np.nan, -np.inf, 1e30])
@pytest.mark.parametrize("kind", SPECS)
def test_the_video_and_the_feature_that_do_not_fit_are_named(kind, amiss):
    videos = [np.zeros((2, 7), np.float32) for _ in range(9)]
    videos[6][1, 6] = amiss
    with pytest.raises(InputError, match="^video 6 holds values of feature 'b' "):
        to_stored(videos, SPECS[kind], 3)
    with pytest.raises(InputError, match="^the video holds values of feature 'b' "):
        to_stored(videos[6], SPECS[kind], 3)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("shape", [(7,), (2, 7), (4, 2, 7), (2, 5, 7)])
@pytest.mark.parametrize("kind", SPECS)
def test_one_array_of_videos_is_stored_as_a_list_of_them(kind, shape, frozen):
    random = np.random.default_rng(0)
    arrays = [random.normal(size=shape).astype(np.float32), random.integers(0, 256, shape, dtype=np.uint8)]
    for array in arrays if kind == "bytes" else arrays[:1]:
        videos = [array] if array.ndim < 3 else list(array)
        array.flags.writeable = not frozen
        found, expected = to_stored(array, SPECS[kind], 3), to_stored(videos, SPECS[kind], 3)
        assert (found.single, found.cut, found.clipped) == (array.ndim < 3, expected.cut, expected.clipped)
        (own, counts), (other, expected_counts) = padded(found.stored), padded(expected.stored)
        np.testing.assert_array_equal(own, other, strict=True)
        assert own.flags.writeable
        assert counts is None or (counts == expected_counts).all()
        assert (expected_counts == own.shape[1]).all()


@pytest.mark.parametrize(
    ("shape", "said"), [((2, 6), r"^the video is .* takes \[frames, 7\]"), ((3, 0, 7), r"^video 0 is ")]
)
@pytest.mark.parametrize("kind", SPECS)
def test_an_array_of_another_shape_has_its_sentence(kind, shape, said):
    with pytest.raises(InputError, match=said):
        to_stored(np.zeros(shape, np.float32), SPECS[kind], 3)
