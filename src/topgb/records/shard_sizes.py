"""The size of a shard, and how many of its videos are too long."""

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from crc32c import crc32c

from topgb.records.codec import count_frames
from topgb.records.framing import ShardSize, measure
from topgb.records.layout import Layout
from topgb.records.sampling import Cut
from topgb.records.shards import OpenShard, Shard

# Nothing is kept of data sets with fewer shards or bytes: walking them takes hardly longer than reading what was kept.
LEAST_SHARDS, LEAST_BYTES = 64, 256 << 20


class MeasuredShard(NamedTuple):
    """A shard's size, and its videos with more frames than are looked at."""

    size: ShardSize
    cut: Cut


class ShardMeasure:
    """Measures shards of records of `layout`, of whose videos at most `max_frames` frames are looked at.

    key  a number for the layout's features: the same for those that have the same names and sizes
    """

    def __init__(self, layout: Layout, max_frames: int):
        self.layout, self.max_frames = layout, max_frames
        # Only frame-level records can be cut.
        self._frame_bytes = layout.frame_bytes if layout.spec.level == "frame" else None
        strides = sorted((key, feature.stride) for key, feature in layout.by_key.items())
        self.key = crc32c(repr(strides).encode())

    def __call__(self, opened: OpenShard) -> MeasuredShard:
        """Measure an open shard."""
        cut, size = Cut(self.max_frames), measure(opened.buffer, opened.index)
        if self.may_cut(size.longest):
            assert self._frame_bytes is not None
            # Few records can be too long by their bytes: only these are looked at.
            for record in np.flatnonzero(opened.index.lengths // self._frame_bytes > self.max_frames).tolist():
                cut.add(count_frames(opened.data(record), self.layout))
        return MeasuredShard(size, cut)

    def may_cut(self, longest: int) -> bool:
        """Whether a record of `longest` bytes can hold more than `max_frames` frames."""
        return self._frame_bytes is not None and longest // self._frame_bytes > self.max_frames

    def frames_within(self, record_bytes: int) -> int:
        """An upper bound on the frames that a record of `record_bytes` bytes gives to a batch."""
        if self._frame_bytes is None:
            return 1
        return max(1, min(self.max_frames, record_bytes // self._frame_bytes))


def is_large(shards: Sequence[Shard]) -> bool:
    """Whether it pays to keep what is found in `shards`."""
    if len(shards) >= LEAST_SHARDS:
        return True
    size = 0
    for shard in shards:
        # The file is opened later, and that tells why it cannot be read.
        with suppress(OSError):
            size += 0 if shard.remote else os.stat(shard.path).st_size
    return size >= LEAST_BYTES
