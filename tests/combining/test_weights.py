"""Weights fitted to labelled videos."""

import numpy as np
import pytest

from topgb.combining.prediction_matrix import gap
from topgb.combining.weights import fit_weights, mixture_gap
from topgb.errors import InputError


def _labels(videos: int, classes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((videos, classes)) < 3 / classes


def _model(labels: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """Probabilities that know the labels the less, the more noise there is."""
    logits = 4.0 * labels - 4.0 + noise * np.random.default_rng(seed).standard_normal(labels.shape)
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


@pytest.fixture(scope="module")
def unequal() -> tuple[list[np.ndarray], np.ndarray]:
    labels = _labels(400, 200, 0)
    return [_model(labels, noise, seed) for seed, noise in ((1, 1.0), (2, 1.2), (3, 6.0))], labels


def test_a_poor_model_gets_little_and_other_videos_gain(unequal):
    predictions, labels = unequal
    fitted = fit_weights(predictions, labels)
    assert fitted.weights.dtype == np.float64
    assert fitted.weights.min() >= 0
    assert fitted.weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert fitted.weights[2] < 0.1 < fitted.weights[1] < fitted.weights[0] + 0.1
    assert fitted.gain > 0
    assert fitted.cross_validated_gain > 0
    others = _labels(400, 200, 7)
    unseen = [_model(others, noise, seed) for seed, noise in ((8, 1.0), (9, 1.2), (10, 6.0))]
    assert mixture_gap(unseen, fitted.weights, others) > mixture_gap(unseen, np.full(3, 1 / 3), others)


def test_figures_are_those_of_whole_predictions(unequal):
    predictions, labels = unequal
    fitted = fit_weights(predictions, labels)
    assert fitted.gaps == pytest.approx([gap(part, labels) for part in predictions], abs=1e-12)
    assert fitted.gap_equal == pytest.approx(gap(sum(predictions) / np.float32(3), labels), abs=1e-4)
    mixture = sum(weight * part.astype(np.float64) for weight, part in zip(fitted.weights, predictions, strict=True))
    assert fitted.gap_fitted == pytest.approx(gap(mixture, labels), abs=1e-4)
    assert fitted.to_json()["gain"] == fitted.gap_fitted - fitted.gap_equal


def test_a_seed_gives_the_same_weights(unequal):
    first, again = (fit_weights(*unequal, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first.weights, again.weights)
    assert first.cross_validated_gain == again.cross_validated_gain
    other = fit_weights(*unequal, seed=5)
    np.testing.assert_array_equal(first.weights, other.weights)
    assert first.cross_validated_gain != other.cross_validated_gain


def test_models_that_are_alike_keep_equal_weights():
    labels = _labels(300, 100, 1)
    one = _model(labels, 2.0, 2)
    fitted = fit_weights([one, one, one], labels)
    np.testing.assert_array_equal(fitted.weights, np.full(3, 1 / 3))
    assert fitted.gain == 0


@pytest.mark.parametrize("seed", range(6))
def test_weights_are_never_worse_than_equal_ones(seed):
    labels = _labels(40, 30, seed)
    predictions = [_model(labels, 3.0, 10 * seed + number) for number in range(4)]
    fitted = fit_weights(predictions, labels, seed)
    assert fitted.gap_fitted >= fitted.gap_equal
    if fitted.cross_validated_gain <= 0:
        np.testing.assert_array_equal(fitted.weights, np.full(4, 0.25))


def test_videos_without_labels_and_few_classes_are_no_trouble():
    labels = np.zeros((5, 3), bool)
    predictions = [np.random.default_rng(seed).random((5, 3), np.float32) for seed in range(2)]
    np.testing.assert_array_equal(fit_weights(predictions, labels).weights, [0.5, 0.5])
    predictions[0][:] = 0.0
    predictions[1][:] = 1.0
    assert np.isfinite(fit_weights(predictions, ~labels).weights).all()


def test_one_model_or_one_video_is_refused():
    labels = _labels(2, 4, 0)
    part = _model(labels, 1.0, 0)
    with pytest.raises(InputError, match="1 models and 2 videos; name two of each"):
        fit_weights([part], labels)
    with pytest.raises(InputError, match="2 models and 1 videos; name two of each"):
        fit_weights([part[:1], part[:1]], labels[:1])
