"""Picture nets of timm and open_clip, for those with internet: they download their weights. They run in PyTorch."""

import hashlib
import importlib
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from topgb.errors import InputError, TopgbError, install_extra
from topgb.video.frames import Scaling, picture_identity
from topgb.video.sessions import Net

TorchKind = Literal["timm", "open_clip"]


def torch_picture(kind: TorchKind, model: str) -> tuple[dict[str, Any], Callable[[], Net]]:
    """The identity of a model's feature, and what opens its net: a picture uint8 [side, side, 3] to float32 [D].

    Pictures are scaled, cropped and normalised as the model's own data config says. Raises `TopgbError` where the
    library does not import, `InputError` if it knows no such model or cannot load its weights.
    """
    library = _library(kind)
    try:
        net, config = (_from_timm if kind == "timm" else _from_open_clip)(library, model)
    except TopgbError:
        raise
    except Exception as error:
        # Errors of the network, of the hub and of the library have no common class.
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(
            f"{kind} cannot load {model!r}: {reason}; check its name, and the way to the internet"
        ) from None
    import torch

    side = int(config["input_size"][-1])
    with torch.no_grad():
        size = int(net(torch.zeros(1, 3, side, side)).shape[-1])
    scaling: Scaling = "BILINEAR" if config["interpolation"] == "bilinear" else "BICUBIC"
    mean, std = ([float(value) for value in config[key]] for key in ("mean", "std"))
    identity = {
        "size": size,
        "net": f"{kind} {model}",
        "weights": _weights_sha256(net),
        "mean": mean,
        "std": std,
        **picture_identity(side, round(side / config["crop_pct"]), scaling),
    }
    return identity, lambda: _TorchPicture(net, np.array(mean, np.float32), np.array(std, np.float32))


class _TorchPicture:
    def __init__(self, net: Any, mean: Any, std: Any):
        self._net, self._mean, self._std = net, mean, std

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        import torch

        values = (picture.astype(np.float32) / 255 - self._mean) / self._std
        threads = torch.get_num_threads()
        # With more threads the last bits would depend on their number.
        torch.set_num_threads(1)
        try:
            with torch.no_grad():
                return self._net(torch.from_numpy(values.transpose(2, 0, 1).copy())[None])[0].float().numpy().copy()
        finally:
            torch.set_num_threads(threads)


def _library(kind: TorchKind) -> Any:
    try:
        return importlib.import_module(kind)
    except Exception as error:
        # A torchvision that was built for another PyTorch raises RuntimeError.
        absent = isinstance(error, ModuleNotFoundError) and error.name == kind
        advice = install_extra("timm")
        why = "is not installed here" if absent else f"does not import here ({' '.join(str(error).split())[:100]})"
        more = "" if absent else ", with a torchvision made for this PyTorch"
        raise TopgbError(f"the extractor {kind}:NAME needs {kind}, which {why}; {advice}{more}") from None


def _from_timm(timm: Any, model: str) -> tuple[Any, dict[str, Any]]:
    net = timm.create_model(model, pretrained=True, num_classes=0).eval()
    return net, timm.data.resolve_model_data_config(net)


def _from_open_clip(open_clip: Any, model: str) -> tuple[Any, dict[str, Any]]:
    """`NAME`, with the first of its weights, or `NAME/WEIGHTS`."""
    name, _, weights = model.partition("/")
    weights = weights or (open_clip.list_pretrained_tags_by_model(name) or [""])[0]
    net = open_clip.create_model(name, pretrained=weights).eval()
    size = net.visual.image_size
    config = {
        "input_size": (3, size, size) if isinstance(size, int) else (3, *size),
        "interpolation": "bicubic",
        "mean": net.visual.image_mean,
        "std": net.visual.image_std,
        "crop_pct": 1.0,
    }
    return net.encode_image if callable(getattr(net, "encode_image", None)) else net.visual, config


def _weights_sha256(net: Any) -> str:
    """SHA-256 of names, shapes and values of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(getattr(net, "__self__", net).state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.contiguous().cpu().view(-1).numpy().tobytes())
    return digest.hexdigest()
