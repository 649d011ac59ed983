"""The part of protobuf's wire format that regular records need; protobuf itself handles everything else."""

Span = tuple[int, int, int]

# One-byte tags of length-delimited fields: (field number << 3) | 2.
FIELD_1 = 0x0A
FIELD_2 = 0x12


class IrregularError(Exception):
    """The bytes do not have the layout that the fast decoder expects; the general decoder decides if they are sound."""


def field_spans(buffer: memoryview, position: int, end: int) -> list[Span]:
    """(tag, start, stop) of each field's content in the message at `buffer[position:end]`.

    Raises `IrregularError` if a field is not length-delimited, has a tag of several bytes or exceeds the message.
    """
    spans = []
    try:
        while position < end:
            tag = buffer[position]
            if tag & 0x87 != 2 or tag == 2:
                raise IrregularError
            length = buffer[position + 1]
            position += 2
            if length & 0x80:
                length &= 0x7F
                shift = 7
                while True:
                    byte = buffer[position]
                    position += 1
                    length |= (byte & 0x7F) << shift
                    if not byte & 0x80:
                        break
                    shift += 7
                    if shift > 28:
                        raise IrregularError
            stop = position + length
            if stop > end:
                raise IrregularError
            spans.append((tag, position, stop))
            position = stop
    except IndexError:
        raise IrregularError from None
    return spans


def map_entry(buffer: memoryview, start: int, stop: int) -> tuple[bytes, int, int]:
    """The key of a map's entry at `buffer[start:stop]`, and start and stop of its value.

    Raises `IrregularError` unless the entry is one key and then one value.
    """
    spans = field_spans(buffer, start, stop)
    if len(spans) != 2:
        raise IrregularError
    (first, key_start, key_stop), (second, value_start, value_stop) = spans
    if first != FIELD_1 or second != FIELD_2:
        raise IrregularError
    return bytes(buffer[key_start:key_stop]), value_start, value_stop


def varint(value: int) -> bytes:
    """Encode a non-negative integer in protobuf's variable length, seven bits per byte."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def field(tag: int, *parts: bytes | memoryview) -> bytes:
    """Encode a length-delimited field whose content is `parts`, joined."""
    return b"".join(field_parts(tag, *parts))


def field_parts(tag: int, *parts: bytes | memoryview) -> list[bytes | memoryview]:
    """The parts of such a field, not joined: a copy for each level of nesting would take many times a long field.

    The parts are bytes, or views of them.
    """
    return [bytes((tag,)) + varint(sum(map(len, parts))), *parts]
