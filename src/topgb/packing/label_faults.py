"""Recognise class names that are really lists of labels, or no names at all: they would become classes of their own."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection

from topgb.errors import option
from topgb.packing.labels import SEPARATOR, is_bracketed, is_quoted, is_vector

# Signs that hardly occur in names: one piece that is a class elsewhere shows that a text is a list.
_SEPARATORS = (",", ";", "|", "\t", "\n", "\N{FULLWIDTH COMMA}", "\N{FULLWIDTH SEMICOLON}", "\N{IDEOGRAPHIC COMMA}")
# Signs that do occur in names (AC/DC, hot dog): there must be several pieces, all of them classes.
_WEAK_SEPARATORS = ("/", "+", "&", ":", "\\", "-", "_", " and ", " ")
# Programs and people write these where they have no value.
_MISSING = {"nan", "na", "none", "null", "n/a", "n.a.", "<na>", "nat", "undefined", "#n/a", "-", "--", "?", "."}
_NUMBERS = re.compile(r"\d+(?:[\s,|;]+\d+)+")
_FRACTION = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)
# A semicolon that separates labels leaves this of &amp;.
_ENTITY = re.compile(r".*&(?:#\d+|#x[\da-f]+|[a-z]{2,6})", re.IGNORECASE)
_VECTORS = re.compile(r"[01]{3,}")
_QUOTES = {
    "\N{LEFT DOUBLE QUOTATION MARK}",
    "\N{RIGHT DOUBLE QUOTATION MARK}",
    "\N{DOUBLE LOW-9 QUOTATION MARK}",
    "«",
    "»",
}
_VECTOR = "looks like a 0/1 vector; write the names of the classes that the video shows, with ; between them"


def find_fault(names: Collection[str], suspects: Collection[str], separator: str | None) -> tuple[str, str] | None:
    """The first of `suspects`, sorted, that is a list rather than a name, with the words that say so; None if none is.

    `names` are the names of all classes, the suspects among them; `separator` is the one that was given.
    """
    pieces = Counter(piece for name in names for sign in _SEPARATORS if sign in name for piece in _pieces(name, sign))
    pieces.update(names)
    known = set(names)
    alike = _alike(names)
    digits = len(known) > 1 and len({len(name) for name in known}) == 1 and all(map(_VECTORS.fullmatch, known))
    for name in sorted(suspects):
        fault = _form_fault(name, separator) or _separator_fault(name, known, pieces) or alike.get(name)
        if digits:
            fault = _VECTOR
        if fault is not None:
            return name, fault
    return None


def _form_fault(name: str, separator: str | None) -> str | None:
    """The fault of a name that can be seen without the other names."""
    if is_vector(re.split(r"[\s,;|]+", name.strip("[](){} "))):
        return _VECTOR
    if is_bracketed(name):
        if separator == ",":
            return "looks like a list, but not one that can be read; leave the brackets out"
        return f"looks like a list; {option('separator', ',')} reads lists such as [0, 1] or ['cat', 'dog']"
    ends = {name[0], name[-1]}
    if is_quoted(name) or ('"' in ends and name.count('"') % 2) or ends & _QUOTES:
        return f"has quotes of its own; leave them out, and put {separator or SEPARATOR!r} between names"
    if name.casefold() in _MISSING:
        return "looks like a missing value; leave the cell empty, or its row out"
    if _FRACTION.fullmatch(name):
        return "is a number with a fraction, not a name; write the class's name, or its number without a point"
    before, _, behind = name.replace("=", ":").rpartition(":")
    if any(map(str.isalpha, before)) and _FRACTION.fullmatch(behind.strip()):
        return "looks like a name with a score; write the name alone"
    if _ENTITY.fullmatch(name):
        return "ends like a sign of HTML (&amp;), whose semicolon ends the name; write the sign itself"
    if not _NUMBERS.fullmatch(name):
        return None
    sign = next((sign for sign in _SEPARATORS if sign in name), " ")
    return f"looks like several numbers; {option('separator', sign)} takes them apart"


def _alike(names: Collection[str]) -> dict[str, str]:
    """The fault of each name that differs from another in case, width or invisible characters alone."""
    first: dict[str, str] = {}
    found = {}
    for name in sorted(names):
        # NFKC makes full-width letters those of other text.
        visible = unicodedata.normalize("NFKC", "".join(c for c in name if unicodedata.category(c) != "Cf")).casefold()
        other = first.setdefault(visible, name)
        if other != name:
            for one, its in ((name, other), (other, name)):
                found[one] = f"differs from {its!a} in case, width or invisible characters alone; write them alike"
    return found


def _separator_fault(name: str, names: set[str], pieces: Counter[str]) -> str | None:
    """The fault of a name that holds several names, with a sign between them."""
    for sign in (*_SEPARATORS, *_WEAK_SEPARATORS):
        parts = _pieces(name, sign)
        classes = [part in names for part in parts]
        if sign in _WEAK_SEPARATORS:
            several = len(parts) > 1 and all(classes)
        else:
            several = sign == "|" or any(classes) or all(pieces[part] > 1 for part in parts)
        if sign in name and parts - {name} and several:
            return f"looks like several names; {option('separator', sign)} takes them apart"
    return None


def _pieces(name: str, sign: str) -> set[str]:
    return {piece.strip() for piece in name.split(sign) if piece.strip()}
