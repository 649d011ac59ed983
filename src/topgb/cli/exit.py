"""How the program ends where something went wrong: a line, and an exit code."""

import sys
from typing import NoReturn

from topgb.progress import end_shown


def end(words: str, code: int) -> NoReturn:
    """Say `words` below whatever is on the terminal, and end the program."""
    end_shown()
    print(f"topgb: {words}", file=sys.stderr)
    sys.exit(code)
