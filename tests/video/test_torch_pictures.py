"""Pictures' nets of timm and open_clip: by their own data configs, known by their weights, on any number of threads."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from topgb.errors import InputError, TopgbError
from topgb.video.extract import extract_video
from topgb.video.extractors import extractor_of, find_extractor
from video.clips import write_clip

CONFIG = {
    "input_size": (3, 32, 32),
    "interpolation": "bilinear",
    "mean": (0.5, 0.4, 0.3),
    "std": (0.2, 0.3, 0.4),
    "crop_pct": 0.8,
}


class Net(torch.nn.Module):
    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.layer = torch.nn.Conv2d(3, 7, 4, 4)

    def forward(self, pictures):
        return self.layer(pictures).mean((2, 3))


def fake_timm(seed: int = 0) -> ModuleType:
    """The two calls of timm that are used, for the model `small` alone."""

    def create_model(name, pretrained, num_classes):
        if name != "small":
            raise RuntimeError(f"Unknown model ({name})")
        assert pretrained
        assert num_classes == 0
        return Net(seed)

    timm = ModuleType("timm")
    timm.create_model = create_model
    timm.data = SimpleNamespace(resolve_model_data_config=lambda net: CONFIG)
    return timm


def fake_open_clip() -> ModuleType:
    class Clip(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = Net(3)
            self.visual.image_size, self.visual.image_mean, self.visual.image_std = 32, (0.5,) * 3, (0.5,) * 3

        def encode_image(self, pictures):
            return self.visual(pictures)

    library = ModuleType("open_clip")
    library.list_pretrained_tags_by_model = lambda name: ["tag"]
    library.create_model = lambda name, pretrained: Clip() if (name, pretrained) == ("small", "tag") else 1 / 0
    return library


def test_a_timm_model_makes_the_feature_image(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", fake_timm())
    extractor = find_extractor("timm:small")
    assert [(f.name, f.size) for f in extractor.features] == [("image", 7)]
    made = extractor.identity["features"]["image"]
    assert (made["resize"], made["crop"], made["scaling"].split()[1]) == (40, "centre 32", "BILINEAR")
    grey = np.full((48, 64, 3), 100, np.uint8)
    clip = write_clip(tmp_path / "a.mkv", fps=1, images=[grey] * 3, size=(64, 48), codec="ffv1", sound=None)
    found = extract_video(str(clip), extractor).arrays["image"]
    values = torch.tensor([(100 / 255 - mean) / std for mean, std in zip(CONFIG["mean"], CONFIG["std"], strict=True)])
    with torch.no_grad():
        wanted = Net(0)(values[None, :, None, None].expand(1, 3, 32, 32)).numpy().repeat(3, 0)
    # A grey of YUV may come back one off.
    np.testing.assert_allclose(found, wanted, atol=0.05)
    assert extractor_of(extractor.identity).digest == extractor.digest


def test_other_weights_are_another_extractor(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", fake_timm(0))
    first = find_extractor("timm:small")
    monkeypatch.setitem(sys.modules, "timm", fake_timm(1))
    assert find_extractor("timm:small").digest != first.digest
    with pytest.raises(InputError, match="image.weights is"):
        extractor_of(first.identity)


@pytest.mark.parametrize("name", ["open_clip:small", "open_clip:small/tag"])
def test_an_open_clip_model_makes_the_feature_image(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "open_clip", fake_open_clip())
    extractor = find_extractor(name)
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        wanted = Net(3)(((torch.from_numpy(picture).permute(2, 0, 1) / 255 - 0.5) / 0.5)[None])[0].numpy()
    np.testing.assert_allclose(extractor.nets["image"](picture), wanted, atol=1e-6)


def test_a_model_that_cannot_be_had_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", fake_timm())
    with pytest.raises(InputError, match=r"timm cannot load 'huge': Unknown model \(huge\); check its name"):
        find_extractor("timm:huge")


def test_a_torchvision_that_does_not_fit_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(TopgbError, match=r"does not import here \(operator torchvision::nms .*made for this PyTorch"):
        find_extractor("timm:small")
