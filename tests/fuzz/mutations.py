"""Seeded changes of sound inputs, for where no coverage-guided fuzzer is at hand."""

import random
import struct
from collections.abc import Sequence

from fuzz.choices import HOSTILE


def mutated(generator: random.Random, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """One of the seeds after one to four changes: flips, cuts, splices, repeats, tokens, hostile lengths."""
    data = bytearray(generator.choice(seeds))
    for _ in range(generator.randint(1, 4)):
        start = generator.randint(0, len(data))
        stop = min(len(data), start + generator.choice((0, 1, 2, 4, 8, 30)))
        match generator.randint(0, 6):
            case 0:
                for position in range(start, stop):
                    data[position] ^= 1 << generator.randint(0, 7)
            case 1:
                del data[start:stop]
            case 2:
                del data[start:]
            case 3:
                other = generator.choice(seeds)
                cut = generator.randint(0, len(other))
                data[start:stop] = other[cut : cut + generator.randint(0, 60)]
            case 4:
                data[start:start] = data[start:stop] * generator.randint(1, 8)
            case 5 if tokens:
                data[start:stop] = generator.choice(tokens)
            case _:
                data[start : start + generator.choice((0, 1, 8))] = hostile_number(generator)
    return bytes(data)


def hostile_number(generator: random.Random) -> bytes:
    """A number where lengths go wrong, as 32 or 64 bits, of variable length, or as text."""
    number = generator.choice(HOSTILE)
    kind = generator.randint(0, 3)
    if kind == 0:
        return struct.pack("<Q", number)
    if kind == 1:
        return struct.pack("<I", number & 0xFFFFFFFF)
    if kind == 2:
        return str(number).encode()
    return varint(number)


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
