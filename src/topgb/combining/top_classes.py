"""Each video's best classes by a teacher's scores, with its labels: the training data of a second stage."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from topgb.errors import InputError
from topgb.evaluation.metrics import Metrics, Scores
from topgb.evaluation.predictions import check_found
from topgb.progress import SILENT, Progress
from topgb.records.dataset import Dataset
from topgb.records.teacher import Teacher

SCORING_BATCH = 1000


@dataclass(frozen=True)
class TopClasses:
    """The K best classes of N videos, best first.

    best         float32 [N, K], probabilities
    classes      int64 [N, K], class numbers
    labels       the class numbers of each video's labels
    num_classes  the number of all classes
    """

    best: torch.Tensor
    classes: torch.Tensor
    labels: list[list[int]]
    num_classes: int

    def of(self, videos: torch.Tensor) -> "TopClasses":
        """The best classes and labels of the videos with these numbers (int64 [n])."""
        labels = [self.labels[video] for video in videos.tolist()]
        return TopClasses(self.best[videos], self.classes[videos], labels, self.num_classes)

    def hits(self) -> torch.Tensor:
        """float32 [N, K]: 1 where a candidate is a label, else 0."""
        rows = [torch.isin(row, torch.tensor(own)) for row, own in zip(self.classes, self.labels, strict=True)]
        return torch.stack(rows).float()

    def scores(self, best: torch.Tensor) -> Scores:
        """The figures if the candidates have the probabilities `best` float32 [N, K], and all other classes 0."""
        metrics = Metrics(self.num_classes)
        for start in range(0, len(best), SCORING_BATCH):
            part = slice(start, start + SCORING_BATCH)
            rows = torch.zeros(len(best[part]), self.num_classes)
            labels = torch.zeros(rows.shape, dtype=torch.bool)
            for row, own in zip(labels, self.labels[part], strict=True):
                row[own] = True
            metrics.add(rows.scatter(1, self.classes[part], best[part]), labels)
        return metrics.compute()


def collect_top_classes(
    dataset: Dataset, teachers: Sequence[Teacher], count: int, progress: Progress = SILENT
) -> TopClasses:
    """The `count` best classes of every video, by the first teacher that has scores of it.

    Raises `InputError` if a video has no labels, or no teacher has scores of it.
    """
    best, classes, labels = [], [], []
    progress.begin("reading", dataset.num_records, "videos")
    for shard in range(len(dataset.shards)):
        by_teacher: dict[int, list[tuple[str, list[int]]]] = {}
        for record in range(int(dataset.counts[shard])):
            who = dataset.identity_of((shard, record))
            if who is None:
                continue
            if who.labels is None:
                raise InputError(
                    f"video {who.id!r} of {dataset.shards[shard].path} has no labels to learn from; "
                    f"{dataset.label_advice(shard)}"
                )
            knows = next((number for number, teacher in enumerate(teachers) if who.id in teacher), None)
            if knows is None:
                raise teachers[0].lacks(who.id)
            by_teacher.setdefault(knows, []).append((who.id, sorted(who.labels)))
        for number, videos in by_teacher.items():
            found = teachers[number].rows([video for video, _ in videos]).float().topk(count, dim=1)
            best.append(found.values)
            classes.append(found.indices)
            labels += [own for _, own in videos]
        progress.advance(int(dataset.counts[shard]))
    progress.end()
    positives = np.bincount([number for own in labels for number in own], minlength=dataset.classes)
    check_found(positives, len(labels), "learn from")
    return TopClasses(torch.cat(best), torch.cat(classes), labels, dataset.classes)
