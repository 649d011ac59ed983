"""Store model files in fewer bits per weight."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from topgb.errors import InputError, option
from topgb.files import refuse_existing
from topgb.modelfile import Header, StoredModel, stored_model, write_model_file
from topgb.modelfile.describe import encoding_in_words
from topgb.modelfile.encodings import Parts, decode, part_names, stored_bytes, values
from topgb.modelfile.header import RERANKER, TensorEncoding
from topgb.modelfile.loaded import assemble_stored
from topgb.progress import SILENT, Progress
from topgb.quantizing.calibration import Calibration, calibrate
from topgb.quantizing.entropy import MOST_BITS, Encoded, check_reachable, entropy_coded
from topgb.quantizing.rounding import root_mean_square
from topgb.quantizing.schemes import Kind, Scheme, encode
from topgb.records.dataset import Dataset
from topgb.version import __version__

# 2018: quantize.py's --min_elements.
MIN_ELEMENTS = 17000
Method = Literal["float16", "uniform", "quantile", "kmeans", "int8", "int6", "int5", "int4", "int3", "entropy"]
METHODS: tuple[str, ...] = get_args(Method)
GROUPED = {f"int{bits}": bits for bits in (6, 5, 4, 3)}
NAMES_2018 = {f"quant_{name}": name for name in ("uniform", "quantile", "kmeans")}
# Every Huffman code has at least one bit.
LEAST_BITS = 1.5


@dataclass(frozen=True)
class QuantizeOptions:
    """How to quantise: `entropy` alone uses `bits` (mean bits per weight), `int6` to `int3` alone use `group`.

    Tensors of at most `min_elements` values keep their form.
    """

    method: str
    bits: float = 3.0
    group: int = 128
    min_elements: int = MIN_ELEMENTS

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", NAMES_2018.get(self.method, self.method))
        if self.method not in METHODS:
            raise InputError(f"there is no method {self.method!r}; there are {', '.join(METHODS)}")
        if self.group < 8 or self.group % 8:
            raise InputError(f"{option('group')} is {self.group}; it must be a multiple of 8")
        if not LEAST_BITS <= self.bits <= MOST_BITS:
            raise InputError(f"{option('bits')} is {self.bits:g}; it must be from {LEAST_BITS:g} to {MOST_BITS:g}")
        if self.min_elements < 0:
            raise InputError(f"{option('min_elements')} is {self.min_elements}; it must not be negative")

    def to_json(self) -> dict[str, Any]:
        own = (
            {"bits": self.bits} if self.method == "entropy" else {"group": self.group} if self.method in GROUPED else {}
        )
        return {"method": self.method, "min_elements": self.min_elements, **own}


@dataclass(frozen=True)
class TensorSummary:
    """The effect of quantising on one tensor. `relative_error` is ‖w − ŵ‖ / ‖w‖ against the parent's values."""

    name: str
    elements: int
    encoding: str
    bytes_before: int
    bytes_after: int
    relative_error: float

    @property
    def bits(self) -> float:
        """Bits per weight, scales and codebooks included."""
        return 8 * self.bytes_after / max(self.elements, 1)


def quantize_file(
    model: Path | StoredModel,
    out: Path,
    options: QuantizeOptions,
    calibration: Dataset | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> list[TensorSummary]:
    """Write the model with its large tensors stored as `options` say (2018: `quantize.py`); return the summaries.

    With `calibration` (records; labels are not needed) `entropy` rounds so that errors cancel in the outputs of the
    layers, and spends bits on the tensors whose errors change the predictions most. Tensors that have the wanted form
    already are copied. Raises `InputError` where a file cannot be read, `out` exists, or `entropy` cannot take so few
    bits.
    """
    refuse_existing(out, force, "a model")
    if calibration is not None and options.method != "entropy":
        raise InputError("calibration is of the method entropy; the others were measured to gain nothing by it")
    parent = stored_model(model)
    header, stored = parent.header, parent.tensors
    names = large_tensors(header, options.min_elements)
    if options.method == "entropy":
        # Check before calibrating, which takes long.
        check_reachable(options.bits, (header.tensors[name].shape for name in names))
    learnt = None
    if calibration is not None:
        learnt = calibrate(assemble_stored(parent), calibration, names, progress)
    encoded = quantize(header, stored, options, learnt, progress)
    summaries = [_summary(header, stored, name, encoded.get(name)) for name in header.tensors]
    origin = {
        "software": f"topgb {__version__}",
        "operation": "quantize",
        "settings": options.to_json() | {"calibrated": calibration is not None},
        "parents": [{"sha256": parent.sha256}],
    }
    write_model_file(out, *with_encoded(header, stored, encoded, origin), force)
    return summaries


def large_tensors(header: Header, min_elements: int = MIN_ELEMENTS) -> list[str]:
    """Names of the members' tensors of more than `min_elements` values (2018 compared in this way).

    Whole numbers are left out, and so is a second stage, because it is small.
    """
    floats = {name: entry for name, entry in header.tensors.items() if entry.encoding != "int32"}
    large = [name for name, entry in floats.items() if math.prod(entry.shape) > min_elements]
    return [name for name in large if not name.startswith(RERANKER)]


def quantize(
    header: Header,
    stored: Mapping[str, torch.Tensor],
    options: QuantizeOptions,
    calibration: Calibration | None = None,
    progress: Progress = SILENT,
) -> Encoded:
    """The large tensors encoded as `options` say, by name, without tensors that have this form already.

    Raises `InputError` as `encode` and `entropy_coded` do.
    """
    names = large_tensors(header, options.min_elements)
    if options.method == "entropy":
        tensors = {name: decode(stored, header.tensors[name], name) for name in names}
        return entropy_coded(tensors, options.bits, calibration, progress)
    scheme = _scheme(options)
    encoded: Encoded = {}
    progress.begin("quantising", len(names), "tensors")
    for name in names:
        if not _is_stored_as(header.tensors[name], scheme):
            encoded[name] = encode(decode(stored, header.tensors[name], name), scheme, name=name)
        progress.advance(1)
    progress.end()
    return encoded


def with_encoded(
    header: Header, stored: Mapping[str, torch.Tensor], encoded: Encoded, origin: dict[str, Any]
) -> tuple[Header, dict[str, torch.Tensor]]:
    """Header and stored tensors, in which the tensors of `encoded` have their new form."""
    kept = {name: entry for name, entry in header.tensors.items() if name not in encoded}
    tensors = {part: stored[part] for name, entry in kept.items() for part in part_names(name, entry)}
    for name, (_, parts) in encoded.items():
        tensors |= {name + suffix: part.contiguous() for suffix, part in parts.items()}
    entries = {name: encoded[name][0] if name in encoded else header.tensors[name] for name in header.tensors}
    return replace(header, tensors=entries, origin=origin), tensors


def _scheme(options: QuantizeOptions) -> Scheme:
    if options.method in GROUPED:
        return Scheme("groups", GROUPED[options.method], options.group)
    kinds: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}
    return Scheme(kinds[options.method])


def _is_stored_as(entry: TensorEncoding, scheme: Scheme) -> bool:
    if scheme.kind == "groups":
        return (entry.encoding, entry.bits, entry.group) == ("groups", scheme.bits, scheme.group)
    return entry.encoding == scheme.kind


def _summary(
    header: Header, stored: Mapping[str, torch.Tensor], name: str, encoded: tuple[TensorEncoding, Parts] | None
) -> TensorSummary:
    entry = header.tensors[name]
    before, elements = stored_bytes(stored, entry, name), math.prod(entry.shape)
    if encoded is None:
        return TensorSummary(name, elements, encoding_in_words(entry), before, before, 0.0)
    new, parts = encoded
    old = decode(stored, entry, name)
    size = root_mean_square(old)
    error = root_mean_square(values(parts, new, name) - old) / size if size else 0.0
    after = sum(part.nbytes for part in parts.values())
    return TensorSummary(name, elements, encoding_in_words(new), before, after, error)
