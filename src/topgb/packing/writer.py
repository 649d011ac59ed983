"""Write the shards of a packed set, and find those of an earlier set in the folder."""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from topgb.file_sets import NewFiles
from topgb.records.framing import write_record

TRAIN, VALIDATE = "train", "validate"
_SHARD = re.compile(rf"({TRAIN}|{VALIDATE})\d{{4,}}\.tfrecord")


def earlier_shards(folder: Path) -> list[Path]:
    """The shards of an earlier set in `folder`, in name order."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _SHARD.fullmatch(path.name))


@contextmanager
def shard_writer(files: NewFiles, prefix: str, videos_per_shard: int) -> Iterator[Callable[[bytes], None]]:
    """A function that appends records to PREFIX0000.tfrecord, PREFIX0001.tfrecord, …, `videos_per_shard` to each.

    Raises `TopgbError` if a file cannot be written.
    """
    written = 0
    shard: BinaryIO
    with ExitStack() as stack:

        def write(payload: bytes) -> None:
            nonlocal written, shard
            if written % videos_per_shard == 0:
                stack.close()
                shard = stack.enter_context(files.open(f"{prefix}{written // videos_per_shard:04d}.tfrecord"))
            write_record(shard, payload)
            written += 1

        yield write


def in_validation(video_id: str, share: float | None) -> bool:
    """Whether a video is in the `share` to validate on; its id's hash decides, whatever other videos there are."""
    if share is None:
        return False
    digest = hashlib.sha256(video_id.encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64
