"""PyTorch's defaults for new tensors, which a caller may have changed for tensors of its own."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext


def own_defaults() -> AbstractContextManager[None]:
    """A block in which PyTorch makes tensors as it does at first: float32, on the CPU.

    A caller may have chosen another dtype or device for tensors of its own.
    """
    # Where PyTorch has not been imported, nobody has chosen anything, and some calls need not wait for it.
    torch = sys.modules.get("torch")
    if torch is None:
        return nullcontext()
    made = torch.empty(0)
    return nullcontext() if made.dtype == torch.float32 and made.device.type == "cpu" else _first_defaults()


@contextmanager
def _first_defaults() -> Iterator[None]:
    import torch

    chosen = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(chosen)
