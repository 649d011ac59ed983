"""topgb model import-tf."""

from pathlib import Path
from typing import Annotated

import typer

from topgb import terminal
from topgb.cli.arguments import Force, parse_weights


def import_tf(
    prefix: Annotated[
        Path, typer.Argument(help="A TensorFlow 1 checkpoint of the 2018 system, without .index.", metavar="PREFIX")
    ],
    out: Annotated[Path, typer.Option(help="The model file to write.")],
    use_ema: Annotated[bool, typer.Option("--use-ema", help="Take the moving averages, not the weights.")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting that shapes do not show: a 2018 flag (dbof_pooling_method=average) or an option "
            "(model.pooling=average).",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="W0,W1,…", help="Shares of a merged checkpoint's models, which are not in it; sum 1."),
    ] = None,
    force: Force = False,
) -> None:
    """Make a model file of a 2018 checkpoint; TensorFlow is not needed.

    The model's class is read from model_flags.json beside the checkpoint, or given with --set model=NetVLADModelLF;
    sizes come from the variables. Flags that leave no trace in them have their 2018 defaults unless set:
    dbof_pooling_method, gating_remove_diag, fv_coupling_factor, moe_l2, a ReLU where there is no batch norm, and
    moe_prob_gating_input where the classifier's input is as wide as its output.

    Each model of a merged checkpoint becomes a member; its variables tell its class, and --set model_1.KEY=VALUE is for
    that one alone. Quantised variables keep their codes, or their float16.
    """
    from topgb.from2018.importing import import_checkpoint
    from topgb.training.recipe import parse_overrides

    shares = None if weights is None else parse_weights(weights)
    imported = import_checkpoint(prefix, out, use_ema, parse_overrides(settings), force, shares)
    if imported.unknown:
        terminal.tell("variables that this model does not have were left out:")
        for name in imported.unknown:
            terminal.tell(f"  {name}")
    for place in imported.without_averages:
        terminal.tell(f"model_{place} has no moving averages; its weights were taken")
    header = imported.header
    models = [f"{member.model.aggregator} with {member.model.head}" for member in header.members]
    if weights is None:
        terminal.say(f"{out}: {models[0]}, {header.classes:,} classes")
        return
    terminal.say(f"{out}: {len(models)} members, {header.classes:,} classes")
    for place, (member, model) in enumerate(zip(header.members, models, strict=True)):
        terminal.say(f"  {place}, weight {member.weight:g}: {model}")
