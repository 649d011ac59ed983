"""How the command line names the options of the Python API: the one place that maps them to flags."""

from collections.abc import Mapping
from typing import Any

from topgb.errors import printable

_FOR_SHELLS = set(" ;|&\\")


def flag(name: str) -> str:
    """The flag of the option `name`: `--top-k` for `top_k`, `--for` for `for_`, as Python reserves the word."""
    return f"--{name.rstrip('_').replace('_', '-')}"


def in_flags(name: str, value: Any = None) -> str:
    """An option as the command line writes it; a wording for `topgb.errors.set_wording`.

    A value of True is the flag alone. A list or a mapping repeats the flag for each entry; a tuple is joined by commas.
    """
    if value is None or value is True:
        return flag(name)
    if isinstance(value, Mapping):
        between = ":" if name == "range" else "="
        value = [f"{key}{between}{_text(entry)}" for key, entry in value.items()]
    entries = value if isinstance(value, list) else [value]
    return " ".join(f"{flag(name)} {_text(entry)}" for entry in entries)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    if isinstance(value, float):
        return f"{value:.10g}"
    text = printable(str(value))
    # Quote what a shell would not hand on, as in `--separator '|'`.
    return f"'{text}'" if set(text) & _FOR_SHELLS else text
