"""Chosen edits of a sound model file, which leave the rest of it sound: what random bytes never reach."""

import copy
import json
import math
from typing import Any

from fuzz.choices import HOSTILE, Choices
from fuzz.modelfile_bases import ENCODINGS, Base, Stored, joined

ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1, "I32": 4, "F64": 8, "BOOL": 1, "F8_E4M3": 1, "I64": 8}
MOST_EDITS = 8
# Tensors that an edit makes larger than this keep the bytes they had, which then disagree with the shape.
_MOST_MADE = 1 << 14
_MOST_PLACES = 4000
_WORDS = [
    *(None, True, "", "a.b", "\x1b\n", [], {}, 0, -1, 1.5, 1e30, 1e39, "keys", "type", "training", [1, 1], [0, 3]),
    *ENCODINGS,
    *("video", "uint8", "float32", "none", "lstm", "moe", "mlp", "neighbours", "rgb", "extra"),
    *(3 * 10**7, 10**12, 10**30, -(2**63)),
]


def edited(base: Base, choices: Choices, bombs: list[bytes]) -> tuple[bytes, bytes]:
    """Header and data of the base after the chosen edits; `bombs` are zlib streams to put in place of codes."""
    header, tensors = json.loads(base.header), dict(base.tensors)
    for _ in range(1 + choices.number() % MOST_EDITS):
        kind = choices.number() % 10
        if kind < 5:
            _edit_header(header, choices)
        elif kind == 9:
            _resize_entry(header, tensors, choices)
        elif tensors:
            name = choices.pick(list(tensors))
            _edit_tensor(tensors, name, kind, choices, bombs)
        if not choices:
            break
    return joined(json.dumps(header), tensors)


def _edit_header(header: Any, choices: Choices) -> None:
    places = _places(header)
    if not places:
        return
    *parents, last = choices.pick(places)
    holder = header
    for key in parents:
        holder = holder[key]
    # Doubled again and again, it would be the edits that take the memory.
    change = choices.number() % 8 if len(places) < _MOST_PLACES else 0
    if change == 0:
        del holder[last]
    elif change == 1 and isinstance(holder, dict):
        holder[choices.take(4).decode("latin-1")] = copy.deepcopy(holder[last])
    elif change == 2 and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[last]))
    elif change == 3:
        holder[last] = [choices.size() for _ in range(choices.number() % 5)]
    elif change == 4:
        holder[last] = choices.size()
    else:
        holder[last] = copy.deepcopy(choices.pick(_WORDS))


def _places(value: Any) -> list[tuple]:
    """The keys to everything inside a JSON value, containers themselves too."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, part in items for place in [(key,), *((key, *rest) for rest in _places(part))]]


def _edit_tensor(tensors: dict[str, Stored], name: str, kind: int, choices: Choices, bombs: list[bytes]) -> None:
    stored = tensors[name]
    if kind == 5:
        shape = [choices.size() for _ in range(choices.number() % 4)]
        tensors[name] = _fitted(stored.dtype, shape, stored.data)
    elif kind == 6:
        tensors[name] = _fitted(choices.pick(list(ITEM_BYTES)), stored.shape, stored.data)
    elif kind == 7:
        data, start = bytearray(stored.data), choices.number(2) % (len(stored.data) + 1)
        written = choices.blob()
        data[start : start + len(written)] = written
        tensors[name] = Stored(stored.dtype, stored.shape, bytes(data[: len(stored.data)]))
    elif choices.number() % 4 == 0:
        del tensors[name]
    else:
        bomb = choices.pick(bombs)
        tensors[name] = Stored("U8", [len(bomb)], bomb)


def _resize_entry(header: Any, tensors: dict[str, Stored], choices: Choices) -> None:
    """Give a tensor another shape, in the header and in those of its parts that have the same one."""
    entries = header.get("tensors") if isinstance(header, dict) else None
    if not isinstance(entries, dict) or not entries:
        return
    name = choices.pick(list(entries))
    entry = entries[name]
    if not isinstance(entry, dict) or not isinstance(entry.get("shape"), list):
        return
    shape = [choices.size() for _ in range(choices.number() % 5)]
    if choices.number() & 1:
        shape = [0, *shape, choices.pick(HOSTILE)]
    rows = 1 if len(shape) < 2 else shape[0]
    # A copy: further edits of the header leave the parts alone.
    entry["shape"] = list(shape)
    for suffix in ("", ".codes", ".scales"):
        stored = tensors.get(name + suffix)
        if stored is not None and (suffix != ".codes" or len(stored.shape) != 1):
            tensors[name + suffix] = _fitted(stored.dtype, [rows] if suffix == ".scales" else shape, stored.data)


def _fitted(dtype: str, shape: list[int], data: bytes) -> Stored:
    """A tensor of that shape, its bytes those given over and over, if it is small."""
    size = math.prod(shape) * ITEM_BYTES[dtype]
    if not 0 <= size <= _MOST_MADE:
        return Stored(dtype, shape, data)
    return Stored(dtype, shape, ((data or b"\0") * (size // max(1, len(data)) + 1))[:size])
