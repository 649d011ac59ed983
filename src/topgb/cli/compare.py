"""topgb compare."""

from pathlib import Path
from typing import Annotated

import typer

from topgb import terminal
from topgb.cli.arguments import Data, Device, Json, OnDamagedOption, PrecisionOption, multiply_fast, report_damage, said

MOST_RESAMPLES = 1_000_000


def compare(
    model_a: Annotated[
        Path, typer.Argument(help="A model file, or the directory of a run (its EMA weights if kept).", metavar="A")
    ],
    model_b: Annotated[Path, typer.Argument(help="Another one.", metavar="B")],
    data: Data,
    resamples: Annotated[
        int, typer.Option(min=2, max=MOST_RESAMPLES, help="Number of draws, each of as many videos, with replacement.")
    ] = 1000,
    confidence: Annotated[float, typer.Option(min=0.01, max=0.9999, help="Share of the draws in the interval.")] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other draws.")] = 0,
    on_damaged: OnDamagedOption = "stop",
    device: Device = "auto",
    precision: PrecisionOption = "float32",
    json: Json = False,
) -> None:
    """Say by how much model B's GAP@20 is above model A's on labelled records, and how sure that is.

    Both score the same videos; the interval is a paired bootstrap's over them, far narrower than that of one figure.
    """
    from topgb.devices import choose_device, keep_freed_memory, resolved_precision
    from topgb.evaluation.compare import Bootstrap
    from topgb.evaluation.compare import compare as compare_models
    from topgb.evaluation.opening import open_for, warn_of_videos
    from topgb.progress import TerminalProgress
    from topgb.training.opened import open_model
    from topgb.vocabulary import refuse_other_names

    keep_freed_memory()
    multiply_fast(device)
    chosen = choose_device(device)
    arithmetic = resolved_precision(precision, chosen)
    a, b = (open_model(path, chosen, precision=arithmetic) for path in (model_a, model_b))
    refuse_other_names((str(model_a), a.header.class_names), (str(model_b), b.header.class_names))
    progress = TerminalProgress()
    data_a, data_b = open_for(a, data, on_damaged, progress=progress), open_for(b, data, on_damaged)
    bootstrap = Bootstrap(resamples, seed, confidence)
    found = compare_models(a, data_a, b, data_b, chosen, bootstrap, progress)
    report_damage(data_a.damaged)
    warn_of_videos(data_a)
    warn_of_videos(data_b)
    if json:
        terminal.show_json(found.to_json() | said(arithmetic))
        return
    terminal.show(f"videos  {found.videos:,}")
    terminal.show(f"A       {found.gap_a:.5f}  {model_a}")
    terminal.show(f"B       {found.gap_b:.5f}  {model_b}")
    terminal.show(
        f"B - A  {found.difference:+.5f}  {100 * found.confidence:g}% interval {found.low:+.5f} to {found.high:+.5f}, "
        f"standard error {found.standard_error:.5f}"
    )
    if found.difference == found.standard_error == 0:
        terminal.show(f"A and B are equally good in each of {found.resamples:,} resamples")
        return
    terminal.show(f"A is the better one in {100 * found.share_below_zero:.1f}% of {found.resamples:,} resamples")
