"""Calls between model files and other systems' files: `export` and `import_tf`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from topgb.api.arguments import PathLike, check_choices, to_path
from topgb.api.tensor_defaults import own_defaults
from topgb.results import Result

if TYPE_CHECKING:
    from topgb.modelfile.header import Member
    from topgb.training.recipe import Overrides

Format = Literal["onnx", "pt2"]
Input = Literal["stored", "float"]


@dataclass(frozen=True, repr=False)
class Exported(Result):
    """Files that run without topgb; `open` and the like take the result for the path of the first.

    path          the file to open
    files         all files: large ONNX models keep their weights beside
    bytes         their sizes
    bytes_before  the size of the model file
    """

    path: Path
    files: list[Path]
    bytes: list[int]
    bytes_before: int

    def __fspath__(self) -> str:
        return os.fspath(self.path)


def export(
    model: PathLike,
    out: PathLike | None = None,
    *,
    to: Format = "onnx",
    input: Input = "stored",
    force: bool = False,
) -> Exported:
    """Write a file that gives a model's probabilities without topgb (`topgb model export`).

    `to` is onnx, or pt2, a program for `torch.export.load`. The file takes features and numbers of frames; mixture and
    decoding are inside (docs/export.md shows how to run it). `input` says which features: stored ones, bytes for most
    models, or float, raw values, which the file encodes as `Model.tag` does. `out` is by default the model's name with
    the ending .onnx or .pt2. Raises `InputError` if what `to` needs is not installed, or `out` exists and `force` is
    off.

    >>> topgb.export("a.safetensors", to="pt2").path
    PosixPath('a.pt2')
    """
    from topgb.modelfile.export import export_model
    from topgb.training.opened import beside, open_stored

    check_choices(to=(to, Format), input=(input, Input))
    source = to_path(model)
    stored = open_stored(source)
    path = beside(source).with_suffix(f".{to}") if out is None else to_path(out)
    with own_defaults():
        files = export_model(stored, path, to, force, input)
    return Exported(path, files, [file.stat().st_size for file in files], stored.file_bytes)


@dataclass(frozen=True, repr=False)
class ImportedFile(Result):
    """A model file made of a 2018 checkpoint; other calls take it for a path.

    path              where it is
    bytes             its size
    classes           the number of classes, V
    members           its members, with their weights and architectures
    unknown           the checkpoint's variables that no part of the model uses
    without_averages  numbers of the members without moving averages, whose weights were taken instead
    """

    path: Path
    bytes: int
    classes: int
    members: "tuple[Member, ...]"
    unknown: list[str]
    without_averages: list[int]

    def __fspath__(self) -> str:
        return os.fspath(self.path)


def import_tf(
    prefix: PathLike,
    out: PathLike,
    *,
    use_ema: bool = False,
    set: "Overrides | None" = None,
    weights: Sequence[float] | None = None,
    force: bool = False,
) -> ImportedFile:
    """Make a model file of a 2018 TensorFlow checkpoint, without TensorFlow (`topgb model import-tf`).

    `prefix` is the checkpoint without .index. `use_ema` takes the moving averages. `set` adds what the shapes of
    variables do not show: the class (`{"model": "NetVLADModelLF"}`, else read from model_flags.json beside the
    checkpoint), other 2018 flags, or options such as `model.pooling`; for one model of a merged checkpoint as
    `model_1.KEY`. `weights` are the shares of the models of a merged checkpoint, which are not in it.

    Raises `InputError` if the checkpoint cannot be read or does not fit, or `out` exists and `force` is off.

    >>> topgb.import_tf("checkpoint/model.ckpt-7", "imported.safetensors").classes
    25
    """
    from topgb.from2018.importing import import_checkpoint
    from topgb.training.recipe import parse_overrides

    path = to_path(out)
    shares = None if weights is None else list(weights)
    with own_defaults():
        found = import_checkpoint(to_path(prefix), path, use_ema, parse_overrides(set), force, shares)
    header = found.header
    size = path.stat().st_size
    return ImportedFile(path, size, header.classes, header.members, found.unknown, found.without_averages)
