"""Small data sets for the tests of reading."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from topgb.features import Feature, FeatureSpec
from topgb.records.codec import encode_sequence_example
from topgb.records.framing import frame_record


@pytest.fixture
def spec() -> FeatureSpec:
    return FeatureSpec("frame", (Feature("rgb", 6), Feature("audio", 3)))


def video(number: int, frames: int, labels: list[int] | None) -> tuple[dict[str, np.ndarray], bytes]:
    """Features that tell the video and frame apart, and their record."""
    generator = np.random.default_rng(number)
    features = {
        "rgb": generator.integers(0, 256, (frames, 6), np.uint8),
        "audio": generator.integers(0, 256, (frames, 3), np.uint8),
    }
    return features, encode_sequence_example(f"v{number}", features, labels)


@pytest.fixture
def shards(tmp_path: Path) -> Callable[..., str]:
    """Writes shards of the given numbers of videos, of 1 to 7 frames and class `number % 5`, and returns their glob."""

    def write(*counts: int, labelled: bool = True) -> str:
        number = 0
        for shard, count in enumerate(counts):
            records = []
            for _ in range(count):
                records.append(video(number, 1 + number % 7, [number % 5] if labelled else None)[1])
                number += 1
            (tmp_path / f"part{shard:03d}.tfrecord").write_bytes(b"".join(map(frame_record, records)))
        return f"{tmp_path}/part*.tfrecord"

    return write


@pytest.fixture
def damage() -> Callable[[Path, int], None]:
    """Flips one byte of a file, at an offset that may count from the end."""

    def flip(path: Path, offset: int) -> None:
        data = bytearray(path.read_bytes())
        data[offset] ^= 0x40
        path.write_bytes(data)

    return flip
