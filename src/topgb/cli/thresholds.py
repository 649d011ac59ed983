"""topgb thresholds."""

from pathlib import Path
from typing import Annotated

import typer

from topgb import terminal
from topgb.cli.arguments import (
    Data,
    Device,
    Force,
    Json,
    ModelOrRun,
    OnDamagedOption,
    UseEma,
    multiply_fast,
    report_damage,
)


def thresholds(
    model: ModelOrRun,
    data: Data,
    out: Annotated[Path, typer.Option(help="The model file to write.")],
    goal: Annotated[
        str,
        typer.Option(
            "--for",
            help="f1_micro (F1 of all pairs), f1_macro (mean F1 of the classes), f1 (the mean of the two); "
            "precision=0.9 or recall=0.8 (at least that, and the most of the other).",
            metavar="GOAL",
        ),
    ] = "f1",
    use_ema: UseEma = None,
    force: Force = False,
    on_damaged: OnDamagedOption = "stop",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Find the probability from which each class is given, on records the model was not trained on, and keep it.

    The thresholds go into the new file, where topgb eval, topgb predict and topgb.load find them. A class with few
    labels is judged by its probabilities and by what holds for all classes.
    """
    from topgb.api.deciding import thresholds as find

    multiply_fast(device)
    found = find(model, data, out, for_=goal, use_ema=use_ema, force=force, on_damaged=on_damaged, device=device)
    report_damage(found.damaged)
    if json:
        terminal.show_json(found.to_dict())
        return
    ordered = sorted(found.values)
    low, middle, high = (ordered[int(share * (len(ordered) - 1))] for share in (0.1, 0.5, 0.9))
    terminal.say(f"videos       {found.videos:,}")
    terminal.say(f"for          {found.goal}")
    terminal.say(
        f"thresholds   {middle:.3f}, the middle one of {len(ordered):,}; 8 of 10 lie from {low:.3f} to {high:.3f}"
    )
    terminal.say(f"common one   {found.common:.3f}")
    terminal.say(f"file         {out}")
