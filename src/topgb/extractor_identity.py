"""Which extractor made features: the JSON that a data set and a model file keep of it, and how two are compared."""

import hashlib
import json
from typing import Any

from topgb.errors import InputError

Identity = dict[str, Any]
# Digits of the hash that messages show, enough to tell two extractors apart.
SHOWN_DIGITS = 8
MOST_SHOWN = 70
ABSENT = "absent"


def check_identity(value: Any) -> Identity:
    """`value` as an identity. Raises `InputError` unless it is a mapping of JSON values that is not empty."""
    if not isinstance(value, dict) or not value:
        raise InputError("'extractor' is not a mapping that describes an extractor")
    try:
        text = canonical(value)
    except (TypeError, ValueError, RecursionError):
        raise InputError("'extractor' holds what is not JSON: text, finite numbers, lists and mappings") from None
    if json.loads(text) != value:
        raise InputError("'extractor' has a key that is not text")
    return value


def canonical(identity: Identity) -> str:
    """The identity as JSON text with sorted keys and no spaces, the same text for equal identities."""
    return json.dumps(identity, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def digest(identity: Identity) -> str:
    """SHA-256 of the canonical JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical(identity).encode()).hexdigest()


def shown(identity: Identity) -> str:
    """An extractor's name in messages: the one it gives itself, and the first digits of its hash."""
    name = identity.get("name")
    digits = digest(identity)[:SHOWN_DIGITS]
    return f"{name} ({digits})" if isinstance(name, str) and name else digits


def difference(one: Identity, other: Identity) -> str | None:
    """The first thing in which two identities differ, in words, such as "image.filter is 'linear', not 'area'"."""
    if canonical(one) == canonical(other):
        return None
    ours, theirs = _flat(one), _flat(other)
    # Names come last: other keys say what differs, names only that something does.
    keys = sorted(ours.keys() | theirs.keys(), key=lambda key: (key == "name", key))
    key = next(key for key in keys if ours.get(key, ABSENT) != theirs.get(key, ABSENT))
    return f"{key} is {ours.get(key, ABSENT)}, not {theirs.get(key, ABSENT)}"


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """Each value as it is shown, by its dotted path; as text, because 1, 1.0 and true are equal in Python."""
    if not isinstance(value, dict | list) or not value:
        return {path: _short(repr(value))}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {
        place: text
        for key, inner in items
        for place, text in _flat(inner, f"{path}.{key}" if path else str(key)).items()
    }


def _short(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 1] + "…"
