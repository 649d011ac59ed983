"""The identity of an extractor: everything that its features depend on, as JSON, and the hash of it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical_json(identity: Mapping[str, Any]) -> str:
    """`identity` as JSON that is the same for equal values: sorted keys, no spaces, ASCII."""
    return json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_of(identity: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(identity).encode()).hexdigest()


def differences(one: Mapping[str, Any], other: Mapping[str, Any], where: str = "") -> list[str]:
    """The dotted keys at which two identities differ, sorted."""
    found = []
    for key in sorted({*one, *other}):
        a, b, place = one.get(key), other.get(key), f"{where}{key}"
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{place}.")
        elif a != b or (a is True) != (b is True):
            found.append(place)
    return found
