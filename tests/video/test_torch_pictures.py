"""Pictures' nets of timm and open_clip: by their own data configs, known by their weights, on any number of threads."""

import logging
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
    "crop_pct": 0.81,
    "crop_mode": "center",
}


class Net(torch.nn.Module):
    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.layer = torch.nn.Conv2d(3, 7, 4, 4)

    def forward(self, pictures):
        return self.layer(pictures).mean((2, 3))


def fake_timm(seed: int = 0, **config) -> ModuleType:
    """The calls of timm that are used, for the model `small` alone, with `config` in its data config."""

    def create_model(name, pretrained, num_classes):
        if name != "small":
            raise RuntimeError(f"Unknown model ({name})")
        assert pretrained
        assert num_classes == 0
        return Net(seed)

    timm = ModuleType("timm")
    timm.create_model = create_model
    timm.data = SimpleNamespace(resolve_model_data_config=lambda net: {**CONFIG, **config})
    timm.list_models = lambda pretrained=False: ["small", "resnet.a", "resnet.b"]
    return timm


def fake_open_clip(resize_mode: str = "shortest") -> ModuleType:
    class Clip(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = Net(3)

        def encode_image(self, pictures):
            return self.visual(pictures)

    def create_model(name, pretrained, require_pretrained, force_quick_gelu=False):
        assert require_pretrained
        if (name, pretrained) not in (("small", "tag"), ("hf-hub:a/b", None)):
            logging.error("nothing of it may be printed")
            raise RuntimeError("Failed to download")
        # The weights are for this activation.
        assert force_quick_gelu == (name == "small")
        return Clip()

    library = ModuleType("open_clip")
    library.list_models = lambda: ["small", "empty"]
    library.list_pretrained = lambda: [("small", "tag"), ("small", "far")]
    library.list_pretrained_tags_by_model = lambda name: ["tag", "far"] if name == "small" else []
    library.get_pretrained_cfg = lambda name, tag: {"quick_gelu": True} if tag == "tag" else {}
    library.get_model_preprocess_cfg = lambda net: {
        "size": 32,
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
        "interpolation": "bilinear",
        "resize_mode": resize_mode,
    }
    library.create_model = create_model
    return library


def test_a_timm_model_makes_the_feature_image(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", fake_timm())
    extractor = find_extractor("timm:small")
    assert [(f.name, f.size) for f in extractor.features] == [("image", 7)]
    made = extractor.identity["features"]["image"]
    assert (made["resize"], made["crop"], made["scaling"].split()[1]) == (39, "centre 32", "BILINEAR")
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


@pytest.mark.parametrize("name", ["open_clip:small", "open_clip:small/tag", "open_clip:hf-hub:a/b"])
def test_an_open_clip_model_makes_the_feature_image(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "open_clip", fake_open_clip())
    extractor = find_extractor(name)
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        wanted = Net(3)(((torch.from_numpy(picture).permute(2, 0, 1) / 255 - 0.5) / 0.5)[None])[0].numpy()
    np.testing.assert_allclose(extractor.nets["image"](picture), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:resnt", r"timm cannot load 'resnt': Unknown model \(resnt\); did you mean resnet"),
        ("timm:x", r"Unknown model \(x\); choose one that it knows"),
        ("timm:resnet.a", "; check the way to the internet, or have its weights in the cache of the Hugging Face hub"),
        ("timm:hf-hub:owner/name", "; check the way to the internet"),
        ("open_clip:small/tga", "Failed to download; did you mean small/tag"),
        ("open_clip:small/far", "Failed to download; check the way to the internet"),
        # It would come with random weights.
        ("open_clip:empty", "open_clip has no weights for 'empty'; choose another model"),
    ],
)
def test_a_model_that_cannot_be_had_is_one_sentence(name, said, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "timm", fake_timm())
    monkeypatch.setitem(sys.modules, "open_clip", fake_open_clip())
    with pytest.raises(InputError, match=said):
        find_extractor(name)
    assert not caplog.records


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"input_size": (3, 48, 32)}, "takes pictures of 32 × 48 pixels, and topgb makes squares"),
        ({"crop_mode": "border"}, "takes pictures with borders"),
        ({"crop_pct": 1.15}, "takes pictures with borders"),
    ],
)
def test_a_model_whose_pictures_are_made_otherwise_is_one_sentence(config, said, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", fake_timm(**config))
    with pytest.raises(InputError, match=f"timm:small {said}"):
        find_extractor("timm:small")


def test_a_model_that_makes_no_vector_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", fake_timm())
    monkeypatch.setattr(Net, "forward", lambda net, pictures: net.layer(pictures))
    with pytest.raises(InputError, match="timm:small does not make one vector"):
        find_extractor("timm:small")


@pytest.mark.parametrize("kind", ["timm", "open_clip"])
def test_squashed_pictures_show_all_of_a_frame(kind, monkeypatch, tmp_path):
    """The left third is white, the rest black: of a centre, nothing would be white."""
    monkeypatch.setitem(sys.modules, "timm", fake_timm(crop_mode="squash", crop_pct=1.0, interpolation="bicubic"))
    monkeypatch.setitem(sys.modules, "open_clip", fake_open_clip("squash"))
    extractor = find_extractor(f"{kind}:small")
    assert extractor.identity["features"]["image"]["shape"] == "squashed"
    frame = np.zeros((48, 192, 3), np.uint8)
    frame[:, :64] = 255
    clip = write_clip(tmp_path / "a.mkv", 1.0, 1, images=[frame], size=(192, 48), codec="ffv1", sound=None)
    seen = []
    vars(extractor)["nets"] = {"image": lambda picture: seen.append(picture) or np.zeros(7, np.float32)}
    extract_video(str(clip), extractor)
    assert seen[0].shape == (32, 32, 3)
    # Each third has the same width as before, but for a pixel at the edge.
    assert seen[0][:, :9].min() > 200
    assert seen[0][:, 12:].max() < 55


def test_a_torchvision_that_does_not_fit_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(TopgbError, match=r"does not import here \(operator torchvision::nms .*made for this PyTorch"):
        find_extractor("timm:small")
