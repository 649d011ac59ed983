"""Add a second stage to a model file, trained on scores by models that had not seen the videos."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from topgb.combining.cooccurrence import class_vectors
from topgb.combining.parents import named, origin, warn_of_dropped
from topgb.combining.top_classes import SCORING_BATCH, TopClasses, collect_top_classes
from topgb.errors import InputError, TopgbWarning, option
from topgb.evaluation.metrics import TOP_K, Scores
from topgb.evaluation.opening import open_for, warn_of_videos
from topgb.files import file_sha256, refuse_existing
from topgb.modelfile import StoredModel, stored_model, write_model_file
from topgb.modelfile.encodings import encode_plain
from topgb.modelfile.header import RERANKER, THRESHOLDS
from topgb.modelfile.loaded import assemble_stored
from topgb.models.reranker import Reranker, RerankerOptions
from topgb.progress import SILENT, Progress
from topgb.records.on_damaged import OnDamaged
from topgb.records.teacher import DESCRIPTION_FILE, Teacher

BATCH = 256
# Every tenth video is held out to measure the second stage's gain.
HELD_OUT = 10
MOST_WARMUP_STEPS = 50


@dataclass(frozen=True)
class RerankTraining:
    """The sizes of a second stage, and how it is trained: AdamW with a learning rate that falls as a cosine.

    `options` None takes the defaults, with all classes as candidates where there are fewer than the default.
    `on_damaged` says what becomes of damaged records.
    """

    options: RerankerOptions | None = None
    epochs: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    seed: int = 0
    on_damaged: OnDamaged = "stop"

    def options_for(self, classes: int) -> RerankerOptions:
        """The sizes for a model of `classes` classes. Raises `InputError` for candidates that it does not have.

        The figures look at a video's 20 best classes, so no fewer are rescored.
        """
        usual = RerankerOptions()
        chosen = self.options or usual.model_copy(update={"candidates": min(usual.candidates, classes)})
        least = min(TOP_K, classes)
        if not least <= chosen.candidates <= classes:
            raise InputError(
                f"a second stage cannot look at {chosen.candidates} classes of a model of {classes}; it takes "
                f"from {least} to {classes}: change {option('candidates')}, or leave it out"
            )
        return chosen


DEFAULT_TRAINING = RerankTraining()


@dataclass(frozen=True)
class Gain:
    """Scores without and with a second stage, on videos that it was not trained on."""

    before: Scores
    after: Scores


def rerank(
    model: Path | StoredModel,
    pattern: str | Sequence[str],
    scores: Sequence[Path],
    out: Path,
    training: RerankTraining = DEFAULT_TRAINING,
    force: bool = False,
    progress: Progress = SILENT,
) -> Gain:
    """Write the model with a second stage, trained on the labelled records of `pattern`.

    `scores` are folders that `topgb.evaluation.distill.distill` filled; together they must have scores of every video.
    The best teachers are models like `model` that were trained *without* the video, because a model is surer of videos
    that it was trained on. A video's scores come from the first folder that has them. To measure the gain, a second
    stage is trained on nine tenths of the videos and scored on the rest; then the one to write is trained on all.

    Raises `InputError` if `out` exists, a file or folder is broken, the classes differ, a video has no labels or no
    scores, or a folder keeps fewer classes than are candidates.
    """
    refuse_existing(out, force, "a model")
    parent = stored_model(model)
    assemble_stored(parent)
    warn_of_dropped(parent)
    extras = {name: value for name, value in parent.header.extras.items() if name != THRESHOLDS}
    header = replace(parent.header, extras=extras)
    options = training.options_for(header.classes)
    training = replace(training, options=options)
    teachers = _open_scores(scores, header.classes, options.candidates)
    for caution in filter(None, (teacher.caution_of_names(header.class_names) for teacher in teachers)):
        warnings.warn(caution, TopgbWarning, stacklevel=4)
    dataset = open_for(parent, pattern, training.on_damaged, part="all")
    top = collect_top_classes(dataset, teachers, options.candidates, progress)
    warn_of_videos(dataset, stacklevel=5)
    gain = _gain(top, training, progress)
    fitted = fit_reranker(top, training, progress, "fitting")
    entries = {name: entry for name, entry in header.tensors.items() if not name.startswith(RERANKER)}
    tensors = {name: tensor for name, tensor in parent.tensors.items() if not name.startswith(RERANKER)}
    for name, value in fitted.state_dict().items():
        entries[RERANKER + name], parts = encode_plain(value, "float16")
        tensors[RERANKER + name] = parts[""]
    made = origin(
        "rerank",
        [named(parent)],
        scores=[file_sha256(teacher.folder / DESCRIPTION_FILE) for teacher in teachers],
        gain={"before": gain.before.gap, "after": gain.after.gap},
    )
    write_model_file(out, replace(header, tensors=entries, origin=made, reranker=options), tensors, force)
    return gain


def _gain(top: TopClasses, training: RerankTraining, progress: Progress) -> Gain:
    """The gain of a second stage that is trained on nine tenths of the videos, on the other tenth."""
    order = torch.randperm(len(top.best), generator=torch.Generator().manual_seed(training.seed))
    held_out, rest = (top.of(part) for part in (order[::HELD_OUT], order[torch.arange(len(order)) % HELD_OUT > 0]))
    if not len(rest.best):
        raise InputError(f"{len(order)} video is not enough to learn a second stage from; give more records")
    fitted = fit_reranker(rest, training, progress, "trying")
    return Gain(held_out.scores(held_out.best), held_out.scores(_reranked(fitted, held_out)))


def fit_reranker(
    top: TopClasses,
    training: RerankTraining,
    progress: Progress = SILENT,
    what: str = "fitting",
) -> Reranker:
    """Train a second stage on the cross entropy of the candidates; it is returned on the CPU, in evaluation mode.

    The embeddings of classes start as their co-occurrence vectors: with a random start a third of the gain is lost.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        options = training.options or RerankerOptions()
        model = Reranker(top.num_classes, options)
        with torch.no_grad():
            model.embedding.weight.copy_(class_vectors(top.labels, top.num_classes, options.embedding))
        optimizer = torch.optim.AdamW(model.parameters(), training.learning_rate, weight_decay=training.weight_decay)
        hits, videos = top.hits(), len(top.best)
        steps = training.epochs * math.ceil(videos / BATCH)
        warmup = min(MOST_WARMUP_STEPS, steps // 10 + 1)
        progress.begin(what, training.epochs * videos, "videos")
        step = 0
        for _ in range(training.epochs):
            for rows in torch.randperm(videos).split(BATCH):
                share = 0.5 * (1 + math.cos(math.pi * step / steps)) * min(1.0, (step + 1) / warmup)
                optimizer.param_groups[0]["lr"] = training.learning_rate * share
                logits = model.logits(top.best[rows], top.classes[rows])
                loss = F.binary_cross_entropy_with_logits(logits, hits[rows], reduction="none").sum(1).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                progress.advance(len(rows))
        progress.end()
    return model.eval()


@torch.inference_mode()
def _reranked(model: Reranker, top: TopClasses) -> torch.Tensor:
    """float32 [N, K]: the candidates' new probabilities."""
    parts = zip(top.best.split(SCORING_BATCH), top.classes.split(SCORING_BATCH), strict=True)
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
                f"distill with a greater {option('top_k')}, or lower {option('candidates')}"
            )
    return teachers
