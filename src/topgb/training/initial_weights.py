"""The weights that training starts from: fresh, from a model file, or a trained model to continue."""

from typing import Any, cast

import numpy as np
import torch

from topgb.errors import InputError, option
from topgb.files import file_sha256
from topgb.modelfile import StoredModel
from topgb.modelfile.loaded import assemble_stored
from topgb.models import Tagger, build_tagger, registry
from topgb.progress import Progress
from topgb.records.dataset import Dataset
from topgb.records.label_statistics import label_counts, teacher_mean
from topgb.records.labels import TeacherSource
from topgb.records.segment_dataset import SegmentDataset
from topgb.records.teacher import DESCRIPTION_FILE, Teacher
from topgb.training.recipe import Recipe

# Records that class frequencies are averaged over: more records would not change the start noticeably.
FREQUENCY_RECORDS = 20_000


def fresh_tagger(
    recipe: Recipe,
    data: Dataset,
    progress: Progress,
    init_from: StoredModel | None = None,
    ema_source: StoredModel | None = None,
    new_head: bool = False,
) -> Tagger:
    """The model at step 0, on the CPU. Raises `InputError` where a parent does not fit the recipe."""
    torch.manual_seed(recipe.training.seed)
    config = recipe.model_section()
    if not getattr(registry.heads()[config.head], "trained", True):
        raise InputError(f"the head {config.head!r} is not trained; topgb model remember makes it of a trained model")
    tagger = build_tagger(recipe.data.spec(), recipe.data.classes, config)
    if init_from is not None and ema_source is not None:
        raise InputError(f"{option('init_from')} and {option('ema_source')} exclude each other; give one of them")
    anew = set(tagger.state_dict())
    if ema_source is not None:
        anew -= _take(tagger, ema_source, new_head=False)
    elif init_from is not None:
        anew -= _take(tagger, init_from, new_head or tagger.classes != init_from.header.classes)
    elif new_head:
        anyway = "without it the head is new anyway"
        raise InputError(f"{option('new_head', True)} goes with {option('init_from')}; {anyway}")
    for parent in (init_from, ema_source):
        if parent is not None and parent.header.thresholds is not None:
            progress.say(f"warning: the thresholds of {parent.path} are for its own probabilities, and are left out")
    head_is_new = any(name.startswith("head.") for name in anew)
    if head_is_new and recipe.training.start_at_class_frequencies:
        tagger.head.start_at(_frequencies(data, recipe.training.distill_weight))
    if init_from is not None and anew:
        progress.say(f"starting anew: {', '.join(sorted(anew))}; everything else is from {init_from.path}")
    return tagger


def teacher_identity(teacher: TeacherSource | None) -> dict[str, Any] | str | None:
    """The identity of a teacher's scores: the teacher's model and a hash of the scores' description."""
    if teacher is None or isinstance(teacher, str):
        return teacher
    assert isinstance(teacher, Teacher)
    return {"model": teacher.description.model, "scores": file_sha256(teacher.folder / DESCRIPTION_FILE)}


def _take(tagger: Tagger, model: StoredModel, new_head: bool) -> set[str]:
    """Copy the model's tensors into `tagger`, without the head's if `new_head`; return the names of copied tensors.

    Raises `InputError` where `model` is an ensemble or differs from `tagger` in features or architecture.
    """
    path, members = model.path, assemble_stored(model).members
    if len(members) != 1:
        raise InputError(f"{path} is an ensemble of {len(members)} members; training starts from a single model")
    parent = cast(Tagger, members[0])
    if parent.frontend.spec != tagger.frontend.spec:
        raise InputError(
            f"{path} takes other features than the recipe: {_features(parent)}; the recipe's are {_features(tagger)}"
        )
    ours, theirs = (_shapes(t, new_head) for t in (tagger, parent))
    differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if differing:
        raise InputError(
            f"{path} is of another architecture than the recipe: they differ in {', '.join(differing[:3])}; "
            "use the recipe it was trained with (topgb model show prints it)"
        )
    state, parents = tagger.state_dict(), parent.state_dict()
    for name in ours:
        state[name].copy_(parents[name])
    return set(ours)


def _features(tagger: Tagger) -> str:
    spec = tagger.frontend.spec
    return ", ".join(f"{f.name} ({f.size} {f.dtype})" for f in spec.features) + f" at {spec.level} level"


def _shapes(tagger: Tagger, without_head: bool) -> dict[str, torch.Size]:
    state = tagger.state_dict()
    return {name: t.shape for name, t in state.items() if not (without_head and name.startswith("head."))}


def _frequencies(data: Dataset, distill_weight: float) -> torch.Tensor:
    """Class frequencies, float32 [V]: the mean of the labels, or of the teacher's scores if only these are learned.

    For rated segments, a class's frequency is the share of its ratings that are positive.
    """
    total: np.ndarray
    count: np.ndarray | int
    if isinstance(data, SegmentDataset) and data.segment_cut.rows == "rated":
        # Only rated pairs are learned from; nothing is learned of a class that is never rated, so it counts as rare.
        total, rated = data.rating_counts()
        count = np.where(rated > 0, rated, data.num_records)
    elif data.teacher is not None and distill_weight == 1.0:
        count = min(FREQUENCY_RECORDS, data.num_records)
        total = teacher_mean(data, FREQUENCY_RECORDS) * count
    else:
        total, count = label_counts(data, FREQUENCY_RECORDS)
    # Add half a video to each class: a class that did not occur is rare, not impossible.
    return torch.from_numpy((total + 0.5) / (count + 1)).float()
