"""The nets: EfficientNet-Lite0 against the same net in PyTorch, sound features against their definitions."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional

from topgb.errors import TopgbError
from topgb.video import lite0, mel, sessions, sound, speech
from video.clips import picture, tone

BLOCKS = [(3, 1, 1), (3, 2, 2), (5, 2, 2), (3, 2, 3), (5, 1, 3), (5, 2, 4), (3, 1, 1)]


def same_convolution(x: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
    """A convolution padded as TensorFlow's SAME; depthwise where the kernels have one channel."""
    total = max((-(-x.shape[-1] // stride) - 1) * stride + weight.shape[-1] - x.shape[-1], 0)
    sides = (total // 2, total - total // 2)
    groups = len(weight) if weight.shape[1] == 1 else 1
    return functional.conv2d(functional.pad(x, sides * 2), weight, stride=stride, groups=groups)


def in_torch(image: np.ndarray) -> np.ndarray:
    """The net as its paper has it: a layer at a time, batch norms by themselves."""
    state = torch.load(lite0.weights_file(), weights_only=True)

    def layer(x, name, norm, stride=1, active=True):
        x = same_convolution(x, state[f"{name}.weight"], stride)
        values = (state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        x = functional.batch_norm(x, *values, eps=1e-3)
        return functional.relu6(x) if active else x

    x = layer((torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() - 127) / 128, "_conv_stem", "_bn0", 2)
    number = 0
    for kernel, first_stride, repeats in BLOCKS:
        for repeat in range(repeats):
            block, stride = f"_blocks.{number}.", first_stride if repeat == 0 else 1
            y = layer(x, f"{block}_expand_conv", f"{block}_bn0") if number else x
            assert state[f"{block}_depthwise_conv.weight"].shape[-1] == kernel
            y = layer(y, f"{block}_depthwise_conv", f"{block}_bn1", stride)
            y = layer(y, f"{block}_project_conv", f"{block}_bn2", active=False)
            x = y + x if repeat else y
            number += 1
    return layer(x, "_conv_head", "_bn1").mean((2, 3))[0].numpy()


@pytest.mark.numeric
def test_lite0_is_the_net_of_its_weights():
    net = lite0.Lite0()
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    for image in (noise, picture(3, 224, 224)):
        # Sums of a thousand products in another order; measured: 9e-6 of values up to 5.5.
        np.testing.assert_allclose(net(image), in_torch(image), rtol=0, atol=2e-5)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "topgb"


def test_the_graph_is_made_once_and_kept_whole(cache, monkeypatch):
    first = lite0.Lite0()(picture(1, 224, 224))
    (kept,) = cache.iterdir()
    assert kept.read_bytes() == lite0.make_graph(lite0.weights_file())
    monkeypatch.setattr(lite0, "make_graph", None)
    np.testing.assert_array_equal(lite0.Lite0()(picture(1, 224, 224)), first)


@pytest.mark.parametrize("content", [b"", b"broken" * 100])
def test_a_broken_file_in_the_cache_is_replaced(cache, content):
    first = lite0.Lite0()(picture(1, 224, 224))
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(content or whole[:5000])
    np.testing.assert_array_equal(lite0.Lite0()(picture(1, 224, 224)), first)
    assert kept.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert lite0.Lite0()(picture(1, 224, 224)).shape == (1280,)


def test_weights_of_something_else_are_one_sentence(tmp_path):
    torch.save({"_conv_stem.weight": torch.zeros(3)}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(b"no weights")
    for name in ("a.pth", "b.pth", "c.pth"):
        with pytest.raises(TopgbError, match=rf"{name} does not hold EfficientNet-Lite0's weights"):
            lite0.make_graph(tmp_path / name)


@pytest.mark.numeric
def test_mel_statistics_are_their_definition():
    samples = tone(1.0, sound.RATE, 1000.0) + np.random.default_rng(0).normal(0, 0.01, sound.RATE).astype(np.float32)
    edges = np.linspace(*(2595 * np.log10(1 + np.array([125, 7500]) / 700)), 66)
    edges = 700 * (10 ** (edges / 2595) - 1)
    rows = []
    for start in range(0, 16000 - 400 + 1, 160):
        window = samples[start : start + 400] * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400))
        power = np.abs(np.fft.fft(window, 512)[:257]) ** 2
        bins = 2595 * np.log10(1 + np.arange(257) * 16000 / 512 / 700)
        low, centre, high = (2595 * np.log10(1 + edges[i : i + 64, None] / 700) for i in range(3))
        weights = np.clip(np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)), 0, None)
        rows.append(np.log(weights @ power + 1e-6))
    energy = np.array(rows)
    found = mel.mel_statistics(samples)
    # HTK's constant has four digits in either of its two forms.
    np.testing.assert_allclose(found[:64], (energy.mean(0) + 5) / 5, atol=2e-3)
    np.testing.assert_allclose(found[64:], energy.std(0) / 2, atol=2e-3)
    assert energy.mean(0).argmax() in np.searchsorted(edges, 1000) - np.array([1, 2])


def test_sound_features_tell_tones_apart_and_repeat():
    low, high = tone(1.0, sound.RATE, 300), tone(1.0, sound.RATE, 3000)
    net = speech.Speech()
    for make in (mel.mel_statistics, net):
        assert make(low).dtype == np.float32
        np.testing.assert_array_equal(make(low), make(low))
        assert np.abs(make(low) - make(high)).max() > 0.1
    assert mel.mel_statistics(low).shape == (mel.SIZE,)
    assert net(low).shape == (speech.SIZE,)
    assert np.isfinite(net(np.zeros(sound.RATE, np.float32))).all()


def test_the_extra_is_named_where_onnx_runtime_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(TopgbError, match=r"pip install '\.\[video\]'"):
        sessions.open_session(b"")


def test_onnx_runtime_keeps_no_reports_on_its_user(tmp_path):
    """Its telemetry writes files as soon as it is imported."""
    folders = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"} | folders
    text = "from topgb.video.speech import Speech; Speech()"
    subprocess.run([sys.executable, "-c", text], env=environment, check=True)
    assert [path for path in tmp_path.rglob("*") if path.suffix in (".ses", ".db") or path.name == "deviceid"] == []
