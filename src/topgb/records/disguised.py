"""Recognise byte features whose bytes are not one number each: text, the bytes of floats, arrays in a file format.

Such features can be read, but every value is wrong.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from topgb.errors import InputError

if TYPE_CHECKING:
    from topgb.records.dataset import Dataset

# The most bytes of a feature to look at, and the fewest numbers from which floats can be recognised.
MOST_BYTES, LEAST_NUMBERS = 1 << 16, 32
WRITE_FLOATS = "write the values as a float list"
# The videos of a data set to look at, and the frames of each.
_VIDEOS, _FRAMES = 32, 4
# The fewest numbers in a value: the bytes of fewer could look alike by chance.
_LEAST_WIDTH = 4
# Letters, digits and the signs of words, URLs and base64; bytes of numbers hardly keep to these.
_TEXT = re.compile(rb"[\w+/=:.?&%,' -]{4,}\0*")
# Fewer bytes than these may be such by chance.
_LEAST_TEXT = 32
_FORMATS = (
    (b"\x93NUMPY", "a NumPy file (.npy)"),
    (b"\x08\x01\x12", "a serialised tensor of TensorFlow"),
    (b"PK\x03\x04", "an archive (.npz)"),
    *((b"\x80" + bytes((version,)), "a pickle") for version in range(2, 6)),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
)
# The last byte of a float holds its sign and most of its exponent, which embeddings have in this range.
_EXPONENTS = (("float32", 4, 0x30, 0x4E), ("float64", 8, 0x3C, 0x42), ("float16", 2, 0x18, 0x48))


def disguise_of(values: Sequence[bytes]) -> str | None:
    """The true kind of a feature's values, all of one width, in words; None if each byte may be a number."""
    values = [value for value in values if value]
    if not values:
        return None
    for magic, name in _FORMATS:
        # One value in millions may begin like this by chance.
        if len(values) > 2 and all(value.startswith(magic) for value in values):
            return f"each value is {name}"
    width, joined = len(values[0]), np.frombuffer(b"".join(values), np.uint8)
    for name, size, low, high in _EXPONENTS:
        if width % size == 0 and width >= _LEAST_WIDTH * size and _is_float(joined.reshape(-1, size), low, high):
            return f"these are the bytes of floats, such as {name}"
    return None


def _is_float(numbers: np.ndarray, low: int, high: int) -> bool:
    """Whether uint8 [N, size] look like floats: exponents lie close together, and the other bytes elsewhere."""
    numbers = numbers[numbers.any(1)]
    if len(numbers) < LEAST_NUMBERS:
        return False
    inside = [float(np.mean((part & 0x7F >= low) & (part & 0x7F <= high))) for part in (numbers[:, -1], numbers[:, 0])]
    return inside[0] > 0.97 and inside[1] < 0.6


def check_bytes(dataset: "Dataset") -> None:
    """Raise `InputError` if a feature of bytes holds something else in a sample of the records of one shard."""
    spec = dataset.spec
    own = [feature.name for feature in spec.features if feature.dtype == "uint8"]
    if not own:
        return
    # The first shard stays open, and unpacked, for what is read next. Its records are counted, not rows of segments.
    shard, records = next((number, found[1]) for number, found in enumerate(dataset.fingerprint()) if found[1])
    keys = [(shard, number) for number in range(0, records, -(-records // _VIDEOS))]
    videos = []
    for key in keys:
        # One by one, because some may have labels and others none, which is not for this check to say. Nothing is kept
        # of the labels, which may take a gigabyte a video.
        batch, _ = dataset.read_sampled([key], lambda place, frames: np.arange(min(frames, _FRAMES)), _FRAMES)
        videos += [row[:frames] for row, frames in zip(batch.features, batch.num_frames.tolist(), strict=True)]
    for name in own:
        rows = [row.tobytes() for video in videos for row in video[:, spec.columns(name)].byte().numpy()]
        where = f"feature {name!r} of {dataset.shards[shard].path}"
        joined = b"".join(rows)
        if len(joined) >= _LEAST_TEXT and len(set(joined)) > 1 and all(map(_TEXT.fullmatch, rows)):
            raise InputError(f"{where} holds text, such as {rows[0][:30]!r}; name features of numbers")
        disguise = disguise_of(rows[:: max(1, len(joined) // MOST_BYTES)])
        if disguise:
            raise InputError(f"{where} holds bytes, but {disguise}; {WRITE_FLOATS}")
