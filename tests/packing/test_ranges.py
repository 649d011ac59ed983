"""The measured range: what it is good for, and that nothing about the order or a few wild values moves it."""

import tracemalloc

import numpy as np
import pytest

from topgb.features import Feature
from topgb.packing.ranges import Cost, ValueHistogram

WIDTH = 64


def _histogram(values: np.ndarray, rows: int = 50) -> ValueHistogram:
    histogram = ValueHistogram()
    for start in range(0, len(values), rows):
        histogram.add(values[start : start + rows].astype(np.float32))
    return histogram


def _cost(values: np.ndarray, ends: tuple[float, float], histogram: ValueHistogram) -> Cost:
    cost = Cost(histogram.median_square)
    cost.quantise(values.astype(np.float32), Feature("x", values.shape[1], range=ends))
    return cost


def _kinds() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    normal = generator.standard_normal((1000, WIDTH))
    wild, loud, quiet = normal.copy(), normal.copy(), normal.copy()
    wild[7, 9] = 1e6
    loud[7] *= 1e4
    quiet[:400] *= 1e-5
    return {
        "normal": normal,
        "uniform": generator.uniform(-1, 1, (1000, WIDTH)),
        "heavy tails": generator.standard_t(2, (1000, WIDTH)),
        "rectified": np.maximum(normal, 0),
        "one wild value": wild,
        "one loud frame": loud,
        "quiet frames": quiet,
        "far from zero": normal + 1000,
    }


@pytest.mark.parametrize("kind", _kinds())
def test_the_range_is_about_as_good_as_the_best_plain_rule(kind):
    values = _kinds()[kind]
    histogram = _histogram(values)
    found = _cost(values, histogram.best_range(), histogram).error
    plain = [
        _cost(values, tuple(map(float, np.quantile(values, [tail, 1 - tail]))), histogram).error
        for tail in (0, 1e-4, 1e-3)
    ]
    assert found < 1.1 * min(plain)


def test_heavy_tails_are_cut_and_even_values_are_not():
    kinds = _kinds()
    even, heavy = _histogram(kinds["uniform"]), _histogram(kinds["heavy tails"])
    low, high = even.best_range()
    assert low == pytest.approx(-1, abs=0.02)
    assert high == pytest.approx(1, abs=0.02)
    assert heavy.best_range()[1] < kinds["heavy tails"].max() / 2
    cost = _cost(kinds["heavy tails"], heavy.best_range(), heavy)
    assert 0 < cost.clipped < 0.01 * cost.values


def test_the_order_of_the_frames_does_not_matter():
    values = _kinds()["heavy tails"]
    assert _histogram(values).best_range() == _histogram(values[::-1], rows=333).best_range()


def test_zero_gets_a_code_of_its_own():
    low, high = _histogram(_kinds()["rectified"]).best_range()
    feature = Feature("x", 1, range=(low, high))
    cost = Cost(1.0)
    code = cost.quantise(np.zeros((1, 1), np.float32), feature)[0, 0]
    assert abs(code * feature.scale + feature.offset) < 1e-3 * feature.scale


def test_bytes_follow_the_convention_of_features():
    feature = Feature("x", 3, range=(-2.0, 2.0))
    values = np.array([[-2.0, 0.0, 2.0], [-5.0, 5.0, 0.0]], np.float32)
    cost = Cost(1.0)
    codes = cost.quantise(values, feature)
    # 4 / 255 a step, from 4 / 512 above -2.
    assert codes.tolist() == [[0, 127, 255], [0, 255, 127]]
    assert (cost.clipped, cost.values) == (2, 6)
    assert np.abs(codes[0] * feature.scale + feature.offset - values[0]).max() <= feature.scale / 2


def test_the_error_is_that_of_the_bytes():
    values = np.full((1, 4), 1.0, np.float32)
    feature = Feature("x", 4, range=(-2.0, 2.0))
    cost = Cost(values.size * 1.0)
    codes = cost.quantise(values, feature)
    expected = abs(float(codes[0, 0]) * feature.scale + feature.offset - 1.0)
    assert cost.error == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.0, 3.0, -1e-15, 1e15])
def test_a_constant_feature_has_a_range_and_keeps_its_value(value):
    values = np.full((3, 2), value, np.float32)
    histogram = _histogram(values)
    low, high = histogram.best_range()
    assert low < high
    cost = _cost(values, (low, high), histogram)
    assert cost.clipped == 0
    assert cost.error < 0.01


def test_an_hours_long_video_is_quantised_in_little_more_than_its_codes():
    feature = Feature("rgb", 64, "uint8", (-1.0, 1.0))
    values = np.random.default_rng(0).uniform(-1.1, 1.1, (200_000, 64)).astype(np.float32)
    cost = Cost(1.0)
    tracemalloc.start()
    try:
        codes = cost.quantise(values, feature)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A few float64 arrays of a million values beside the codes; of all values it would be 400 MB.
    assert peak < codes.nbytes + 80_000_000
    whole = Cost(1.0)
    parts = [whole.quantise(values[first : first + 1000], feature) for first in range(0, len(values), 1000)]
    assert np.array_equal(codes, np.concatenate(parts))
    assert (cost.values, cost.clipped) == (values.size, whole.clipped)
    assert cost.error == pytest.approx(whole.error)
