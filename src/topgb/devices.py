"""Where to compute."""

import torch

from topgb.errors import InputError

USABLE = ("cpu", "cuda", "mps")


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` is CUDA where there is one, else the CPU. Raises `InputError`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.empty(0, device=name).device
        if device.type in USABLE:
            return device
    except (RuntimeError, AssertionError):
        pass
    raise InputError(f"there is no device {name!r} here; use --device cpu")


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is the device's own and not emulated."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
