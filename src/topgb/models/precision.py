"""The arithmetic of a model's parts under autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager:
    """A context in which autocast is off on `device`."""
    # A context of autocast's takes longer than a small operation, so it is made only where it changes something.
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def computing_dtype(device: torch.device) -> torch.dtype:
    """The dtype in which autocast computes matrix products on `device`; float32 where autocast is off."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return torch.float32
