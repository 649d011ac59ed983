"""A second stage for a model file, learned from scores of models that had not seen the videos."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from topgb.checksums import file_sha256
from topgb.combining.cooccurrence import class_vectors
from topgb.combining.parents import Parent, origin, sha256
from topgb.errors import InputError
from topgb.evaluation.metrics import TOP_K, Metrics, Scores
from topgb.files import refuse_existing
from topgb.modelfile import read_model_file, write_model_file
from topgb.modelfile.encodings import encode_plain
from topgb.modelfile.header import RERANKER
from topgb.models.reranker import Reranker, RerankerOptions
from topgb.progress import SILENT, Progress
from topgb.records.dataset import Dataset, open_dataset
from topgb.records.teacher import DESCRIPTION_FILE, Teacher

BATCH = 256
SCORING_BATCH = 1000
# Every tenth video is left out to see what the second stage is worth.
HELD_OUT = 10
MOST_WARMUP_STEPS = 50


@dataclass(frozen=True)
class FitSettings:
    """How a second stage is trained: AdamW, its learning rate falling as a cosine."""

    epochs: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class Candidates:
    """The best K classes of N videos: probabilities float32 and classes int64 [N, K], best first; their labels."""

    best: torch.Tensor
    classes: torch.Tensor
    labels: list[list[int]]
    num_classes: int

    def of(self, videos: torch.Tensor) -> "Candidates":
        """The same of the videos numbered `videos` (int64 [n])."""
        labels = [self.labels[video] for video in videos.tolist()]
        return Candidates(self.best[videos], self.classes[videos], labels, self.num_classes)

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


@dataclass(frozen=True)
class Gain:
    """What a second stage is worth on videos it had not seen: their scores without it and with it."""

    before: Scores
    after: Scores


def rerank(
    path: Path,
    pattern: str,
    scores: Sequence[Path],
    out: Path,
    options: RerankerOptions,
    settings: FitSettings | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Gain:
    """Write the model file `path` with a second stage, trained on the labelled records of `pattern`.

    `scores` are folders of `topgb.evaluation.distill.distill` that together know every video, best by models like
    those of `path` that were trained *without* it: of videos that it has seen, a model is surer than it will ever be
    again. Each video's scores are taken from the first folder that has them. What is returned is of a tenth of the
    videos, left out of a first training; the second stage that is written learned from all of them.

    Raises `InputError` where `out` exists, a file or folder is broken, the classes differ, a video has no labels or no
    scores, or the folders keep fewer classes than `options.candidates`.
    """
    settings = settings or FitSettings()
    refuse_existing(out, force)
    parent = Parent(path, *read_model_file(path))
    parent.model()
    header = parent.header
    if not TOP_K <= options.candidates <= header.classes:
        raise InputError(
            f"a second stage cannot look at {options.candidates} classes; from {TOP_K} to {header.classes} make sense"
        )
    teachers = _open_scores(scores, header.classes, options.candidates)
    # Frames are not looked at.
    dataset = open_dataset(pattern, header.features, header.classes, max_frames=1)
    candidates = collect_candidates(dataset, teachers, options.candidates, progress)
    order = torch.randperm(len(candidates.best), generator=torch.Generator().manual_seed(settings.seed))
    held_out, rest = (
        candidates.of(part) for part in (order[::HELD_OUT], order[torch.arange(len(order)) % HELD_OUT > 0])
    )
    if not len(rest.best):
        raise InputError(f"{len(order)} video is not enough to learn a second stage from; give more records")
    first = fit_reranker(rest, options, settings, progress, "trying")
    gain = Gain(held_out.scores(held_out.best), held_out.scores(_reranked(first, held_out)))
    fitted = fit_reranker(candidates, options, settings, progress, "fitting")
    entries = {name: entry for name, entry in header.tensors.items() if not name.startswith(RERANKER)}
    tensors = {name: tensor for name, tensor in parent.stored.items() if not name.startswith(RERANKER)}
    for name, value in fitted.state_dict().items():
        entries[RERANKER + name], parts = encode_plain(value, "float16")
        tensors[RERANKER + name] = parts[""]
    made = origin(
        "rerank",
        [sha256(parent)],
        scores=[file_sha256(teacher.folder / DESCRIPTION_FILE) for teacher in teachers],
        gain={"before": gain.before.gap, "after": gain.after.gap},
    )
    write_model_file(out, replace(header, tensors=entries, origin=made, reranker=options), tensors, force)
    return gain


def collect_candidates(
    dataset: Dataset, teachers: Sequence[Teacher], count: int, progress: Progress = SILENT
) -> Candidates:
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
    return Candidates(torch.cat(best), torch.cat(classes), labels, dataset.classes)


def fit_reranker(
    candidates: Candidates,
    options: RerankerOptions,
    settings: FitSettings,
    progress: Progress = SILENT,
    what: str = "fitting",
) -> Reranker:
    """A second stage that lowers the cross entropy of the candidates, in evaluation mode, on the CPU.

    Classes begin with vectors that tell which occur together: learned from nothing, a third of the gain is lost.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = Reranker(candidates.num_classes, options)
        with torch.no_grad():
            model.embedding.weight.copy_(class_vectors(candidates.labels, candidates.num_classes, options.embedding))
        optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
        hits, videos = candidates.hits(), len(candidates.best)
        steps = settings.epochs * math.ceil(videos / BATCH)
        warmup = min(MOST_WARMUP_STEPS, steps // 10 + 1)
        progress.begin(what, settings.epochs * videos, "videos")
        step = 0
        for _ in range(settings.epochs):
            for rows in torch.randperm(videos).split(BATCH):
                share = 0.5 * (1 + math.cos(math.pi * step / steps)) * min(1.0, (step + 1) / warmup)
                optimizer.param_groups[0]["lr"] = settings.learning_rate * share
                logits = model.logits(candidates.best[rows], candidates.classes[rows])
                loss = F.binary_cross_entropy_with_logits(logits, hits[rows], reduction="none").sum(1).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                progress.advance(len(rows))
        progress.end()
    return model.eval()


@torch.inference_mode()
def _reranked(model: Reranker, candidates: Candidates) -> torch.Tensor:
    """float32 [N, K]: the candidates' new probabilities."""
    parts = zip(candidates.best.split(SCORING_BATCH), candidates.classes.split(SCORING_BATCH), strict=True)
    return torch.cat([torch.sigmoid(model.logits(best, classes)) for best, classes in parts])


def _open_scores(folders: Sequence[Path], classes: int, candidates: int) -> list[Teacher]:
    if not folders:
        raise InputError("a second stage learns from scores; name folders that topgb distill has filled")
    teachers = [Teacher(folder) for folder in folders]
    for teacher in teachers:
        if teacher.classes != classes:
            raise InputError(
                f"the scores of {teacher.folder} are of {teacher.classes} classes, the model has {classes}"
            )
        kept = teacher.description.top_k
        if kept is not None and kept < candidates:
            raise InputError(
                f"{teacher.folder} keeps {kept} classes of a video, fewer than the {candidates} that are looked at; "
                "distill with a greater --top-k, or lower --candidates"
            )
    return teachers
