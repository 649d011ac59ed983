"""How one tensor is stored in a model file, and how to get its values back."""

import reprlib

import torch

from topgb.errors import InputError
from topgb.modelfile.header import TensorEncoding

PLAIN_DTYPES = {"float32": torch.float32, "float16": torch.float16}


def encode(tensor: torch.Tensor, encoding: str) -> tuple[TensorEncoding, torch.Tensor]:
    """`tensor` (float) as the plain encoding `float32` or `float16`."""
    return TensorEncoding(encoding, tuple(tensor.shape)), tensor.detach().cpu().to(PLAIN_DTYPES[encoding]).contiguous()


def decode(stored: torch.Tensor, entry: TensorEncoding, name: str) -> torch.Tensor:
    """The float32 values of a stored tensor; a float32 one is returned as it lies in the file.

    Raises `InputError` where the encoding is unknown, dtype or shape differ from the header's, or a value is not
    finite.
    """
    if entry.encoding not in PLAIN_DTYPES:
        raise InputError(
            f"tensor {name!r} has the encoding {entry.encoding!r}, which this topgb does not know; upgrade topgb"
        )
    if stored.dtype != PLAIN_DTYPES[entry.encoding] or tuple(stored.shape) != entry.shape:
        raise InputError(
            f"tensor {name!r} is {stored.dtype} {list(stored.shape)}, "
            f"but the header says {entry.encoding} {reprlib.repr(list(entry.shape))}; get the file again"
        )
    if not bool(torch.isfinite(stored).all()):
        raise InputError(f"tensor {name!r} has values that are not finite; the model is broken, build it again")
    return stored.float()
