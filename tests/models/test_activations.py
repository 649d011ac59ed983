"""A model file may ask for more memory than its own size says; that is estimated before the first batch."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import topgb
from combining.small_models import model_file, videos
from topgb import matmul_library
from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec
from topgb.modelfile import loaded
from topgb.models import activations
from topgb.models.few_rows import FewRowsLinear

MB = 1 << 20
VECTORS = FeatureSpec("video", (Feature("mean_rgb", 16, "float32"),))
CLUSTERS = {
    "aggregator": "netvlad",
    "clusters": 8_000,
    "hidden": 1,
    "features": ["audio"],
    "head": {"name": "logistic"},
}
PADDED = {
    **{"aggregator": "attention", "hidden": 64, "attend_to_padding": True, "max_frames": 4000},
    "head": {"name": "logistic"},
}
WIDE = {"aggregator": "average", "head": {"name": "mlp", "width": 200_000}}


@pytest.fixture
def free(monkeypatch):
    monkeypatch.setattr(loaded, "free_memory", lambda device: 40 * MB)


@pytest.mark.parametrize("section", [CLUSTERS, PADDED], ids=["clusters", "padding"])
def test_frames_that_need_too_much(section, free, tmp_path):
    model = topgb.load(model_file(tmp_path / "m.safetensors", section))
    with pytest.raises(InputError, match=r"needs about .* GB of memory to predict 100 videos of 6 frames"):
        model.predict(videos(100))
    # A video alone fits, and so is not refused.
    assert model.predict(videos(1)).shape == (1, 12)


@pytest.mark.parametrize("videos_at_once", [1, 2])
@pytest.mark.parametrize(("section", "room"), [(CLUSTERS, 950_000), (PADDED, MB)], ids=["clusters", "padding"])
def test_one_video_that_needs_too_much(section, room, videos_at_once, monkeypatch, tmp_path):
    monkeypatch.setattr(loaded, "free_memory", lambda device: room)
    model = topgb.load(model_file(tmp_path / "m.safetensors", section))
    taken, measure = [], activations._peak
    monkeypatch.setattr(activations, "_peak", lambda *arguments: taken.append(measure(*arguments)) or taken[-1])
    count = "one video" if videos_at_once == 1 else "2 videos"
    with pytest.raises(InputError, match=f"GB of memory to predict {count} of 6 frames, but .* are free on cpu"):
        model.predict(videos(videos_at_once))
    # What is refused is not tried, but for a frame or two.
    assert max(taken) < 2 * room
    assert [one.max_frames for one in activations._padding(model)] in ([], [4000])


def test_counting_does_not_import_the_compiler():
    # PyTorch would replace the method by a wrapper that imports it.
    assert activations.Living.__torch_dispatch__.__code__.co_filename == activations.__file__


@pytest.mark.parametrize("resident", ["packed", "full"])
def test_videos_that_need_too_much(resident, free, tmp_path):
    path = model_file(tmp_path / "m.safetensors", WIDE, features=VECTORS)
    model = topgb.load(path, resident=resident)
    with pytest.raises(InputError, match="predict 128 videos of 1 frames"):
        model.predict(np.zeros((400, 1, 16), np.float32))


def test_what_does_not_grow_with_the_videos_counts_once(free, tmp_path, monkeypatch):
    model = topgb.load(model_file(tmp_path / "m.safetensors"))
    monkeypatch.setattr(activations, "_peak", lambda model, predict, batch, videos, frames: 30 * MB + videos)
    assert model.predict(videos(9)).shape == (9, 12)


def test_the_check_is_made_once_and_changes_nothing(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(loaded, "free_memory", lambda device: asked.append(device) or 1 << 40)
    model = topgb.load(model_file(tmp_path / "m.safetensors"))
    first = model.predict(videos(9))
    np.testing.assert_array_equal(first, model.predict(videos(9)))
    model.predict(videos(5))
    model.predict(videos(2))
    assert len(asked) == 1
    model.predict(videos(20))
    assert len(asked) == 2


def test_the_check_changes_nothing_in_a_model_that_other_threads_use(tmp_path):
    path = model_file(tmp_path / "m.safetensors", {**PADDED, "max_frames": 50})
    expected = topgb.load(path).predict(videos(4))
    model, seen = topgb.load(path), []
    (frontend,) = activations._padding(model)
    frontend.register_forward_hook(lambda module, given, made: seen.append((module.max_frames, made[0].shape[1])))
    np.testing.assert_array_equal(model.predict(videos(4)), expected)
    assert {most for most, _ in seen} == {50}
    # A video is tried with fewer frames, which take less memory, before all are padded to as many as there may be.
    assert seen[0][1] < seen[-1][1] == 50
    for _ in range(5):
        shared = topgb.load(path)
        with ThreadPoolExecutor(6) as threads:
            for found in threads.map(shared.predict, [videos(4)] * 6):
                np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
def test_only_real_calls_keep_what_several_videos_need(tmp_path, monkeypatch):
    model = topgb.load(model_file(tmp_path / "m.safetensors", WIDE, features=VECTORS), resident="full")
    monkeypatch.setattr(matmul_library, "_preferred", "onednn")
    large = [module for module in model.modules() if isinstance(module, FewRowsLinear)]
    assert large
    peak, tried = activations._peak, []

    def of_two(model, predict, batch, videos, frames):
        found = peak(model, predict, batch, 2, frames)
        tried.append([layer._packed for layer in large])
        return found

    monkeypatch.setattr(activations, "_peak", of_two)
    model.predict(np.zeros((3, 1, 16), np.float32))
    assert tried == [[None] * len(large)]
    assert any(layer._packed is not None for layer in large)
