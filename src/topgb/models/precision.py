"""In which arithmetic a part of a model computes under autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager:
    """A context in which autocast leaves what is computed on `device` as it is."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def computing_dtype(device: torch.device) -> torch.dtype:
    """What autocast makes of matrix products on `device` just now; float32 where it is off."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return torch.float32
