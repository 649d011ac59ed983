"""The arithmetic of a model's parts under autocast."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch


def full_precision(device: torch.device) -> AbstractContextManager:
    """A context in which autocast is off on `device`."""
    # A context of autocast's takes longer than a small operation, so it is made only where it changes something.
    if _autocasts(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def computing_dtype(device: torch.device) -> torch.dtype:
    """The dtype in which autocast computes matrix products on `device`; float32 where autocast is off."""
    return torch.get_autocast_dtype(device.type) if _autocasts(device.type) else torch.float32


def _autocasts(kind: str) -> bool:
    return _has_autocast(kind) and torch.is_autocast_enabled(kind)


@cache
def _has_autocast(kind: str) -> bool:
    return torch.amp.is_autocast_available(kind)
