"""Arguments and options that several commands share."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    import torch

    from topgb.errors import DamagedRecordError
    from topgb.modelfile import Header, LoadedModel

ModelOrRun = Annotated[Path, typer.Argument(help="A model file, or the directory of a run.", metavar="MODEL|RUN")]
Data = Annotated[
    str, typer.Argument(help="Records: a file, a glob in quotes, a comma-separated list, or a URL.", metavar="DATA")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what exists.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of words.")]
OnDamagedOption = Annotated[
    Literal["stop", "skip"],
    typer.Option(help="At a damaged record: stop and name it, or skip it and say so at the end."),
]
UseEma = Annotated[
    bool | None,
    typer.Option("--use-ema/--no-use-ema", help="Of a run: its EMA weights or its raw ones.  [default: EMA if kept]"),
]
ResidentOption = Annotated[
    Literal["packed", "half", "full"] | None,
    typer.Option(
        "--resident",
        help="Large matrices in memory: packed as 8-bit codes, in half precision, or in full.  "
        "[default: packed on a CPU, full elsewhere]",
    ),
]
Vocabulary = Annotated[
    Path | None,
    typer.Option(help="Class names: a CSV with Index and Name, such as YouTube-8M's vocabulary.csv.", metavar="CSV"),
]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:1 …")]


def open_model(
    path: Path,
    use_ema: bool | None,
    device: "torch.device",
    resident: Literal["packed", "half", "full"] | None = None,
) -> "LoadedModel":
    """The model of a model file, or of a run's directory; `resident` as for `topgb.load`."""
    from topgb.errors import InputError

    if path.is_dir():
        from topgb.training.build import load_run

        return load_run(path, use_ema, resident or "full").to(device)
    from topgb.modelfile import load

    if use_ema is not None:
        raise InputError(
            f"{path} is a model file, which holds one set of weights; --use-ema chooses in a run's directory"
        )
    return load(path, device, resident)


def named(header: "Header", vocabulary: Path | None) -> "Header":
    """`header`, with the class names of `vocabulary` if one is given."""
    from topgb.vocabulary import check_names, read_vocabulary

    if vocabulary is None:
        return header
    names = read_vocabulary(vocabulary)
    check_names(names, header.classes)
    return replace(header, class_names=names)


def report_damage(damaged: "list[DamagedRecordError]") -> None:
    """Say on standard error how many records were left out, and where."""
    if damaged:
        typer.echo(f"skipped {len(damaged)} damaged record{'s' if len(damaged) > 1 else ''}:", err=True)
        for error in damaged:
            typer.echo(f"  {error.path}: record {error.record} at byte {error.offset}: {error.reason}", err=True)
