"""Calls that make model files smaller: `quantize` and `shrink`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topgb.api.arguments import (
    Data,
    PathLike,
    Size,
    check_choices,
    check_least,
    to_optional_path,
    to_path,
    to_paths,
    to_pattern,
    to_progress,
    unpacking,
)
from topgb.results import Table, plain

if TYPE_CHECKING:
    from topgb.combining.search import Mixture
    from topgb.quantizing.quantize import TensorSummary
    from topgb.records.on_damaged import OnDamaged


@dataclass(frozen=True, repr=False)
class Quantized(Table):
    """A quantised model file; other calls take it for a path. The table has a row for each tensor.

    path                    where it is
    tensors                 the effect on each tensor
    bytes_before, _after    the sizes of the two files
    export_bytes            about how large its exports to `onnx` and `pt2` are
    gap_before, gap_after   GAP@20 of the two on the records of `check`; None without any
    """

    path: Path
    tensors: "list[TensorSummary]"
    bytes_before: int
    bytes_after: int
    export_bytes: dict[str, int]
    gap_before: float | None = None
    gap_after: float | None = None

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def to_dict(self) -> dict[str, Any]:
        """`tensors`, each with its `bits` per weight, `bytes_before`, `_after`, `export_bytes`; if scored, the gaps."""
        tensors = [plain(summary) | {"bits": summary.bits} for summary in self.tensors]
        value = {"tensors": tensors, "bytes_before": self.bytes_before, "bytes_after": self.bytes_after}
        value["export_bytes"] = self.export_bytes
        return (
            value if self.gap_before is None else value | {"gap_before": self.gap_before, "gap_after": self.gap_after}
        )

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """A tensor's name, elements, encoding, bytes before and after, relative error, and bits per weight."""
        names = ("name", "elements", "encoding", "bytes_before", "bytes_after", "relative_error", "bits")
        return {name: [getattr(summary, name) for summary in self.tensors] for name in names}


@unpacking
def quantize(
    model: PathLike,
    out: PathLike,
    *,
    method: str,
    bits: float = 3.0,
    group: int = 128,
    min_elements: int = 17000,
    calibrate: Data | None = None,
    check: Data | None = None,
    on_damaged: "OnDamaged" = "stop",
    device: str = "auto",
    force: bool = False,
    max_unpacked: Size | None = None,
    progress: bool = True,
) -> Quantized:
    """Store a model's large tensors in fewer bits, and say what that costs (`topgb model quantize`).

    In 2018 that was `quantize.py`. `method` is float16; one codebook per tensor as in 2018: uniform, quantile, kmeans;
    one scale per row: int8; packed codes in groups of `group` weights: int6, int5, int4, int3; or entropy: `bits` per
    weight, decoded to 8 bits when loaded, best with records to `calibrate` on. Tensors of at most `min_elements` keep
    their form. `check` are labelled records to score the model on, before and after, on `device`. `on_damaged` "skip"
    leaves damaged records out.

    Raises `InputError` for numbers that make no sense, and if `out` exists and `force` is off.

    >>> small = topgb.quantize("run", "small.safetensors", method="int8", min_elements=100, progress=False)
    >>> small.bytes_after < small.bytes_before
    True
    """
    from topgb.devices import choose_device
    from topgb.evaluation.opening import open_for, warn_of_videos
    from topgb.evaluation.score import evaluate
    from topgb.modelfile import stored_model
    from topgb.modelfile.exported import exported_bytes
    from topgb.quantizing.quantize import QuantizeOptions, quantize_file
    from topgb.records.on_damaged import OnDamaged
    from topgb.training.opened import open_model, open_stored

    check_choices(on_damaged=(on_damaged, OnDamaged))
    settings = QuantizeOptions(method, bits, group, min_elements)
    source, path, shown = to_path(model), to_path(out), to_progress(progress)
    stored, chosen = open_stored(source), choose_device(device)
    calibration = None if calibrate is None else open_for(stored, to_pattern(calibrate), on_damaged, with_labels=False)
    checked = None if check is None else open_for(stored, to_pattern(check), on_damaged, progress=shown)
    # `out` may take the place of the model.
    before = stored.file_bytes
    summaries = quantize_file(stored, path, settings, calibration, force, shown)
    after, exported = path.stat().st_size, exported_bytes(stored_model(path))
    if calibration is not None:
        warn_of_videos(calibration)
    if checked is None:
        return Quantized(path, summaries, before, after, exported)
    gaps = [evaluate(open_model(file, chosen), checked, chosen, shown).compute().gap for file in (source, path)]
    warn_of_videos(checked)
    return Quantized(path, summaries, before, after, exported, *gaps)


@dataclass(frozen=True, repr=False)
class Shrunk(Table):
    """The best mixture that fits a budget; other calls take it for a path. The table has a row for each better mixture.

    path          where it is
    bytes         its size
    budget        the most bytes that it was allowed
    gap           its GAP@20 on the records that it was chosen on, so a little too good
    member_names  names of the members to choose from
    choice        the mixture that was written: `bits` are (member, bits per weight) pairs
    frontier      the mixtures that are better than all smaller ones
    export_bytes  about how large its exports to `onnx` and `pt2` are
    """

    path: Path
    bytes: int
    budget: int
    gap: float
    member_names: list[str]
    choice: "Mixture"
    frontier: "list[Mixture]"
    export_bytes: dict[str, int]

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def to_dict(self) -> dict[str, Any]:
        """`bytes`, `gap`, the chosen `members` with their `bits`, the `frontier`, and `export_bytes`."""
        members = [{"model": self.member_names[number], "bits": bits} for number, bits in self.choice.bits]
        value = {"bytes": self.bytes, "gap": self.gap, "members": members, "frontier": plain(self.frontier)}
        return value | {"export_bytes": self.export_bytes}

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """A mixture's `bytes` and `gap`, and its `members`: how many it has."""
        sizes, gaps = [choice.size for choice in self.frontier], [choice.gap for choice in self.frontier]
        return {"bytes": sizes, "gap": gaps, "members": [len(choice.bits) for choice in self.frontier]}


@unpacking
def shrink(
    models: Sequence[PathLike],
    out: PathLike,
    *,
    budget: int | str,
    data: Data,
    work: PathLike | None = None,
    seed: int = 0,
    on_damaged: "OnDamaged" = "stop",
    force: bool = False,
    max_unpacked: Size | None = None,
    progress: bool = True,
) -> Shrunk:
    """Make the best mixture that fits a budget: choose members, and bits for their tensors (`topgb model shrink`).

    `budget` is the bytes that the file may have, also as 100MB or 1GiB. `data` are labelled records to choose by, not
    those that you will report a score on. `work` is a folder that keeps what was quantised and scored, for other
    budgets; None means one beside `out`, removed at the end. `seed` divides the videos to check the fitted shares.
    `on_damaged` "skip" leaves damaged records out. A stopped call goes on when repeated. Raises `InputError` if nothing
    fits, models differ in features or classes, or `out` exists and `force` is off.

    >>> data = "records/validate*.tfrecord"
    >>> fitted = topgb.shrink(["run"], "fitted.safetensors", budget="1MB", data=data, progress=False)
    >>> fitted.bytes <= fitted.budget
    True
    """
    from topgb.combining.shrink import ShrinkOptions, parse_budget
    from topgb.combining.shrink import shrink as shrink_models
    from topgb.evaluation.opening import open_for, warn_of_videos
    from topgb.modelfile import stored_model
    from topgb.modelfile.exported import exported_bytes
    from topgb.records.on_damaged import OnDamaged
    from topgb.training.opened import open_stored

    check_choices(on_damaged=(on_damaged, OnDamaged))
    check_least(seed=(seed, 0))
    limit, path = parse_budget(str(budget)), to_path(out)
    stored = [open_stored(model) for model in to_paths(models)]
    options = ShrinkOptions(to_optional_path(work), seed, force)
    shown = to_progress(progress)
    dataset = open_for(stored, to_pattern(data), on_damaged, progress=shown)
    found = shrink_models(stored, limit, dataset, path, options, shown)
    warn_of_videos(dataset)
    exported = exported_bytes(stored_model(path))
    return Shrunk(path, found.file_bytes, limit, found.gap, found.member_names, found.choice, found.frontier, exported)
