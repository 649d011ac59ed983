"""Arguments and options that several commands share."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    import torch

    from topgb.errors import DamagedRecordError
    from topgb.jobs.engine import Engine, EngineKind
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
EngineOption = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="Go through the shards in this process, or on a Ray cluster, a shard a worker."),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="With --engine ray: the cluster.  [default: RAY_ADDRESS, else this machine's, else this machine alone]",
    ),
]


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


@dataclass(frozen=True)
class Opened:
    """A model opened in this process, and where its work is done: the engine, the device there, the model for there."""

    here: "LoadedModel"
    engine: "Engine"
    device: "torch.device"
    model: "LoadedModel"


def open_model_for(
    kind: "EngineKind",
    address: str | None,
    path: Path,
    use_ema: bool | None,
    device: str,
    resident: Literal["packed", "half", "full"] | None,
) -> Opened:
    """The model of `open_model`, to work on this device of this process or of a cluster's workers."""
    import torch

    from topgb.devices import choose_device, keep_freed_memory
    from topgb.errors import InputError
    from topgb.jobs.remote_opening import opened_there

    keep_freed_memory()
    if kind == "local":
        engine, chosen = open_engine(kind, address), choose_device(device)
        model = open_model(path, use_ema, chosen, resident)
        return Opened(model, engine, chosen, model)
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {device} names a device of this machine; with --engine ray choose cpu or cuda")
    # First, as a wrong path should not wait for a cluster. A CPU will do, as only the header is looked at.
    here = open_model(path, use_ema, torch.device("cpu"), resident)
    engine = open_engine(kind, address, device)
    chosen = torch.device("cuda" if engine.gpus else "cpu")
    return Opened(here, engine, chosen, opened_there(partial(_open_in_worker, path, use_ema, chosen, resident)))


def open_engine(kind: "EngineKind", address: str | None, device: str = "cpu") -> "Engine":
    """The engine of these options; one on Ray is connected to, and `auto` takes GPUs where it has any."""
    from topgb.errors import InputError
    from topgb.jobs.engine import LOCAL, Engine

    if kind == "local":
        if address is not None:
            raise InputError(f"--address {address} names a Ray cluster; add --engine ray, or leave it out")
        return LOCAL
    from topgb.jobs.cluster import cluster_gpus

    gpus = cluster_gpus(address)
    if device == "cuda" and not gpus:
        raise InputError("no node of the Ray cluster has a GPU; leave out --device cuda")
    return Engine("ray", address, gpus=device != "cpu" and gpus > 0)


def _open_in_worker(
    path: Path,
    use_ema: bool | None,
    device: "torch.device",
    resident: Literal["packed", "half", "full"] | None,
) -> "LoadedModel":
    from topgb.devices import keep_freed_memory

    keep_freed_memory()
    return open_model(path, use_ema, device, resident)


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


def damage_rows(damaged: "list[DamagedRecordError]") -> list[dict[str, Any]]:
    """Damaged records as JSON values."""
    return [{"file": e.path, "record": e.record, "offset": e.offset, "reason": e.reason} for e in damaged]
