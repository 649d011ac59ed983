"""Each video's best classes by a teacher's scores, with its labels: what a second stage learns from."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from topgb.errors import InputError
from topgb.evaluation.metrics import Metrics, Scores
from topgb.progress import SILENT, Progress
from topgb.records.dataset import Dataset
from topgb.records.teacher import Teacher

SCORING_BATCH = 1000


@dataclass(frozen=True)
class TopClasses:
    """The best K classes of N videos: probabilities float32 and classes int64 [N, K], best first; their labels."""

    best: torch.Tensor
    classes: torch.Tensor
    labels: list[list[int]]
    num_classes: int

    def of(self, videos: torch.Tensor) -> "TopClasses":
        """The same of the videos numbered `videos` (int64 [n])."""
        labels = [self.labels[video] for video in videos.tolist()]
        return TopClasses(self.best[videos], self.classes[videos], labels, self.num_classes)

    def hits(self) -> torch.Tensor:
        """float32 [N, K]: which candidates are labels."""
        rows = [torch.isin(row, torch.tensor(own)) for row, own in zip(self.classes, self.labels, strict=True)]
        return torch.stack(rows).float()

    def scores(self, best: torch.Tensor) -> Scores:
        """Every figure, with the candidates' probabilities float32 [N, K]; other classes count as 0."""
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
    """The best `count` classes of every video by the first teacher that has scores for it. Raises `InputError`."""
    best, classes, labels = [], [], []
    progress.begin("reading", dataset.num_records, "videos")
    for shard in range(len(dataset.shards)):
        by_teacher: dict[int, list[tuple[str, list[int]]]] = {}
        for record in range(int(dataset.counts[shard])):
            who = dataset.identity_of((shard, record))
            if who is None:
                continue
            if who.labels is None:
                raise InputError(f"video {who.id!r} of {dataset.shards[shard].path} has no labels to learn from")
            knows = next((number for number, teacher in enumerate(teachers) if who.id in teacher), None)
            if knows is None:
                raise teachers[0].lacks(who.id)
            by_teacher.setdefault(knows, []).append((who.id, sorted(set(who.labels))))
        for number, videos in by_teacher.items():
            found = teachers[number].rows([video for video, _ in videos]).float().topk(count, dim=1)
            best.append(found.values)
            classes.append(found.indices)
            labels += [own for _, own in videos]
        progress.advance(int(dataset.counts[shard]))
    progress.end()
    return TopClasses(torch.cat(best), torch.cat(classes), labels, dataset.classes)
