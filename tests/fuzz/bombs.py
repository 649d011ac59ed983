"""zlib streams of very many zeros, made without holding or packing these."""

import struct
import zlib

_PIECE = 1 << 20


def zlib_bomb(size: int) -> bytes:
    """A stream of `size` zeros, about a thousandth as long, whose checksum is right."""
    packer = zlib.compressobj(9, wbits=-15)
    # Flushed in full, a piece refers to nothing before it and can be repeated.
    piece = packer.compress(bytes(_PIECE)) + packer.flush(zlib.Z_FULL_FLUSH)
    pieces, rest = divmod(size, _PIECE)
    last = zlib.compressobj(9, wbits=-15)
    end = last.compress(bytes(rest)) + last.flush()
    # Adler-32 of zeros: 1, and the sum of as many ones.
    return b"\x78\xda" + piece * pieces + end + struct.pack(">I", size % 65521 << 16 | 1)
