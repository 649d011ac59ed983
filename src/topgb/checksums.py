"""The checksum of TFRecord files and of TensorFlow's checkpoints."""

from crc32c import crc32c

MASK_DELTA = 0xA282EAD8


def masked_crc(data: bytes | memoryview) -> int:
    """CRC-32C of `data`, rotated and offset as TFRecord files and TensorFlow's checkpoints store it."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF
