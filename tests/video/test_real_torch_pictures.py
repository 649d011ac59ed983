"""The real timm and open_clip, where they import, with random weights: no test downloads any."""

import json

import numpy as np
import pytest
import torch

import topgb
from topgb.extractor_identity import difference
from topgb.video.extract import extract_video
from topgb.video.extractors import find_extractor
from topgb.video.frames import Pictures
from topgb.video.opening import open_media, picture_stream
from video.clips import cosines, write_clip

try:
    import open_clip
    import timm
except Exception as error:  # A torchvision made for another PyTorch raises RuntimeError.
    pytest.skip(f"timm and open_clip do not import here ({error})", allow_module_level=True)

# FFmpeg's cubic curve is another one than Pillow's, which hard edges show most.
LIKE = 0.99
# The smallest net of timm, and one whose pictures are squashed.
NETS = {"plain": ("test_vit", {}), "squashed": ("test_resnet", {"crop_mode": "squash", "crop_pct": 1.0})}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of nets by name, as timm writes them."""
    folder = tmp_path_factory.mktemp("nets")
    for name, (net, config) in NETS.items():
        torch.manual_seed(3)
        made = timm.create_model(net, pretrained_cfg_overlay=config)
        (folder / name).mkdir()
        torch.save(made.state_dict(), folder / name / "pytorch_model.bin")
        kept = {
            key: value for key, value in made.pretrained_cfg.items() if isinstance(value, str | int | float | tuple)
        }
        described = {
            "architecture": net,
            "num_classes": 1000,
            "num_features": made.num_features,
            "pretrained_cfg": kept,
        }
        (folder / name / "config.json").write_text(json.dumps(described))
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "a.mkv", 2.0, size=(320, 180), codec="ffv1", sound=None)


@pytest.mark.parametrize("name", NETS)
def test_features_are_those_of_timms_own_transform(name, saved, clip):
    extractor = find_extractor(f"timm:local-dir:{saved / name}")
    net = timm.create_model(f"local-dir:{saved / name}", pretrained=True, num_classes=0).eval()
    config = timm.data.resolve_model_data_config(net)
    made = extractor.identity["features"]["image"]
    assert (made["mean"], made["std"]) == (list(config["mean"]), list(config["std"]))
    transform = timm.data.create_transform(**config, is_training=False)
    with open_media(str(clip)) as file:
        frame = next(file.decode(picture_stream(file)))
        ours = Pictures(config["input_size"][-1], made["resize"], made["scaling"].split()[1], 1.0, name == "squashed")
        got = (ours(frame).astype(np.float32) / 255 - made["mean"]) / made["std"]
        wanted = transform(frame.to_image()).permute(1, 2, 0).numpy()
        # Closer than a shift of one pixel.
        assert np.abs(got - wanted).mean() < np.abs(got[1:] - wanted[:-1]).mean()
        with torch.no_grad():
            vector = net(transform(frame.to_image())[None])[0].numpy()
    found = extract_video(str(clip), extractor).arrays["image"][0]
    assert cosines(found[None], vector[None]) > LIKE


def test_an_extractor_is_the_same_in_every_process(saved, clip, tmp_path):
    name = f"timm:local-dir:{saved / 'plain'}"
    for jobs in (1, 2):
        topgb.extract(clip, tmp_path / str(jobs), extractor=name, jobs=jobs, progress=False)
    one, two = ((tmp_path / jobs / "features" / "a.npz").read_bytes() for jobs in "12")
    assert one == two
    assert difference(find_extractor(name).identity, find_extractor(name).identity) is None


@pytest.mark.parametrize("squashed", [False, True])
def test_open_clips_own_transform(squashed, clip, tmp_path):
    folder = tmp_path / "net"
    folder.mkdir()
    vision = {"image_size": 64, "layers": 1, "width": 64, "patch_size": 16}
    text = {"context_length": 8, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1}
    pictures = {"interpolation": "bicubic", "resize_mode": "squash" if squashed else "shortest"}
    described = {"model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": pictures}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    torch.manual_seed(3)
    net = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text)
    torch.save(net.state_dict(), folder / "open_clip_pytorch_model.bin")
    extractor = find_extractor(f"open_clip:local-dir:{folder}")
    loaded, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    with open_media(str(clip)) as file, torch.no_grad():
        frame = next(file.decode(picture_stream(file)))
        vector = loaded.eval().encode_image(transform(frame.to_image())[None])[0].numpy()
    found = extract_video(str(clip), extractor).arrays["image"][0]
    assert found.shape == (16,)
    assert cosines(found[None], vector[None]) > LIKE
