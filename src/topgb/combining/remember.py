"""Make a model that predicts by remembering records, from a trained model and the records."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F

from topgb.combining.ensemble import carry_over
from topgb.combining.parents import named, open_parents, origin, shared_extras
from topgb.errors import InputError
from topgb.evaluation.opening import open_for, warn_of_videos
from topgb.evaluation.predictions import batches
from topgb.files import refuse_existing
from topgb.modelfile import Header, Member, StoredModel, write_model_file
from topgb.modelfile.encodings import encode_plain, part_names
from topgb.modelfile.header import TensorEncoding
from topgb.modelfile.loaded import assemble_stored
from topgb.models import ModelConfig, Tagger, parse_model
from topgb.models.mlp import MLP
from topgb.progress import SILENT, Progress
from topgb.records.dataset import Dataset
from topgb.records.on_damaged import OnDamaged

PURPOSE = "remember"
HEAD = "members.0.head."


@dataclass(frozen=True)
class NeighbourOptions:
    """The labels of the `neighbours` most similar videos count, weighted by exp(similarity ÷ `temperature`)."""

    neighbours: int = 50
    temperature: float = 0.06


DEFAULT_OPTIONS = NeighbourOptions()


@dataclass(frozen=True)
class _Memory:
    """The vectors of N videos, float32 [N, width], and their labels.

    The labels of video i are `classes[bounds[i] : bounds[i + 1]]`; `bounds` [N + 1] and `classes` are int32.
    """

    vectors: torch.Tensor
    bounds: torch.Tensor
    classes: torch.Tensor

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors of a `neighbours` head."""
        centre = self.vectors.mean(0)
        return {
            "keys.weight": F.normalize(self.vectors - centre, dim=1),
            "centre": centre,
            "label_bounds": self.bounds,
            "label_classes": self.classes if len(self.classes) else torch.zeros(1, dtype=torch.int32),
        }


def remember(
    model: Path | StoredModel,
    pattern: str | Sequence[str],
    out: Path,
    options: NeighbourOptions = DEFAULT_OPTIONS,
    force: bool = False,
    on_damaged: OnDamaged = "stop",
    progress: Progress = SILENT,
) -> Header:
    """Write a model file that gives a video the labels of the most similar labelled records of `pattern`.

    Videos are compared by the input of the model's classifier: the hidden layer of an `mlp` head, otherwise the
    aggregator's vector. It is stored as float32; `topgb model quantize` makes it smaller. Raises `InputError` if `out`
    exists, `model` has several members or remembers already, or a record has no labels.
    """
    refuse_existing(out, force, "a model")
    (parent,) = open_parents([model], "remember with it", least=1)
    member = _single_member(parent)
    tagger = cast(Tagger, assemble_stored(parent).members[0])
    dataset = open_for(parent, pattern, on_damaged, part="train", progress=progress)
    memory = _collect_memory(tagger, dataset, progress)
    warn_of_videos(dataset, stacklevel=5)
    hidden = isinstance(tagger.head, MLP)
    entries: dict[str, TensorEncoding] = {}
    tensors: dict[str, torch.Tensor] = {}
    carry_over(parent, 0, entries, tensors)
    kept = (HEAD + "hidden.", HEAD + "norm.") if hidden else ()
    for name in [name for name in entries if name.startswith(HEAD) and not name.startswith(kept)]:
        for part in part_names(name, entries.pop(name)):
            del tensors[part]
    for name, value in memory.tensors().items():
        entries[HEAD + name], parts = encode_plain(value, "float32")
        tensors[HEAD + name] = parts[""]
    header = Header(
        features=parent.header.features,
        classes=parent.header.classes,
        members=(
            Member(1.0, parse_model({**member.to_json(), "head": _head_options(tagger, member, memory, options)})),
        ),
        tensors=entries,
        class_names=parent.header.class_names,
        origin=origin("remember", [named(parent)]),
        extras=shared_extras([parent]),
    )
    write_model_file(out, header, tensors, force)
    return header


def _single_member(parent: StoredModel) -> ModelConfig:
    """The model's only member. Raises `InputError` if there are several, or it cannot compare videos."""
    if len(parent.header.members) > 1:
        raise InputError(
            f"{parent.path} has {len(parent.header.members)} members; videos are compared by one "
            "alone, so name a single model"
        )
    member = parent.header.members[0].model
    if member.mixture > 1 or member.head == "neighbours":
        reason = "mixes models" if member.mixture > 1 else "remembers already"
        raise InputError(f"{parent.path} cannot compare videos: it {reason}")
    return member


def _head_options(tagger: Tagger, member: ModelConfig, memory: _Memory, options: NeighbourOptions) -> dict[str, Any]:
    """The options of the `neighbours` head that holds `memory`, made with `tagger`."""
    hidden = tagger.head.hidden.out_features if isinstance(tagger.head, MLP) else None
    return {
        "name": "neighbours",
        "videos": len(memory.vectors),
        "labels": max(1, len(memory.classes)),
        "most_labels": max(1, int(memory.bounds.diff().max())),
        "neighbours": options.neighbours,
        "temperature": options.temperature,
        "width": hidden,
        "activation": "silu" if hidden is None else member.to_json()["head"]["activation"],
    }


@torch.inference_mode()
def _collect_memory(tagger: Tagger, data: Dataset, progress: Progress) -> _Memory:
    vectors, counts, classes = [], [torch.zeros(1, dtype=torch.int64)], []
    progress.begin("remembering", data.num_records, "videos")
    for batch in batches(data, progress, PURPOSE):
        pooled = tagger.aggregator(*tagger.frontend(batch.features, batch.num_frames)).float()
        vectors.append(tagger.head.hidden_vectors(pooled) if isinstance(tagger.head, MLP) else pooled)
        labels = cast(torch.Tensor, batch.labels)
        counts.append(labels.sum(1))
        classes.append(labels.nonzero()[:, 1].int())
    progress.end()
    return _Memory(torch.cat(vectors), torch.cat(counts).cumsum(0).int(), torch.cat(classes))
