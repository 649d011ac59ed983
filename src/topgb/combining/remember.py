"""A trained model and records to a model that predicts by remembering them."""

from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F

from topgb.combining.ensemble import carry_over
from topgb.combining.parents import open_parents, origin, sha256
from topgb.errors import InputError
from topgb.evaluation.score import EVALUATION_BATCH
from topgb.files import refuse_existing
from topgb.modelfile import Header, Member, write_model_file
from topgb.modelfile.encodings import encode_plain, part_names
from topgb.modelfile.header import TensorEncoding
from topgb.models import Tagger, parse_model
from topgb.models.mlp import MLP
from topgb.progress import SILENT, Progress
from topgb.records.damage import OnDamaged
from topgb.records.dataset import evaluation_batches, open_dataset

HEAD = "members.0.head."


def remember(
    path: Path,
    pattern: str,
    out: Path,
    neighbours: int = 50,
    temperature: float = 0.06,
    force: bool = False,
    on_damaged: OnDamaged = "stop",
    progress: Progress = SILENT,
) -> Header:
    """Write a model file that gives a video the labels of the most alike labelled records of `pattern`.

    What is compared is what the classifier of `path` sees: the hidden layer of an `mlp` head, else the aggregator's
    vector, four bytes a number, which `topgb model quantize` lowers. Raises `InputError` where `out` exists, `path` has
    several members or remembers already, or a record has no labels.
    """
    refuse_existing(out, force)
    (parent,) = open_parents([path], "remember with it", least=1)
    if len(parent.header.members) > 1:
        raise InputError(
            f"{path} has {len(parent.header.members)} members; videos are compared by one, so name a single model"
        )
    member = parent.header.members[0].model
    if member.mixture > 1 or member.head == "neighbours":
        raise InputError(
            f"{path} cannot compare videos: it {'mixes models' if member.mixture > 1 else 'remembers already'}"
        )
    tagger = cast(Tagger, parent.model().members[0])
    vectors, bounds, classes = _collect(tagger, parent.header, pattern, on_damaged, progress)
    hidden = isinstance(tagger.head, MLP)
    section = member.to_json()
    section["head"] = {
        "name": "neighbours",
        "videos": len(vectors),
        "labels": max(1, len(classes)),
        "most_labels": max(1, int(bounds.diff().max())),
        "neighbours": neighbours,
        "temperature": temperature,
        "width": tagger.head.hidden.out_features if hidden else None,
        "activation": member.to_json()["head"]["activation"] if hidden else "silu",
    }
    centre = vectors.mean(0)
    made = {
        "keys.weight": F.normalize(vectors - centre, dim=1),
        "centre": centre,
        "label_bounds": bounds,
        "label_classes": classes if len(classes) else torch.zeros(1, dtype=torch.int32),
    }
    entries: dict[str, TensorEncoding] = {}
    tensors: dict[str, torch.Tensor] = {}
    carry_over(parent, 0, entries, tensors)
    kept = (HEAD + "hidden.", HEAD + "norm.") if hidden else ()
    for name in [name for name in entries if name.startswith(HEAD) and not name.startswith(kept)]:
        for part in part_names(name, entries.pop(name)):
            del tensors[part]
    for name, value in made.items():
        entries[HEAD + name], parts = encode_plain(value, "float32")
        tensors[HEAD + name] = parts[""]
    header = Header(
        features=parent.header.features,
        classes=parent.header.classes,
        members=(Member(1.0, parse_model(section)),),
        tensors=entries,
        class_names=parent.header.class_names,
        origin=origin("remember", [sha256(parent)]),
    )
    write_model_file(out, header, tensors, force)
    return header


@torch.inference_mode()
def _collect(
    tagger: Tagger, header: Header, pattern: str, on_damaged: OnDamaged, progress: Progress
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Each video's vector float32 [N, width], where its labels begin int32 [N + 1], and these labels int32."""
    data = open_dataset(pattern, header.features, header.classes, tagger.config.max_frames, on_damaged)
    vectors, counts, classes = [], [torch.zeros(1, dtype=torch.int64)], []
    progress.begin("remembering", data.num_records, "videos")
    for batch in evaluation_batches(data, EVALUATION_BATCH):
        if batch.labels is None:
            raise InputError(f"video {batch.ids[0]} of {pattern} has no labels to remember")
        pooled = tagger.aggregator(*tagger.frontend(batch.features, batch.num_frames)).float()
        vectors.append(tagger.head.hidden_vectors(pooled) if isinstance(tagger.head, MLP) else pooled)
        counts.append(batch.labels.sum(1))
        classes.append(batch.labels.nonzero()[:, 1].int())
        progress.advance(len(batch))
    progress.end()
    if not vectors:
        raise InputError(f"no video of {pattern} could be read, so there is nothing to remember")
    return torch.cat(vectors), torch.cat(counts).cumsum(0).int(), torch.cat(classes)
