"""Checksums of bytes and files: TFRecord's and TensorFlow's masked CRC, and SHA-256."""

import hashlib
import os

from crc32c import crc32c

from topgb.files import open_input

MASK_DELTA = 0xA282EAD8


def masked_crc(data: bytes | memoryview) -> int:
    """CRC-32C of `data`, rotated and offset as TFRecord files and TensorFlow's checkpoints store it."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF


def file_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file in hexadecimal, by which a model file names its parents."""
    with open_input(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
