"""Read variables of a 2018 checkpoint by their trained names, also if `quantize.py` has replaced them.

`quantize.py` replaced a large `NAME` by `NAMEfloat16`, or by codes `NAME_quants` and their codebook `NAME_space`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from topgb.errors import InputError
from topgb.from2018.checkpoint import TF1Checkpoint
from topgb.modelfile.encodings import MOST_CODES

HALF, CODES, CODEBOOK = "float16", "_quants", "_space"
_SUFFIXES = (HALF, CODES, CODEBOOK)


@dataclass(frozen=True)
class Coded:
    """A quantised variable: `codes`, uint8 of its shape, are positions in `codebook`, float32 [up to 256]."""

    codes: np.ndarray
    codebook: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """The variable's shape."""
        return self.codes.shape


def trained_name(stored_name: str) -> str:
    """The name that a stored variable was trained under."""
    return stored_name.removesuffix(_suffix(stored_name))


def group_stored(names: Iterable[str], source: str) -> dict[str, tuple[str, ...]]:
    """Map each trained name to its stored names: either one name, or those of its codes and its codebook.

    Raises `InputError` naming `source` if codes or a codebook are missing, or if a variable is stored in several ways.
    """
    suffixes: dict[str, set[str]] = {}
    for name in names:
        suffixes.setdefault(trained_name(name), set()).add(_suffix(name))
    return {name: _stored_names(name, found, source) for name, found in suffixes.items()}


def stored_shape(checkpoint: TF1Checkpoint, stored: tuple[str, ...]) -> tuple[int, ...]:
    """The shape of a variable with the stored names `stored`, which `group_stored` gives."""
    return checkpoint.shape(stored[0])


def read_stored(checkpoint: TF1Checkpoint, stored: tuple[str, ...]) -> np.ndarray | Coded:
    """A variable as it is stored: values in their own dtype, or codes with their codebook.

    Raises `InputError` if the checkpoint cannot be read, or if `quantize.py` does not write such dtypes, shapes or
    values.
    """
    source = str(checkpoint.prefix)
    if len(stored) == 1:
        values = checkpoint.read(stored[0])
        if _suffix(stored[0]) == HALF and values.dtype != np.float16:
            raise InputError(
                f"{source}: the variable {stored[0]!r} holds {values.dtype} values, but its name says float16; "
                "quantise the model again"
            )
        return values
    codes, codebook = (checkpoint.read(name) for name in stored)
    if codes.dtype != np.uint8:
        raise InputError(f"{source}: the codes {stored[0]!r} are {codes.dtype}, not uint8; quantise the model again")
    return Coded(codes, _checked_codebook(codebook, codes, stored[1], source))


def _suffix(stored_name: str) -> str:
    return next((suffix for suffix in _SUFFIXES if stored_name.endswith(suffix)), "")


def _stored_names(name: str, suffixes: set[str], source: str) -> tuple[str, ...]:
    if suffixes == {CODES, CODEBOOK}:
        return name + CODES, name + CODEBOOK
    if suffixes == {CODES}:
        raise InputError(
            f"{source}: the codes {name + CODES!r} have no codebook {name + CODEBOOK!r}; quantise the model again"
        )
    if suffixes == {CODEBOOK}:
        raise InputError(
            f"{source}: the codebook {name + CODEBOOK!r} has no codes {name + CODES!r}; quantise the model again"
        )
    if len(suffixes) > 1:
        found = ", ".join(repr(name + suffix) for suffix in sorted(suffixes))
        raise InputError(f"{source}: the variable {name!r} is stored in several ways, as {found}; leave one of them")
    return (name + suffixes.pop(),)


def _checked_codebook(codebook: np.ndarray, codes: np.ndarray, name: str, source: str) -> np.ndarray:
    if codebook.ndim != 1 or codebook.dtype.kind != "f" or len(codebook) > MOST_CODES:
        raise InputError(
            f"{source}: the codebook {name!r} is {codebook.dtype} {list(codebook.shape)}, not up to {MOST_CODES} "
            "floats; quantise the model again"
        )
    with np.errstate(over="ignore"):
        codebook = codebook.astype(np.float32, copy=False)
    if not np.isfinite(codebook).all():
        raise InputError(f"{source}: the codebook {name!r} has values that are not finite; quantise the model again")
    if codes.size and codes.max() >= len(codebook):
        raise InputError(
            f"{source}: there are codes up to {codes.max()}, but the codebook {name!r} has {len(codebook)} values; "
            "quantise the model again"
        )
    return codebook
