"""The one reader of JSON that was written elsewhere, with bounds on its size, its depth and its number of values."""

import json
import math
import os
from typing import Any

from topgb.files import open_input

# Code that prints, copies or compares a value recurses once per level.
DEEPEST = 50
# The header of a model of a million named classes has 20 MB.
MOST_BYTES = 64 << 20
# An empty list of two bytes and a comma takes 64 bytes of memory.
MOST_VALUES = 4_000_000


def read_json(path: str | os.PathLike, most_bytes: int = MOST_BYTES) -> Any:
    """The value in a JSON file in UTF-8. Raises `OSError` if it cannot be read, and as `parse_json`."""
    with open_input(path) as file:
        # Reading `most_bytes` would allocate as many, however short the file is.
        size = min(os.fstat(file.fileno()).st_size, most_bytes + 1)
        return parse_json(file.read(size), most_bytes)


def parse_json(text: str | bytes, most_bytes: int = MOST_BYTES) -> Any:
    """The value of a JSON text; bytes are UTF-8.

    Raises `ValueError`, in a few printable words, if it is not JSON, holds numbers that are not finite, or is longer,
    deeper or has more values than any file that topgb writes.
    """
    if len(text) > most_bytes:
        raise ValueError(f"longer than {most_bytes:,} bytes")
    if isinstance(text, bytes):
        text = text.decode()
    # Every value but the first follows one of these signs. In strings they count too.
    if sum(map(text.count, ",[{")) > MOST_VALUES:
        raise ValueError(f"more than {MOST_VALUES:,} values")
    try:
        value = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise _too_deep() from None
    if _is_deep(value):
        raise _too_deep()
    return value


def _finite(text: str) -> float:
    # Python's JSON parser accepts NaN and Infinity, and reads 1e400 as Infinity.
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is not finite")
    return number


def _is_deep(value: Any, levels: int = DEEPEST) -> bool:
    if not isinstance(value, dict | list) or levels == 0:
        return levels == 0
    return any(_is_deep(part, levels - 1) for part in (value.values() if isinstance(value, dict) else value))


def _too_deep() -> ValueError:
    return ValueError(f"nested more than {DEEPEST} levels deep")
