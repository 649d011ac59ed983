"""Describe a model file, for a person or as JSON."""

from collections.abc import Mapping
from typing import Any

import torch
import yaml

from topgb.errors import printable
from topgb.extractor_identity import shown as extractor_shown
from topgb.modelfile.encodings import stored_bytes
from topgb.modelfile.header import EXTRACTOR, RERANKER, SEGMENTS, THRESHOLDS, Header, TensorEncoding

MOST_CLASS_NAMES = 20


def to_json(header: Header, tensors: Mapping[str, torch.Tensor], file_bytes: int) -> dict[str, Any]:
    """Everything `describe` prints, as JSON values."""
    return {
        "bytes": file_bytes,
        "features": header.features.to_json(),
        "classes": header.classes,
        "class_names": header.class_names,
        "members": [{"weight": member.weight, "model": member.model.to_json()} for member in header.members],
        "tensors": {
            name: {**entry.to_json(), "bytes": stored_bytes(tensors, entry, name)}
            for name, entry in header.tensors.items()
        },
        "reranker": None if header.reranker is None else header.reranker.model_dump(mode="json"),
        "origin": header.origin,
        **({"extras": header.extras} if header.extras else {}),
    }


def describe(header: Header, tensors: Mapping[str, torch.Tensor], file_bytes: int) -> str:
    """A page about a model file: members, the shape and bytes of each tensor, origin, class names."""
    lines = [f"{file_bytes:,} bytes, {header.classes:,} classes, {header.features.level}-level features:"]
    for feature in header.features.features:
        stored = f"bytes over {feature.range[0]:g} … {feature.range[1]:g}" if feature.dtype == "uint8" else "float32"
        lines.append(f"  {feature.name}: {feature.size} values, {stored}")
    for index, member in enumerate(header.members):
        lines += ["", f"member {index}, weight {member.weight:g}", *_indented(member.model.to_json())]
        lines += _tensor_table(header, tensors, f"members.{index}.")
    if header.reranker is not None:
        lines += ["", "second stage", *_indented(header.reranker.model_dump(mode="json"))]
        lines += _tensor_table(header, tensors, RERANKER)
    lines += ["", "origin", *_indented(header.origin), ""]
    if header.thresholds is not None:
        low, high = header.thresholds.min(), header.thresholds.max()
        goal = header.extras[THRESHOLDS]["goal"]
        lines.append(f"thresholds for {goal}: from {low:.3f} to {high:.3f}, one for each class")
    if header.extractor is not None:
        lines.append(f"features made by the extractor {extractor_shown(header.extractor)}")
    if (segments := header.extras.get(SEGMENTS)) is not None:
        context = (
            f", {segments.get('context', 0)} frames around and {segments.get('whole', 0)} of the whole video beside"
        )
        lines.append(f"a model of segments of {segments['frames']} frames{context}")
    others = sorted(header.extras.keys() - {THRESHOLDS, EXTRACTOR, SEGMENTS})
    if others:
        lines.append(f"extras that this topgb does not know: {', '.join(others)}")
    if header.class_names is None:
        lines.append("the file names no classes")
    else:
        shown = ", ".join(f"{index} {name}" for index, name in enumerate(header.class_names[:MOST_CLASS_NAMES]))
        more = len(header.class_names) - MOST_CLASS_NAMES
        lines.append(f"classes: {shown}" + (f" and {more:,} more" if more > 0 else ""))
    return "\n".join(map(printable, lines))


def encoding_in_words(entry: TensorEncoding) -> str:
    """The encoding in words, such as `float16` or `groups of 128, 4 bits`."""
    return entry.encoding if entry.bits is None else f"groups of {entry.group}, {entry.bits} bits"


def _tensor_table(header: Header, tensors: Mapping[str, torch.Tensor], prefix: str) -> list[str]:
    entries = {name: entry for name, entry in sorted(header.tensors.items()) if name.startswith(prefix)}
    sizes = {name: stored_bytes(tensors, entry, name) for name, entry in entries.items()}
    rows = [
        (name.removeprefix(prefix), " × ".join(map(str, entry.shape)), encoding_in_words(entry), f"{sizes[name]:,}")
        for name, entry in entries.items()
    ]
    total = sum(sizes.values())
    rows = [("tensor", "shape", "encoding", "bytes"), *rows, ("total", "", "", f"{total:,}")]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        f"  {row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]:>{widths[3]}}" for row in rows
    ]


def _indented(value: dict[str, Any]) -> list[str]:
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
    return [f"  {line}" for line in text.splitlines()]
