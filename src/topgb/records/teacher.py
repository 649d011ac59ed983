"""A teacher's scores for a data set, looked up by video id, in the folder that `topgb distill` fills."""

import json
import reprlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal
from unicodedata import normalize

import numpy as np
import torch

from topgb.errors import InputError, option
from topgb.files import atomic_write, refuse_unfinished
from topgb.json_reading import read_json
from topgb.records.teacher_scores import read_scores
from topgb.vocabulary import names_digest

DESCRIPTION_FILE = "teacher.json"
VERSION = 1
ScoreFormat = Literal["safetensors", "tfrecord"]


@dataclass(frozen=True)
class TeacherDescription:
    """The origin of a folder's scores: two folders with equal descriptions hold the same scores.

    model     the teacher as JSON values (hash of its file, how it ran)
    records   the data set's fingerprint
    classes   V
    top_k     number of classes kept for each video, None for all
    format    `safetensors` files beside the records, or copies of the records in TFRecord files with the scores inside
    names     hash of the names of the teacher's classes (`names_digest`), None if it has none
    """

    model: dict[str, Any]
    records: list[list]
    classes: int
    top_k: int | None
    format: ScoreFormat
    names: str | None = None

    def write(self, folder: Path) -> None:
        """Write `teacher.json`. Raises `TopgbError` if that fails."""
        with atomic_write(folder / DESCRIPTION_FILE) as file:
            file.write(json.dumps({"version": VERSION, **asdict(self)}, indent=1).encode())

    def differs_from(self, other: "TeacherDescription") -> str | None:
        """The first difference from `other` in words, or None if the descriptions are equal."""
        words = {
            "model": "another teacher",
            "records": "other records",
            "classes": "other classes",
            "top_k": "another number of classes",
            "format": "another format",
        }
        # Compare as JSON, which turns tuples into lists.
        ours, theirs = (json.loads(json.dumps(asdict(one))) for one in (self, other))
        return next((word for key, word in words.items() if ours[key] != theirs[key]), None)

    @classmethod
    def read(cls, folder: Path) -> "TeacherDescription":
        """Read the description in `folder`. Raises `InputError` if there is none or it makes no sense."""
        path = folder / DESCRIPTION_FILE
        try:
            value = read_json(path)
            version = value.pop("version")
            if version != VERSION:
                raise InputError(
                    f"{path} is of another version of topgb ({reprlib.repr(version)}); upgrade topgb, or run topgb "
                    "distill anew, into another folder"
                )
            description = cls(**value)
            sound = (
                isinstance(description.model, dict)
                and type(description.classes) is int
                and (description.top_k is None or type(description.top_k) is int)
                and (description.names is None or isinstance(description.names, str))
                and all(isinstance(row[0], str) and "/" not in row[0] for row in description.records)
            )
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(
                f"{folder} holds no {DESCRIPTION_FILE}; name a folder that topgb distill has filled"
            ) from None
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; check its permissions") from error
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            sound = False
        if not sound:
            raise InputError(f"{path} is not as topgb distill wrote it; run topgb distill anew, into another folder")
        return description


def scores_path(folder: Path, shard_name: str) -> Path:
    """The file that holds the scores of the shard with this name."""
    return folder / f"{shard_name}.safetensors"


class Teacher:
    """A teacher's probabilities for the videos of a data set.

    description   the origin of the scores
    folder        the folder that holds them

    A teacher can be pickled; the process that receives it reads the folder again. Raises `InputError` if the folder is
    incomplete or damaged, holds scores that are not probabilities, or has scores for two videos of the same id. All
    scores are read for that, unless they were `checked` before.
    """

    def __init__(self, folder: Path, checked: bool = False):
        self.folder = folder
        refuse_unfinished(folder)
        self.description = TeacherDescription.read(folder)
        if self.description.format != "safetensors":
            raise InputError(
                f"{folder} holds records with the scores inside; train on these records with "
                f"{option('teacher', 'records')}"
            )
        names = [row[0] for row in self.description.records]
        paths = [scores_path(folder, name) for name in names]
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise InputError(
                f"{folder} lacks the scores of {len(missing)} of {len(paths)} shards ({missing[0].name} the first); "
                "run the same topgb distill again, which goes on where it was"
            )
        self._shards = [read_scores(path, self.classes, self.description.top_k, checked) for path in paths]
        self._covered = {json.dumps(row) for row in self.description.records}
        self._starts = np.cumsum([0, *map(len, self._shards)])
        # These arrays take 16 bytes per video; a dictionary would take 200.
        joined = np.fromiter((_hash(_comparable(s.id(row))) for s in self._shards for row in range(len(s))), np.uint64)
        self._order = np.argsort(joined, kind="stable")
        self._hashes = joined[self._order]
        twice = np.flatnonzero(self._hashes[1:] == self._hashes[:-1])
        if len(twice):
            raise InputError(
                f"{folder} has scores for two videos of the id {self._id_at(int(twice[0]))!r}; "
                "scores are matched by id, so ids must differ"
            )

    @property
    def classes(self) -> int:
        """V, the number of classes that the teacher knows."""
        return self.description.classes

    def caution_of_names(self, names: Sequence[str] | None) -> str | None:
        """A sentence where the teacher's classes have other names than `names`, so that the numbers may differ."""
        wanted, found = names_digest(names), self.description.names
        if wanted is None or found in (None, wanted):
            return None
        return (
            f"the scores in {self.folder} are of a teacher whose classes have other names, though as many; check that "
            "the same numbers stand for the same classes"
        )

    def __len__(self) -> int:
        """The number of videos with scores."""
        return len(self._hashes)

    def __contains__(self, video: str) -> bool:
        return self._locate(video) is not None

    def covers(self, fingerprint: list) -> bool:
        """Whether the scores were made from this very shard, identified by its row of a data set's fingerprint."""
        return json.dumps(fingerprint) in self._covered

    def rows(self, videos: Sequence[str]) -> torch.Tensor:
        """The probabilities of these videos, float16 [B, V]. Raises `InputError` naming a video without scores."""
        found = np.empty((len(videos), self.classes), np.float16)
        for video, destination in zip(videos, found, strict=True):
            place = self._locate(video)
            if place is None:
                raise self.lacks(video)
            self._shards[place[0]].write_row(place[1], destination)
        return torch.from_numpy(found)

    def mean(self, limit: int) -> np.ndarray:
        """The mean probabilities of at most `limit` videos, spread evenly over all; float64 [V]."""
        total, row = np.zeros(self.classes), np.empty(self.classes, np.float16)
        count = min(limit, len(self))
        for number in range(count):
            shard, place = self._shard_and_row(number * len(self) // count)
            self._shards[shard].write_row(place, row)
            total += row
        return total / max(1, count)

    def lacks(self, video: str) -> InputError:
        """The error for a video without scores."""
        return InputError(f"{self.folder} has no scores for video {video!r}; run topgb distill on all of these records")

    def _locate(self, video: str) -> tuple[int, int] | None:
        """The shard and row of a video's scores, or None if it has none."""
        encoded = _comparable(video.encode())
        position = int(np.searchsorted(self._hashes, _hash(encoded)))
        if position == len(self._hashes):
            return None
        shard, row = self._shard_and_row(int(self._order[position]))
        return (shard, row) if _comparable(self._shards[shard].id(row)) == encoded else None

    def _shard_and_row(self, number: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._starts, number, side="right")) - 1
        return shard, number - int(self._starts[shard])

    def _id_at(self, position: int) -> str:
        shard, row = self._shard_and_row(int(self._order[position]))
        return self._shards[shard].id(row).decode()

    def __reduce__(self):
        return Teacher, (self.folder, True)


def _comparable(video: bytes) -> bytes:
    """An id in the form in which ids compare: Unicode's NFC."""
    if video.isascii():
        return video
    return normalize("NFC", video.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def _hash(video: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(blake2b(video, digest_size=8).digest(), "little"))
