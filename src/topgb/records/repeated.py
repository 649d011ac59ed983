"""Which videos occur more than once in the records that were read: 64 bits of each id are kept, 8 bytes per video."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from unicodedata import normalize

import numpy as np

_AT_ONCE, _LONGEST = 1024, 64
_ODD, _HALF = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)


@dataclass(frozen=True)
class Repeated:
    """Videos that occur more than once.

    videos   their number, each counted once
    id       the id of one of them; None if it could not be read again
    shards   two files that hold it; the same one twice, if it holds both
    """

    videos: int
    id: str | None
    shards: tuple[str, str]

    def sentence(self) -> str:
        """The finding, in words."""
        which = "its id" if self.id is None else f"the id {self.id!r}"
        first, second = self.shards
        where = f"twice in {first}" if first == second else f"in {first} and in {second}"
        if self.videos == 1:
            return f"1 video occurs more than once: {which} stands {where}"
        return f"{self.videos:,} videos occur more than once; of one, {which} stands {where}"


class IdHashes:
    """Hashes of the ids read from each shard, by the shard's number. Ids compare in Unicode's form NFC."""

    def __init__(self) -> None:
        self._parts: dict[int, list[np.ndarray]] = {}
        # Ids that are not hashed yet, and the shard of each batch of them: many at once take a tenth of the time.
        self._shard, self._waiting = -1, list[str]()
        self._batches: list[tuple[int, int]] = []

    def begin(self, shard: int) -> None:
        """Forget what was read of a shard: it is read anew."""
        if shard in self._parts:
            self._hash_waiting()
        self._shard, self._parts[shard] = shard, []

    def add(self, ids: Iterable[str]) -> None:
        """Add ids read from the shard that was begun last."""
        before = len(self._waiting)
        self._waiting += ids
        self._batches.append((self._shard, len(self._waiting) - before))
        if len(self._waiting) >= _AT_ONCE:
            self._hash_waiting()

    def of(self, shard: int) -> np.ndarray:
        """The hashes of a shard's ids: uint64 [N]."""
        self._hash_waiting()
        return np.concatenate([np.zeros(0, np.uint64), *self._parts.get(shard, [])])

    def put(self, shard: int, found: np.ndarray) -> None:
        """Set the hashes of a shard, which another process has read."""
        self._hash_waiting()
        self._parts[shard] = [found]

    def _hash_waiting(self) -> None:
        if self._waiting:
            found, start = hashes(self._waiting), 0
            for shard, count in self._batches:
                self._parts[shard].append(found[start : start + count])
                start += count
        self._waiting, self._batches = [], []

    def repeated(self, paths: Sequence[str], read_ids: Callable[[str], Iterable[str]]) -> Repeated | None:
        """The videos that occur more than once, if any; takes 16 bytes per video meanwhile.

        `paths` are those of the shards, and `read_ids` reads a shard's ids again, to name one.
        """
        self._hash_waiting()
        joined = np.concatenate([np.zeros(0, np.uint64), *(part for parts in self._parts.values() for part in parts)])
        joined.sort()
        again = joined[1:][joined[1:] == joined[:-1]]
        if not len(again):
            return None
        del joined
        videos = 1 + np.count_nonzero(again[1:] != again[:-1])
        shards = [shard for shard in sorted(self._parts) for _ in range(np.count_nonzero(self.of(shard) == again[0]))]
        first, second = (paths[shard] for shard in shards[:2])
        named = next((one for one in read_ids(first) if hashes([one])[0] == again[0]), None)
        return Repeated(int(videos), named, (first, second))


def hashes(ids: Sequence[str]) -> np.ndarray:
    """64 bits of each id, the same in every process: uint64 [N]. Ids of up to 8 bytes never collide."""
    # Nearly all are short and ASCII: for these a call would take as long as everything else.
    encoded = [one.encode() if one.isascii() and len(one) <= _LONGEST else _encoded(one) for one in ids]
    words = -(-max(map(len, encoded), default=1) // 8) or 1
    columns = np.array(encoded, f"S{8 * words}").view("<u8").reshape(len(encoded), words).T
    found = np.zeros(len(encoded), np.uint64)
    for column in columns:
        mixed = (found ^ column) * _ODD
        # Zeros fill up the shorter ids; how many there are depends on the longest.
        found = np.where(column, mixed ^ (mixed >> _HALF), found)
    return found


def _encoded(one: str) -> bytes:
    encoded = (one if one.isascii() else normalize("NFC", one)).encode("utf-8", "surrogateescape")
    # A single long id would make as much room for all others.
    return encoded if len(encoded) <= _LONGEST else blake2b(encoded, digest_size=_LONGEST).digest()
