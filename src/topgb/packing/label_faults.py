"""Recognise class names that are really lists of labels, or no names at all: they would become classes of their own."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection

from topgb.errors import option
from topgb.packing.labels import SEPARATOR, holds_bits, is_bracketed, is_quoted, is_vector, split_labels

# Signs that hardly occur in names: one piece that is a class elsewhere shows that a text is a list.
_SEPARATORS = (",", ";", "|", "\t", "\n", "\N{FULLWIDTH COMMA}", "\N{FULLWIDTH SEMICOLON}", "\N{IDEOGRAPHIC COMMA}")
# Signs that occur in no name.
_NEVER_IN_NAMES = {";", "|", "\t", "\n"}
# Signs that do occur in names (AC/DC, hot dog): there must be several pieces, all of them classes.
_WEAK_SEPARATORS = ("/", "+", "&", ":", "\\", "-", "_", " and ", " ")
# Programs and people write these where they have no value.
_MISSING = {"nan", "na", "none", "null", "n/a", "n.a.", "<na>", "nat", "undefined", "#n/a", "-", "--", "?", "."}
# Spreadsheets show these in place of a value.
_MISSING |= {"#ref!", "#value!", "#name?", "#num!", "#null!", "#div/0!", "#error!"}
_NUMBERS = re.compile(r"\d+(?:[\s,|;]+\d+)+")
_FRACTION = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)
# A semicolon that separates labels leaves this of &amp;.
_ENTITY = re.compile(r".*&(?:#\d+|#x[\da-f]+|[a-z]{2,6})", re.IGNORECASE)
_VECTORS = re.compile(r"[01]{3,}")
# An item in quotes beside a bracket, as in array(['cat']) and frozenset({'cat'}). Round brackets occur in names.
_PRINTED_LIST = re.compile(r"[\[{]\s*+['\"]|['\"]\s*+[\]}]|\([\[{]|[\]}]\)")
_BLANKS = re.compile(r"[\s_-]+")
_BETWEEN = "between names"
_QUOTES = {
    "\N{LEFT DOUBLE QUOTATION MARK}",
    "\N{RIGHT DOUBLE QUOTATION MARK}",
    "\N{DOUBLE LOW-9 QUOTATION MARK}",
    "«",
    "»",
}
_WRITE_NAMES = "write the names of the classes that the video shows, with ; between them"
_VECTOR = f"looks like a 0/1 vector; {_WRITE_NAMES}"


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
    items = re.split(r"[\s,;|]+", name.strip("[](){} "))
    if is_vector(items):
        return _VECTOR if holds_bits(items) else f"repeats a number, as vectors of counts or scores do; {_WRITE_NAMES}"
    if (wrong := _text_fault(name)) is not None:
        return wrong
    if is_bracketed(name):
        items = [name] if separator == "," else [*split_labels(name, ",")]
        if not any(is_bracketed(item) or _NUMBERS.fullmatch(item) for item in items):
            return f"looks like a list; {option('separator', ',')} reads lists such as [0, 1] or ['cat', 'dog']"
        return f"looks like a list, but not one that can be read; leave the brackets out, and put ';' {_BETWEEN}"
    if _PRINTED_LIST.search(name) or any(name.count(one) != name.count(other) for one, other in ("[]", "{}")):
        return f"looks like a part of a list as a program prints it; write its names, with ';' {_BETWEEN}"
    ends = {name[0], name[-1]}
    if is_quoted(name) or ('"' in ends and name.count('"') % 2) or ends & _QUOTES:
        return f"has quotes of its own; leave them out, and put {separator or SEPARATOR!r} {_BETWEEN}"
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


def _text_fault(name: str) -> str | None:
    """The fault of a name whose text came through a wrong encoding, or holds control characters."""
    if "\N{REPLACEMENT CHARACTER}" in name:
        return "was read in a wrong encoding before, which lost a letter; save the labels in UTF-8 once more"
    try:
        # Windows reads each byte of UTF-8 as a letter.
        meant = "" if name.isascii() else name.encode("cp1252").decode()
    except UnicodeError:
        meant = ""
    if meant:
        return f"is {meant[:80]!r} read in a wrong encoding; save the labels in UTF-8 once more"
    if any(unicodedata.category(sign) == "Cc" and sign not in _SEPARATORS for sign in name.replace("\r\n", "\n")):
        return f"holds a control character; write each name in one line, with ';' {_BETWEEN}"
    return None


def _alike(names: Collection[str]) -> dict[str, str]:
    """The fault of each name that differs from another in what hardly distinguishes two classes (`_shape`)."""
    first: dict[str, str] = {}
    found = {}
    for name in sorted(names):
        other = first.setdefault(_shape(name), name)
        if other != name:
            how = "case, width, blanks, hyphens or invisible characters"
            if name.isdecimal():
                how = "the zeros before a number"
            for one, its in ((name, other), (other, name)):
                found[one] = f"differs from {its!a} in {how} alone; write them alike"
    return found


def _shape(name: str) -> str:
    """A name without case, width, invisible characters, kinds of blanks, and zeros before a number."""
    # NFKC makes full-width letters those of other text.
    visible = unicodedata.normalize("NFKC", "".join(c for c in name if unicodedata.category(c) != "Cf")).casefold()
    return visible.lstrip("0") if visible.isdecimal() else _BLANKS.sub(" ", visible)


def _separator_fault(name: str, names: set[str], pieces: Counter[str]) -> str | None:
    """The fault of a name that holds several names, with a sign between them."""
    for sign in (*_SEPARATORS, *_WEAK_SEPARATORS):
        parts = _pieces(name, sign)
        classes = [part in names for part in parts]
        if sign in _WEAK_SEPARATORS:
            several = len(parts) > 1 and all(classes)
        else:
            several = (
                sign in {*_NEVER_IN_NAMES, name[0], name[-1]} or any(classes) or all(pieces[part] > 1 for part in parts)
            )
        if sign in name and parts - {name} and several:
            return f"looks like several names; {option('separator', sign)} takes them apart"
    return None


def _pieces(name: str, sign: str) -> set[str]:
    return {piece.strip() for piece in name.split(sign) if piece.strip()}
