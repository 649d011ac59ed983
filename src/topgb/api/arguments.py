"""Arguments that several public calls share: the values that they accept, and the errors for others."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args

from topgb.api.tensor_defaults import own_defaults
from topgb.errors import InputError, option, wording
from topgb.progress import SILENT, Progress, TerminalProgress
from topgb.unpacked_size import parse_size, unpacking_to

if TYPE_CHECKING:
    from topgb.api.model import Model
    from topgb.devices import PrecisionChoice, Resident
    from topgb.jobs.engine import EngineKind
    from topgb.modelfile import Header
    from topgb.training.opened import OpenedModel

PathLike = str | os.PathLike[str]
# A path, a glob, a URL or several of these with commas between them; or a sequence of them.
Data = PathLike | Sequence[PathLike]
# Bytes, or a text such as 8G.
Size = int | str
# The values of bytes 0 and 255.
Range = tuple[float, float]
# Videos without a row of labels.
Unlabelled = Literal["stop", "skip", "keep"]

Call = TypeVar("Call", bound=Callable[..., Any])


def unpacking(call: Call) -> Call:
    """A public call that lets compressed files unpack to `max_unpacked` (see `topgb.unpacked_size`) while it runs.

    The caller's defaults for tensors are not those of the call (`own_defaults`).
    """

    @functools.wraps(call)
    def bounded(*arguments: Any, **options: Any) -> Any:
        size = options.get("max_unpacked")
        with own_defaults(), nullcontext() if size is None else unpacking_to(parse_size(str(size))):
            return call(*arguments, **options)

    return cast(Call, bounded)


def to_path(given: PathLike) -> Path:
    """The path that the user gave, `~` expanded. Raises `InputError` for a value that is no path."""
    try:
        return Path(given).expanduser()
    except TypeError:
        raise InputError(f"{given!r} is no path; give a str or a pathlib.Path") from None


def to_optional_path(given: PathLike | None) -> Path | None:
    """The path that the user gave, if any. Raises `InputError` as `to_path` does."""
    return None if given is None else to_path(given)


def to_paths(given: Sequence[PathLike]) -> list[Path]:
    """The paths in a list. Raises `InputError` for a single path, and as `to_path` does."""
    if isinstance(given, str | os.PathLike) or not isinstance(given, Sequence):
        raise InputError(f"{given!r} is not a list of models; give [A, B]")
    return [to_path(one) for one in given]


def to_pattern(data: Data) -> str | list[str]:
    """Records as `find_shards` takes them; a comma parts the pieces of a str only. Raises `InputError` for others."""
    if isinstance(data, str):
        return data
    pieces = [data] if isinstance(data, os.PathLike) else data
    if not isinstance(pieces, Sequence) or not all(isinstance(piece, str | os.PathLike) for piece in pieces):
        raise InputError(f"{data!r} names no records; give a path, a glob or a list of these")
    found = [os.fspath(piece) for piece in pieces]
    return found[0] if len(found) == 1 and "," not in found[0] else found


def to_progress(shown: bool) -> Progress:
    """Where a call reports: a bar or lines, or nowhere."""
    return TerminalProgress() if shown else SILENT


def check_choices(**given: tuple[Any, Any]) -> None:
    """Check options of (value, its `Literal` type). Raises `InputError` for a value that is none of the choices."""
    for name, (value, kind) in given.items():
        if value not in get_args(kind):
            raise InputError(f"{wording()(name, value)} is none of {', '.join(get_args(kind))}")


def check_least(**given: tuple[float | None, float]) -> None:
    """Check options of (number, its least value). Raises `InputError` for anything else; None is fine."""
    for name, (value, least) in given.items():
        if value is not None and not isinstance(value, int | float):
            raise InputError(f"{wording()(name, value)} is no number")
        if value is not None and not value >= least:
            raise InputError(f"{wording()(name, value)} is too small; it is {least:g} at least")


def check_pairs(kind: type[int] | type[float], **given: Any) -> None:
    """Check options that are two numbers. Raises `InputError` for anything else; None is fine."""
    for name, value in given.items():
        numbers = int if kind is int else int | float
        if value is not None and not (
            isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(one, numbers) for one in value)
        ):
            raise InputError(f"{wording()(name, value)} is not two numbers")


def named(header: "Header", vocabulary: PathLike | None) -> "Header":
    """`header`, with the class names of the CSV `vocabulary` if one is given. Raises `InputError` as reading does."""
    if vocabulary is None:
        return header
    from topgb.vocabulary import check_names, read_vocabulary

    names = read_vocabulary(to_path(vocabulary))
    check_names(names, header.classes)
    return replace(header, class_names=names)


@dataclass(frozen=True)
class Opening:
    """How a call opens its model: which weights of a run, and where and how they compute."""

    use_ema: bool | None = None
    device: str = "auto"
    resident: "Resident | None" = None
    engine: "EngineKind" = "local"
    address: str | None = None
    precision: "PrecisionChoice" = "float32"


def refuse_input(path: Path, read: PathLike | None) -> None:
    """Raise `InputError` if the file `path`, to be written, is the file `read`, even if it may be overwritten."""
    if read is not None and path.exists() and os.path.exists(read) and os.path.samefile(path, read):
        raise InputError(f"{path} is read by this command, and writing it would destroy it; choose another name")


def open_given(model: "PathLike | Model", how: Opening) -> "OpenedModel":
    """The model that the user gave: a file, a run's folder, or a `topgb.Model`, which computes where it is.

    Raises `InputError` as `open_for_engine` does, and for options about opening a model that is open already.
    """
    from topgb.api.model import Model
    from topgb.devices import PrecisionChoice, choose_device
    from topgb.jobs.engine import EngineKind
    from topgb.matmul_library import prefer_faster
    from topgb.training.opened import OpenedModel, open_for_engine

    check_choices(engine=(how.engine, EngineKind), precision=(how.precision, PrecisionChoice))
    if not isinstance(model, Model):
        if how.engine == "local" and choose_device(how.device).type == "cpu":
            prefer_faster()
        return open_for_engine(
            to_path(model), how.use_ema, how.device, how.resident, how.engine, how.address, how.precision
        )
    if how != Opening():
        raise InputError(
            f"the model is open already, and {option('device')}, {option('use_ema')}, {option('resident')}, "
            f"{option('precision')} and {option('engine')} say how to open one; give its path, or leave them out"
        )
    return OpenedModel(model.loaded, model.loaded, model.device)


def to_ranges(given: Mapping[str, Range] | Range | None) -> dict[str | None, Range]:
    """The ranges of bytes by feature name; that of every feature under None. Raises `InputError` for other values."""
    ranges: dict[str | None, Range] = {}
    if isinstance(given, Mapping):
        ranges.update(given)
    elif given is not None:
        ranges[None] = given
    for ends in ranges.values():
        check_pairs(float, range=ends)
    return ranges
