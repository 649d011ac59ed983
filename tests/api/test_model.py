"""`topgb.load` and `topgb.Model`: arrays of every form that users have."""

import pickle
import warnings

import numpy as np
import pytest
import torch

import topgb
from combining.small_models import model_file, videos
from conftest import SMALL_CLASSES, SMALL_SPEC
from topgb.features import Feature, FeatureSpec

NAMES = tuple(f"class {index}" for index in range(SMALL_CLASSES))
FLOATS = FeatureSpec("frame", (Feature("a", 5, "float32"),))
MIXED = FeatureSpec("frame", (Feature("bytes", 4, range=(-1.0, 3.0)), Feature("floats", 3, "float32")))
PER_VIDEO = FeatureSpec("video", (Feature("mean", 6, "float32"),))
AVERAGE = {"aggregator": "average", "head": "logistic"}
# The batch, and with it the order of sums, differs between the forms.
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> topgb.Model:
    return topgb.load(model_file(tmp_path_factory.mktemp("model") / "m.safetensors", class_names=NAMES))


def _floats(stored: np.ndarray) -> np.ndarray:
    feature = SMALL_SPEC.features[0]
    return stored * feature.scale + feature.offset


@pytest.fixture
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.usefixtures("no_warning")
def test_floats_are_encoded_as_the_records_of_the_model_are(model, dtype):
    stored = videos(3)
    # float16 is coarser than half a step of the codes near the ends of the range.
    values = _floats(stored).astype(dtype)
    exact = dtype is not np.float16
    np.testing.assert_allclose(model.predict(values), model.predict(stored), rtol=0, atol=TOLERANCE if exact else 1e-2)


@pytest.mark.usefixtures("no_warning")
def test_every_form_of_a_video_gives_the_same_probabilities(model):
    stored = videos(3)
    ragged = [stored[0], stored[1, :4], stored[2, :1]]
    by_name = [{f.name: v[:, SMALL_SPEC.columns(f.name)] for f in SMALL_SPEC.features} for v in ragged]
    expected = model.predict(ragged)
    assert expected.shape == (3, SMALL_CLASSES)
    assert expected.dtype == np.float32
    padded = model.predict(stored, num_frames=[6, 4, 1])
    joined = {f.name: [v[:, SMALL_SPEC.columns(f.name)] for v in ragged] for f in SMALL_SPEC.features}
    for found in (padded, model.predict(by_name), model.predict(joined), model.predict(tuple(ragged))):
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    for video, named, row in zip(ragged, by_name, expected, strict=True):
        for found in (model.predict(video), model.predict(named), model.predict(torch.from_numpy(video))):
            assert found.shape == (SMALL_CLASSES,)
            np.testing.assert_allclose(found, row, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(model.predict(stored[2, 0]), expected[2], rtol=0, atol=TOLERANCE)


def test_no_videos_give_no_rows(model):
    for none in ([], np.zeros((0, 6, SMALL_SPEC.width), np.uint8), np.zeros((0, 0, SMALL_SPEC.width))):
        assert model.predict(none).shape == (0, SMALL_CLASSES)
        assert model.tag(none) == []


def test_more_videos_than_a_batch(model, monkeypatch):
    expected = model.predict(videos(9))
    monkeypatch.setattr("topgb.api.model.BATCH", 4)
    np.testing.assert_allclose(model.predict(videos(9)), expected, rtol=0, atol=TOLERANCE)


def test_tags_are_the_best_classes_by_name(model):
    stored = videos(2)
    probabilities = model.predict(stored)
    tags = model.tag(stored, top=3)
    for row, found in zip(probabilities, tags, strict=True):
        best = np.argsort(-row, kind="stable")[:3]
        assert found == [(NAMES[index], float(row[index])) for index in best]
    assert model.tag(stored[0], top=3)[0][0] == tags[0][0][0]
    everything = model.tag(stored[0], top=None)
    assert len(everything) == SMALL_CLASSES
    middle = everything[4][1]
    assert model.tag(stored[0], top=None, threshold=middle) == everything[:5]
    assert model.tag(stored[0], threshold=1.0) == []


def test_ties_are_in_the_order_of_classes_and_numbers_stand_for_names(tmp_path):
    path = model_file(tmp_path / "m.safetensors", AVERAGE, features=FLOATS)
    header, tensors = topgb.modelfile.read_model_file(path)
    topgb.modelfile.write_model_file(path, header, {n: torch.zeros_like(tensors[n]) for n in tensors}, force=True)
    assert topgb.load(path).tag(np.ones((2, 5)), top=4) == [("0", 0.5), ("1", 0.5), ("2", 0.5), ("3", 0.5)]


@pytest.mark.usefixtures("no_warning")
def test_features_of_mixed_kinds(tmp_path):
    model = topgb.load(model_file(tmp_path / "m.safetensors", AVERAGE, features=MIXED))
    numbers = np.random.default_rng(0)
    codes, floats = numbers.integers(0, 256, (6, 4), dtype=np.uint8), numbers.normal(size=(6, 3))
    raw = codes * MIXED.features[0].scale + MIXED.features[0].offset
    joined = np.concatenate([raw, floats], axis=1)
    stored = np.concatenate([codes, floats], axis=1).astype(np.float32)
    expected = model.loaded.predict(stored)
    for found in (
        model.predict(joined),
        model.predict({"bytes": codes, "floats": floats}),
        model.predict({"floats": floats.astype(np.float32), "bytes": raw}),
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.usefixtures("no_warning")
def test_video_level_features_have_one_vector_each(tmp_path):
    model = topgb.load(model_file(tmp_path / "m.safetensors", AVERAGE, features=PER_VIDEO))
    vectors = np.random.default_rng(0).normal(size=(3, 6))
    expected = model.predict(list(vectors))
    assert expected.shape == (3, SMALL_CLASSES)
    np.testing.assert_allclose(model.predict(vectors[:, None]), expected, rtol=0, atol=TOLERANCE)
    for one in (vectors[1], vectors[1:2]):
        np.testing.assert_allclose(model.predict(one), expected[1], rtol=0, atol=TOLERANCE)
    with pytest.raises(topgb.InputError, match=r"the video has 3 frames, but this model takes video-level features"):
        model.predict(vectors)


def test_values_outside_the_range_and_frames_beyond_the_last_are_warned_of(tmp_path):
    path = model_file(tmp_path / "m.safetensors", AVERAGE | {"max_frames": 4})
    model = topgb.load(path)
    values = _floats(videos(2))
    with pytest.warns(UserWarning, match="2 of 2 videos have more than 4 frames; the model looks at the first 4"):
        expected = model.predict(values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(model.predict(values[:, :4]), expected, rtol=0, atol=TOLERANCE)
    values[0, 0, :16] = 7.0
    outside = rf"{16 / (4 * 32):.2%} of the values of feature 'rgb' lie outside -2 to 2"
    with pytest.warns(UserWarning, match=outside) as caught:
        model.predict(values[0, :4])
    with pytest.warns(UserWarning, match=outside) as caught_by_tag:
        model.tag(values[0, :4])
    assert caught[0].filename == caught_by_tag[0].filename == __file__


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.full((4, 40), np.nan), "the video holds values of feature 'rgb' that are NaN or infinite"),
        ([np.zeros((4, 40)), np.full((4, 40), -np.inf)], "video 1 holds values of feature 'rgb' that are NaN"),
        (np.zeros((4, 40), np.int64), "the video holds int64 for feature 'rgb'; pass floats or stored bytes"),
        (np.zeros((4, 40), bool), "the video holds bool"),
        (np.zeros((4, 39)), r"the video is float64 \[4, 39\]; this model takes \[frames, 40\]"),
        (np.zeros((0, 40)), r"the video is float64 \[0, 40\]; this model takes .* at least one frame"),
        (np.zeros((1, 2, 3, 40)), r"the video is float64 \[1, 2, 3, 40\]"),
        (np.float64(3), r"the video is float64 \[\]"),
        ({"rgb": np.zeros((4, 32))}, "the video has the features rgb; this model takes rgb, audio"),
        ({"rgb": np.zeros((4, 32)), "sound": np.zeros((4, 8))}, "has the features rgb, sound; this model takes"),
        ({"rgb": np.zeros((4, 32)), "audio": np.zeros((3, 8))}, "different numbers of frames: {'rgb': 4, 'audio': 3}"),
        ({"rgb": [np.zeros((4, 32))], "audio": np.zeros((4, 8))}, "different numbers of videos"),
        ({}, "different numbers of videos"),
        ([["a", "b"]], "the video|video 0"),
        ("m.npy", "the video"),
    ],
)
def test_what_is_no_features_gets_a_sentence(model, wrong, said):
    with pytest.raises(topgb.InputError, match=said):
        model.predict(wrong)


@pytest.mark.parametrize("counts", [[1, 2], [0, 1, 1], [7, 1, 1], [1.5, 1, 1], 3])
def test_wrong_numbers_of_frames_are_refused(model, counts):
    with pytest.raises(topgb.InputError, match="num_frames must be 3 numbers from 1 to 6"):
        model.predict(videos(3), num_frames=counts)


@pytest.mark.parametrize("normalization", ["l2", "none"])
@pytest.mark.parametrize("spec", [SMALL_SPEC, FLOATS, PER_VIDEO])
def test_the_callers_array_stays_as_it_was(tmp_path, spec, normalization):
    section = {**AVERAGE, "normalization": normalization}
    model = topgb.load(model_file(tmp_path / "m.safetensors", section, features=spec))
    frames = 1 if spec.level == "video" else 3
    for array in (np.random.default_rng(0).normal(size=(2, frames, spec.width)).astype(np.float32), videos(2)):
        if array.shape[2] == spec.width:
            before = array.copy()
            first = model.predict(array)
            np.testing.assert_array_equal(array, before)
            np.testing.assert_array_equal(model.predict(list(array)), first)


@pytest.mark.parametrize(("options", "said"), [({"top": 0}, "top=0"), ({"threshold": 1.5}, "threshold=1.5")])
def test_wrong_options_of_tag_are_named(model, options, said):
    with pytest.raises(topgb.InputError, match=said):
        model.tag(videos(1), **options)


def test_a_model_tells_what_it_is_and_can_be_sent_to_another_process(model):
    assert repr(model) == "<topgb.Model: dbof, frame features rgb 32, audio 8, 12 classes>"
    assert model.class_names == NAMES
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(videos(1)), model.predict(videos(1)))


def test_the_public_names_are_found():
    assert {"load", "Model", "InputError", "TopgbError"} <= set(dir(topgb))
    assert topgb.InputError.__mro__[1] is topgb.TopgbError
