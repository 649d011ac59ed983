"""Lists of ids and names for a sentence, cut to a bounded length."""

from collections.abc import Iterable
from itertools import islice

_MOST = 20
_LONGEST = 80


def quoted_list(names: Iterable[str]) -> str:
    """The first of the `names` in quotes, with commas between, and how many more there are."""
    every = iter(names)
    shown = [repr(name if len(name) <= _LONGEST else name[:_LONGEST] + "…") for name in islice(every, _MOST)]
    more = sum(1 for _ in every)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")
