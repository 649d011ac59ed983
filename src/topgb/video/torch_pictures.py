"""Picture nets of timm and open_clip, for those with internet: they download their weights. They run in PyTorch."""

import difflib
import hashlib
import importlib
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from topgb.errors import InputError, TopgbError, install_extra
from topgb.video.frames import Scaling, picture_identity
from topgb.video.sessions import Net

TorchKind = Literal["timm", "open_clip"]


def torch_picture(kind: TorchKind, model: str) -> tuple[dict[str, Any], Callable[[], Net]]:
    """The identity of a model's feature, and what opens its net: a picture uint8 [side, side, 3] to float32 [D].

    Pictures are scaled, cropped and normalised as the model's own data config says. Raises `TopgbError` where the
    library does not import, `InputError` if it knows no such model, if it cannot load its weights, or if the model is
    not for square pictures or makes no vector of one.
    """
    library = _library(kind)
    import torch

    try:
        with _silence():
            net, config = (_from_timm if kind == "timm" else _from_open_clip)(library, model)
    except TopgbError:
        raise
    except Exception as error:
        # Errors of the network, of the hub and of the library have no common class.
        raise InputError(_why_not(kind, library, model, error)) from None
    side = _square_side(f"{kind}:{model}", config)
    with torch.no_grad():
        made = net(torch.zeros(1, 3, side, side))
    if not isinstance(made, torch.Tensor) or made.ndim != 2:
        raise InputError(f"the model {kind}:{model} does not make one vector of a picture; choose another one")
    scaling: Scaling = "BILINEAR" if config["interpolation"] == "bilinear" else "BICUBIC"
    mean, std = ([float(value) for value in config[key]] for key in ("mean", "std"))
    identity = {
        "size": int(made.shape[1]),
        "net": f"{kind} {model}",
        "weights": _weights_sha256(net),
        "mean": mean,
        "std": std,
        # Rounded down, as timm does.
        **picture_identity(
            side, math.floor(side / config["crop_pct"]), scaling, squashed=config["crop_mode"] == "squash"
        ),
    }
    return identity, lambda: _TorchPicture(net, np.array(mean, np.float32), np.array(std, np.float32))


def _square_side(name: str, config: dict[str, Any]) -> int:
    """The side of the squares that a model takes. Raises `InputError` if its pictures are made otherwise."""
    height, width = config["input_size"][-2:]
    if height != width:
        raise InputError(
            f"the model {name} takes pictures of {width} × {height} pixels, and topgb makes squares; choose another one"
        )
    if config["crop_mode"] not in ("center", "shortest", "squash") or config["crop_pct"] > 1:
        raise InputError(f"the model {name} takes pictures with borders, which topgb does not make; choose another one")
    return int(width)


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


@contextmanager
def _silence() -> Iterator[None]:
    """A block whose libraries do not log: the hub would report each of ten vain tries, with the host it asked."""
    earlier = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(earlier)


def _from_timm(timm: Any, model: str) -> tuple[Any, dict[str, Any]]:
    net = timm.create_model(model, pretrained=True, num_classes=0).eval()
    return net, timm.data.resolve_model_data_config(net)


def _from_open_clip(open_clip: Any, model: str) -> tuple[Any, dict[str, Any]]:
    """`NAME`, with the first of its weights, `NAME/WEIGHTS`, or a name with a scheme, such as `hf-hub:OWNER/NAME`."""
    name, weights, options = model, None, {}
    if ":" not in model:
        name, _, asked = model.partition("/")
        weights = asked or next(iter(open_clip.list_pretrained_tags_by_model(name)), None)
        if weights is None and name in open_clip.list_models():
            raise InputError(f"open_clip has no weights for {name!r}; choose another model")
        # Otherwise open_clip only warns that these weights are for another activation.
        options["force_quick_gelu"] = bool((open_clip.get_pretrained_cfg(name, weights) or {}).get("quick_gelu"))
    # Otherwise it makes random weights where it finds none.
    net = open_clip.create_model(name, pretrained=weights, require_pretrained=True, **options).eval()
    made = open_clip.get_model_preprocess_cfg(net)
    size = made["size"]
    config = {
        "input_size": (size, size) if isinstance(size, int) else tuple(size),
        "interpolation": made["interpolation"],
        "mean": made["mean"],
        "std": made["std"],
        "crop_pct": 1.0,
        "crop_mode": made["resize_mode"],
    }
    return net.encode_image, config


def _why_not(kind: TorchKind, library: Any, model: str, error: Exception) -> str:
    """A sentence about a model that cannot be loaded, with the names that look like its own if it is unknown."""
    # open_clip's reasons end with all that it knows.
    reason = " ".join(str(error).split())[:120].rstrip(" .;,") or type(error).__name__
    if ":" not in model:
        if kind == "timm":
            known = {*library.list_models(), *library.list_models(pretrained=True)}
        else:
            known = {f"{name}/{tag}" for name, tag in library.list_pretrained()}
            known |= {name for name, _ in library.list_pretrained()}
        if model not in known:
            close = difflib.get_close_matches(model, sorted(known), 3)
            meant = f"did you mean {' or '.join(close)}?" if close else "choose one that it knows"
            return f"{kind} cannot load {model!r}: {reason}; {meant}"
    return (
        f"{kind} cannot load {model!r}: {reason}; check the way to the internet, or have its weights in the cache of "
        "the Hugging Face hub"
    )


def _weights_sha256(net: Any) -> str:
    """SHA-256 of names, shapes and values of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(getattr(net, "__self__", net).state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.contiguous().cpu().view(-1).numpy().tobytes())
    return digest.hexdigest()
