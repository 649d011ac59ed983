"""topgb model ensemble."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from topgb import terminal
from topgb.cli.arguments import (
    Device,
    Force,
    Json,
    ModelsOrRuns,
    OnDamagedOption,
    multiply_fast,
    parse_weights,
    report_damage,
)

if TYPE_CHECKING:
    from topgb.combining.weights import FittedWeights
    from topgb.modelfile import StoredModel


Out = Annotated[Path, typer.Option(help="The model file to write.")]


def ensemble(
    models: ModelsOrRuns,
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
    from topgb.files import refuse_existing
    from topgb.training.opened import open_stored

    if weights is not None and fit_weights is not None:
        raise InputError("--weights gives the shares and --fit-weights finds them; leave out one of them")
    shares = None if weights is None else parse_weights(weights)
    stored = [open_stored(model) for model in models]
    fitted = None
    if fit_weights is not None:
        refuse_existing(out, force, "a model")
        fitted = _fit(stored, fit_weights, seed, on_damaged, device)
        shares = fitted.weights.tolist()
    header = ensemble_files(stored, shares, out, force, None if fitted is None else fitted.to_json())
    shares = checked_weights(shares or [1 / len(stored)] * len(stored), len(stored))
    if json:
        value = {"models": list(map(str, models)), "weights": shares, "bytes": out.stat().st_size}
        terminal.show_json(value if fitted is None else value | fitted.to_json())
        return
    for place, (path, share) in enumerate(zip(models, shares, strict=True)):
        gap = "" if fitted is None else f"  GAP@20 {fitted.gaps[place]:.5f}"
        terminal.say(f"{share:.4f}{gap}  {path}{'' if share else '  (left out)'}")
    if fitted is not None:
        terminal.say(*_gains(fitted))
    count = len(header.members)
    terminal.say(f"{out}: {count} member{'' if count == 1 else 's'}, {out.stat().st_size:,} bytes")


def _fit(
    models: "list[StoredModel]", data: str, seed: int, on_damaged: OnDamagedOption, device: str
) -> "FittedWeights":
    from topgb.combining.parents import open_parents
    from topgb.combining.weights import fit_models
    from topgb.devices import choose_device, keep_freed_memory
    from topgb.evaluation.opening import open_for, warn_of_videos
    from topgb.modelfile.loaded import assemble_stored
    from topgb.progress import TerminalProgress

    keep_freed_memory()
    multiply_fast(device)
    chosen = choose_device(device)
    parents = open_parents(models, "make an ensemble")
    progress = TerminalProgress()
    dataset = open_for(parents, data, on_damaged, progress=progress)
    loaded = (assemble_stored(parent).to(chosen) for parent in parents)
    fitted = fit_models(loaded, dataset, chosen, seed, progress)
    report_damage(dataset.damaged)
    warn_of_videos(dataset)
    return fitted


def _gains(fitted: "FittedWeights") -> list[str]:
    lines = [
        f"equal weights   GAP@20 {fitted.gap_equal:.5f} on {fitted.videos:,} videos",
        f"fitted weights  GAP@20 {fitted.gap_fitted:.5f}, {fitted.gain:+.5f} on the videos they were fitted to",
        f"fitted to half  {fitted.cross_validated_gain:+.5f} over equal weights on the other half",
    ]
    if fitted.gain == 0:
        lines.append("fitting gains nothing here: the weights are equal")
    return lines
