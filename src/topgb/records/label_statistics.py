"""Counts of a data set's labels, and means of its teacher's scores, without reading frames."""

from collections.abc import Iterator

import numpy as np

from topgb.errors import InputError
from topgb.records.dataset import Dataset
from topgb.records.labels import LABELS_APART, LEAST_VECTORS, LabelTally, check_label_counts, or_teacher_alone
from topgb.records.teacher import Teacher

# This many records show whether there are labels.
SAMPLE = 50


def label_counts(dataset: Dataset, limit: int | None = None) -> tuple[np.ndarray, int]:
    """The number of videos of each class, int64 [V], and of all labelled videos, without reading frames.

    `limit` is the most records to read, spread evenly over the data set; None reads all. Raises as `read_batch`.
    """
    return _counted(dataset, limit)[:2]


def _counted(dataset: Dataset, limit: int | None) -> tuple[np.ndarray, int, int]:
    """The result of `label_counts`, and the number of records that could be read for it."""
    counts = np.zeros(dataset.classes, np.int64)
    videos = read = 0
    for number in _evenly_spread(dataset, limit):
        who = dataset.identity_of(dataset.key(number))
        read += who is not None
        if who is not None and who.labels is not None:
            videos += 1
            counts[who.labels] += 1
    return counts, videos, read


def require_labels(dataset: Dataset, where: str, purpose: str) -> None:
    """Raise `InputError` if the labels of the records of `where` cannot serve the `purpose` (a verb).

    A sample of the records is looked at, and all of them if every list in the sample is empty or full. A later record
    without labels is found when its batch is read.
    """
    counts, videos, read = _counted(dataset, SAMPLE)
    alone = or_teacher_alone(dataset.teacher)
    if not videos:
        sample = f" ({read:,} of {dataset.num_records:,} were looked at)" if read < dataset.num_records else ""
        raise InputError(
            f"{where} hold no labels{sample}, so there is nothing to {purpose}; {dataset.label_advice()}{alone}"
        )
    if videos < read:
        raise InputError(
            f"{where} are labelled in part: {read - videos:,} of the {read:,} looked at have no labels; "
            f"{LABELS_APART}{alone}"
        )
    if not counts.any() or (counts == videos).all():
        counts, videos = label_counts(dataset)
    check_label_counts(counts, videos, where, purpose, alone)


def check_label_lists(dataset: Dataset) -> None:
    """Raise `InputError` if lists in a sample of a data set opened with labels, or to check them, are 0/1 vectors.

    A 0/1 vector over two classes can only be told from class numbers by looking at many records.
    """
    if dataset.classes != 2:
        return
    tally = LabelTally()
    for number in _evenly_spread(dataset, SAMPLE):
        who = dataset.identity_of(dataset.key(number))
        if who is not None and who.labels is not None:
            tally.add(who.labels)
    if tally.fault:
        raise InputError(tally.fault)


def teacher_mean(dataset: Dataset, limit: int) -> np.ndarray:
    """Mean of the teacher's scores, float64 [V], over at most `limit` videos spread evenly, without reading frames.

    The data set must have a teacher. Raises as `read_batch`.
    """
    if isinstance(dataset.teacher, Teacher):
        return dataset.teacher.mean(limit)
    total, videos = np.zeros(dataset.classes), 0
    for number in _evenly_spread(dataset, limit):
        who = dataset.identity_of(dataset.key(number))
        if who is not None and who.predictions is not None:
            total += who.predictions
            videos += 1
    return total / max(1, videos)


def monotony(dataset: Dataset) -> Iterator[str]:
    """Sentences on targets that are the same for all videos, of which a model learns nothing else.

    A sample is looked at, and all labels if it is like that.
    """
    sample = _evenly_spread(dataset, SAMPLE)
    counts, videos = label_counts(dataset, SAMPLE)
    if _is_same(counts, videos):
        counts, videos = label_counts(dataset)
    if _is_same(counts, videos) and videos >= LEAST_VECTORS:
        yield f"all {videos:,} videos to train on have the same labels; check that these are the classes' numbers"
    if dataset.teacher is None or len(sample) < LEAST_VECTORS:
        return
    found = [who for number in sample if (who := dataset.identity_of(dataset.key(number))) is not None]
    if isinstance(dataset.teacher, str):
        scores = np.array([who.predictions for who in found if who.predictions is not None])
    else:
        scores = dataset.teacher.rows([who.id for who in found]).numpy()
    if len(scores) and (scores == scores[0]).all():
        yield f"the teacher's scores of {len(scores)} videos looked at are all the same; check the teacher"


def _is_same(counts: np.ndarray, videos: int) -> bool:
    return bool(counts.any() and ((counts == 0) | (counts == videos)).all())


def check_teacher_knows(dataset: Dataset) -> None:
    """Raise `InputError`, before hours are spent, naming a video that has no scores in the teacher's folder.

    The folder's fingerprints show which shards the teacher was run on; in all other shards, every id is looked up.
    """
    if not isinstance(dataset.teacher, Teacher):
        return
    for shard, fingerprint in enumerate(dataset.fingerprint()):
        if dataset.teacher.covers(fingerprint):
            continue
        for record in range(int(dataset.counts[shard])):
            who = dataset.identity_of((shard, record))
            if who is not None and who.id not in dataset.teacher:
                raise dataset.teacher.lacks(who.id)


def _evenly_spread(dataset: Dataset, limit: int | None) -> list[int]:
    """The numbers of at most `limit` records, spread evenly over the data set."""
    total = dataset.num_records
    numbers = np.arange(total) if limit is None or limit >= total else np.arange(limit) * total // limit
    return numbers.tolist()
