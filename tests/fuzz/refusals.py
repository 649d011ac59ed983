"""How a reader may end: with what it promises, or with one documented sentence."""

from collections.abc import Callable
from typing import TypeVar

from topgb.errors import InputError

Value = TypeVar("Value")


def unless_refused(read: Callable[[], Value], path: object) -> Value | None:
    """What `read` gives, None where it raises `InputError` in a printable sentence that names `path`."""
    try:
        return read()
    except InputError as error:
        sentence, cause = str(error), error.__cause__
    assert sentence.isprintable(), f"not printable: {sentence!r}"
    assert str(path) in sentence, f"{path} is not named: {sentence}"
    # Out of memory is no damage; protobuf alone says so with the same error.
    assert "Arena alloc failed" not in str(cause), "the memory did not suffice"
    return None


def unless_malformed(parse: Callable[[], Value]) -> Value | None:
    """What `parse` gives, None where it raises `ValueError` in a few printable words."""
    try:
        return parse()
    except ValueError as error:
        words = str(error)
    assert words.isprintable(), f"not printable: {words!r}"
    assert 0 < len(words) < 250, f"not a few words: {words!r}"
    return None
