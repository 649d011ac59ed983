"""Arguments and options that several commands share."""

import reprlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from topgb import terminal
from topgb.unpacked_size import set_max_unpacked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from topgb.errors import DamagedRecordError, RecordError
    from topgb.modelfile import Header

ModelOrRun = Annotated[
    Path,
    typer.Argument(
        help="A model file, its URL (hf://OWNER/NAME/FILE, https:// …), or the directory of a run.", metavar="MODEL|RUN"
    ),
]
ModelsOrRuns = Annotated[list[Path], typer.Argument(help="Model files, or folders of runs.", metavar="MODEL|RUN…")]
Data = Annotated[
    str,
    typer.Argument(help="Records: a file, a folder, a glob in quotes, a list with commas, or a URL.", metavar="DATA"),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what exists.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of words.")]
UnlabelledOption = Annotated[
    Literal["stop", "skip", "keep"],
    typer.Option(help="Videos without a row of labels: stop and list them, leave them out, or give them no class."),
]
ValueRanges = Annotated[
    list[str] | None,
    typer.Option(
        "--range",
        help="The values of bytes 0 and 255, for every feature or for one.  [default: measured]",
        metavar="LOW,HIGH|NAME:LOW,HIGH",
    ),
]
ValidatedShare = Annotated[
    float | None,
    typer.Option(help="Share of the videos for validate*.tfrecord, chosen by their ids.", metavar="SHARE"),
]
OnDamagedOption = Annotated[
    Literal["stop", "skip"],
    typer.Option(help="At a damaged record: stop and name it, or skip it and say so at the end."),
]
UseEma = Annotated[
    bool | None,
    typer.Option("--use-ema/--no-use-ema", help="A run's EMA weights, or its raw ones.  [default: EMA if kept]"),
]
ResidentOption = Annotated[
    Literal["packed", "half", "full"] | None,
    typer.Option(
        "--resident",
        help="Large matrices in memory: packed as 8-bit codes, in half precision, or in full.  "
        "[default: packed on a CPU, full elsewhere]",
    ),
]
PrecisionOption = Annotated[
    Literal["float32", "bfloat16", "auto"],
    typer.Option(
        "--precision",
        help="Arithmetic of matrix products. bfloat16 needs a device that has it; auto takes it where it is 1.3 times "
        "as fast.",
    ),
]
Vocabulary = Annotated[
    Path | None,
    typer.Option(help="Class names: a CSV with Index and Name, such as YouTube-8M's vocabulary.csv.", metavar="CSV"),
]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:1 …")]
EngineOption = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="Go through the shards in this process, or on a Ray cluster, one shard per worker."),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="With --engine ray: the cluster.  [default: RAY_ADDRESS, else this machine's, else this machine alone]",
    ),
]


def named(header: "Header", vocabulary: Path | None) -> "Header":
    """`header`, with the class names of `vocabulary` if one is given."""
    if vocabulary is None:
        return header
    from topgb.vocabulary import check_names, read_vocabulary

    names = read_vocabulary(vocabulary)
    check_names(names, header.classes)
    return replace(header, class_names=names)


def multiply_fast(device: str) -> None:
    """Let this command's process multiply float32 matrices as its CPU does fastest; a GPU decides by itself."""
    from topgb.devices import choose_device
    from topgb.matmul_library import choose, keep_few_products, use

    keep_few_products()
    # With Ray `device` may be one that only the workers have.
    if device == "cpu" or (device == "auto" and choose_device(device).type == "cpu"):
        use(choose().path)


def said(precision: str) -> dict[str, str]:
    """The arithmetic for --json, if it was not float32."""
    return {} if precision == "float32" else {"arithmetic": precision}


def report_damage(damaged: "list[DamagedRecordError]") -> None:
    """Say on standard error how many records were left out, and where."""
    if damaged:
        terminal.tell(f"skipped {len(damaged)} damaged record{'s' if len(damaged) > 1 else ''}:")
        for error in damaged:
            terminal.tell(f"  {error.path}: record {error.record} at byte {error.offset}: {error.reason}")


def parse_weights(text: str) -> list[float]:
    """The numbers in `0.4,0.35,0.25`. Raises `InputError` if an entry is not a number."""
    from topgb.errors import InputError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--weights {reprlib.repr(text)} is not a list of numbers such as 0.4,0.35,0.25") from None


def damage_rows(damaged: "Sequence[RecordError]") -> list[dict[str, Any]]:
    """Records that cannot be read or used, and files that hold none, as JSON values."""
    return [{"file": e.path, "record": e.record, "offset": e.offset, "reason": e.reason} for e in damaged]


def _choose_max_unpacked(text: str | None) -> None:
    set_max_unpacked(text)


def max_unpacked_option() -> Any:
    """--max-unpacked, as commands hold options; the bound is the process's, so no command hands it on."""
    alone = typer.Typer()

    @alone.command()
    def _(
        max_unpacked: str | None = typer.Option(
            None,
            metavar="SIZE",
            help="The most that a compressed file may unpack to, such as 8G.  "
            "[default: 1G, or 20 times the file if that is more]",
            callback=_choose_max_unpacked,
            expose_value=False,
        ),
    ) -> None:
        pass

    return next(option for option in typer.main.get_command(alone).params if option.name == "max_unpacked")


def parse_range(text: str) -> tuple[str | None, tuple[float, float]]:
    """A feature's name, None for all, and its range. Raises `InputError` if the text is none."""
    from math import isfinite

    from topgb.errors import InputError

    name, colon, ends = text.rpartition(":")
    try:
        low, high = map(float, ends.split(","))
    except ValueError:
        low = high = 0.0
    if not (isfinite(low) and isfinite(high) and low < high):
        raise InputError(f"--range {text!r} is not LOW,HIGH or NAME:LOW,HIGH, such as --range=-2,2; low is below high")
    return (name if colon else None), (low, high)
