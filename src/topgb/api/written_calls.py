"""A call of topgb as its user would write it: in Python, or in a shell."""

import shlex
from typing import Any

from topgb.errors import in_python, wording

# Commands that have another name than their call.
_COMMANDS = {"evaluate": "eval"}


def written_call(name: str, arguments: list[Any], *options: str) -> str:
    """A line that calls topgb: of Python, or of a shell where messages name options as flags.

    `arguments` are the positions, texts or lists of them; `options` are written by `topgb.errors.option`.
    """
    if wording() is in_python:
        return f"topgb.{name}({', '.join([*map(repr, arguments), *options])})"
    words = [word for one in arguments for word in (one if isinstance(one, list) else [one])]
    return " ".join(["topgb", _COMMANDS.get(name, name), *map(shlex.quote, words), *options])
