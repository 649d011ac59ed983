"""Recognise class names that are really lists of labels, or no names at all: they would become classes of their own."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection

from topgb.errors import option
from topgb.packing.labels import SEPARATOR, is_bracketed, is_quoted

# Signs that hardly occur in names: one piece that is a class elsewhere shows that a text is a list.
_SEPARATORS = (",", ";", "|", "\t", "\n", "\N{FULLWIDTH COMMA}", "\N{FULLWIDTH SEMICOLON}", "\N{IDEOGRAPHIC COMMA}")
# Signs that do occur in names (AC/DC, hot dog): all pieces must be classes.
_WEAK_SEPARATORS = ("/", "+", "&", " ")
# Programs write these where they have no value.
_MISSING = {"nan", "none", "null", "n/a", "<na>", "nat", "undefined", "#n/a"}
_NUMBERS = re.compile(r"\d+(?:[\s,|;]+\d+)+")


def find_fault(names: Collection[str], suspects: Collection[str], separator: str | None) -> tuple[str, str] | None:
    """The first of `suspects`, sorted, that is a list rather than a name, with the words that say so; None if none is.

    `names` are the names of all classes, the suspects among them; `separator` is the one that was given.
    """
    pieces = Counter(piece for name in names for sign in _SEPARATORS if sign in name for piece in _pieces(name, sign))
    pieces.update(names)
    known = set(names)
    alike = _alike(names)
    for name in sorted(suspects):
        fault = _form_fault(name, separator) or _separator_fault(name, known, pieces) or alike.get(name)
        if fault is not None:
            return name, fault
    return None


def _form_fault(name: str, separator: str | None) -> str | None:
    """The fault of a name that can be seen without the other names."""
    if is_bracketed(name):
        if separator == ",":
            return "looks like a list, but not one that can be read; leave the brackets out"
        return f"looks like a list; {option('separator', ',')} reads lists such as [0, 1] or ['cat', 'dog']"
    if is_quoted(name) or ('"' in (name[0], name[-1]) and name.count('"') % 2):
        return f"has quotes of its own; leave them out, and put {separator or SEPARATOR!r} between names"
    if name.casefold() in _MISSING:
        return "looks like a missing value; leave the cell empty, or its row out"
    if not _NUMBERS.fullmatch(name):
        return None
    sign = next((sign for sign in _SEPARATORS if sign in name), " ")
    return f"looks like several numbers; {option('separator', sign)} takes them apart"


def _alike(names: Collection[str]) -> dict[str, str]:
    """The fault of each name that differs from another in case or in invisible characters alone."""
    first: dict[str, str] = {}
    found = {}
    for name in sorted(names):
        visible = "".join(c for c in name if unicodedata.category(c) != "Cf").casefold()
        other = first.setdefault(visible, name)
        if other != name:
            for one, its in ((name, other), (other, name)):
                found[one] = f"differs from {its!a} in case or invisible characters alone; write them alike"
    return found


def _separator_fault(name: str, names: set[str], pieces: Counter[str]) -> str | None:
    """The fault of a name that holds several names, with a sign between them."""
    for sign in (*_SEPARATORS, *_WEAK_SEPARATORS):
        parts = _pieces(name, sign)
        classes = [part in names for part in parts]
        if sign in _WEAK_SEPARATORS:
            several = all(classes)
        else:
            several = sign == "|" or any(classes) or all(pieces[part] > 1 for part in parts)
        if sign in name and parts - {name} and several:
            return f"looks like several names; {option('separator', sign)} takes them apart"
    return None


def _pieces(name: str, sign: str) -> set[str]:
    return {piece.strip() for piece in name.split(sign) if piece.strip()}
