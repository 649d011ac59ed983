"""topgb model ensemble."""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from topgb.cli.arguments import Device, Force, Json, OnDamagedOption, report_damage

if TYPE_CHECKING:
    from topgb.combining.weights import FittedWeights


ModelFiles = Annotated[list[Path], typer.Argument(help="Two model files or more.", metavar="MODEL…")]


Out = Annotated[Path, typer.Option(help="The model file to write.")]


def ensemble(
    paths: ModelFiles,
    out: Out,
    weights: Annotated[
        str | None,
        typer.Option(metavar="W0,W1,…", help="A share for each model; they sum to 1.  [default: equal shares]"),
    ] = None,
    fit_weights: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Labelled records to find the shares on; not those you report on."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="With --fit-weights: how it divides the videos to check.")] = 0,
    on_damaged: OnDamagedOption = "stop",
    device: Device = "auto",
    force: Force = False,
    json: Json = False,
) -> None:
    """Put several models into one file, whose prediction is their weighted mean.

    They may differ in anything but the features they are given and the classes; ensembles can be put together, too.
    Tensors keep their encodings. A model whose share is 0 is left out of the file.
    """
    from topgb.combining.ensemble import checked_weights
    from topgb.combining.ensemble import ensemble as ensemble_files
    from topgb.errors import InputError
    from topgb.from2018.merged import parse_weights

    if weights is not None and fit_weights is not None:
        raise InputError("--weights gives the shares and --fit-weights finds them; leave out one of them")
    fitted = None if fit_weights is None else _fit(paths, out, fit_weights, seed, on_damaged, device, force)
    shares = None if weights is None else parse_weights(weights)
    if fitted is not None:
        shares = fitted.weights.tolist()
    header = ensemble_files(paths, shares, out, force, None if fitted is None else fitted.to_json())
    shares = checked_weights(shares or [1 / len(paths)] * len(paths), len(paths))
    if json:
        value = {"models": list(map(str, paths)), "weights": shares, "bytes": out.stat().st_size}
        typer.echo(json_module.dumps(value if fitted is None else value | fitted.to_json()))
        return
    for place, (path, share) in enumerate(zip(paths, shares, strict=True)):
        gap = "" if fitted is None else f"  GAP@20 {fitted.gaps[place]:.5f}"
        typer.echo(f"{share:.4f}{gap}  {path}{'' if share else '  (left out)'}")
    if fitted is not None:
        typer.echo(_figures(fitted))
    count = len(header.members)
    typer.echo(f"{out}: {count} member{'' if count == 1 else 's'}, {out.stat().st_size:,} bytes")


def _fit(
    paths: list[Path], out: Path, data: str, seed: int, on_damaged: OnDamagedOption, device: str, force: bool
) -> "FittedWeights":
    from topgb.combining.parents import open_for_parents, open_parents
    from topgb.combining.weights import fit_models
    from topgb.devices import choose_device, keep_freed_memory
    from topgb.files import refuse_existing
    from topgb.progress import TerminalProgress

    refuse_existing(out, force)
    keep_freed_memory()
    chosen = choose_device(device)
    parents = open_parents(paths, "make an ensemble")
    dataset = open_for_parents(parents, data, on_damaged)
    models = (parent.model().to(chosen) for parent in parents)
    fitted = fit_models(models, dataset, chosen, seed, TerminalProgress())
    report_damage(dataset.damaged)
    return fitted


def _figures(fitted: "FittedWeights") -> str:
    lines = [
        f"equal weights   GAP@20 {fitted.gap_equal:.5f} on {fitted.videos:,} videos",
        f"fitted weights  GAP@20 {fitted.gap_fitted:.5f}, {fitted.gain:+.5f} on the videos they were fitted to",
        f"fitted to half  {fitted.cross_validated_gain:+.5f} over equal weights on the other half",
    ]
    if fitted.gain == 0:
        lines.append("fitting gains nothing here: the weights are equal")
    return "\n".join(lines)
