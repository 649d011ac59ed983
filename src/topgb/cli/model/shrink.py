"""topgb model shrink."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from topgb import terminal
from topgb.cli.arguments import Force, Json, OnDamagedOption, report_damage


def shrink(
    models: Annotated[
        list[Path],
        typer.Argument(help="Model files, or folders of runs, to choose members from.", metavar="MODEL|RUN..."),
    ],
    budget: Annotated[str, typer.Option(help="Bytes the file may have: 100MB, 1GiB, 5000000.")],
    data: Annotated[
        str, typer.Option(help="Labelled records to choose by; not those that you will report a score on.")
    ],
    out: Annotated[Path, typer.Option(help="The model file to write.")],
    work: Annotated[
        Path | None,
        typer.Option(
            help="Folder for quantised members and their scores, for other budgets.  [default: OUT.work, removed]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="How the videos are divided to check the fitted shares.")] = 0,
    on_damaged: OnDamagedOption = "stop",
    force: Force = False,
    json: Json = False,
) -> None:
    """Make the best mixture that fits a budget: choose members, and bits for each of their tensors.

    If it is stopped, the same command goes on where it was.
    """
    from topgb.combining.shrink import ShrinkOptions, parse_budget
    from topgb.combining.shrink import shrink as shrink_models
    from topgb.evaluation.opening import open_for, warn_of_videos
    from topgb.modelfile import stored_model
    from topgb.modelfile.exported import exported_bytes, exported_sizes_in_words
    from topgb.progress import TerminalProgress
    from topgb.training.opened import open_stored

    limit = parse_budget(budget)
    stored = [open_stored(model) for model in models]
    progress = TerminalProgress()
    options = ShrinkOptions(work, seed, force)
    dataset = open_for(stored, data, on_damaged, progress=progress)
    found = shrink_models(stored, limit, dataset, out, options, progress)
    report_damage(dataset.damaged)
    warn_of_videos(dataset)
    exported = exported_bytes(stored_model(out))
    if json:
        value = {
            "bytes": found.file_bytes,
            "gap": found.gap,
            "members": [{"model": found.member_names[number], "bits": bits} for number, bits in found.choice.bits],
            "frontier": [asdict(choice) for choice in found.frontier],
            "export_bytes": exported,
        }
        terminal.show_json(value)
        return
    terminal.say("     bytes  GAP@20   members × bits")
    for choice in found.frontier:
        terminal.say(f"{choice.size:>10,}  {choice.gap:.5f}  {_in_words(choice.bits)}")
    terminal.say("")
    for number, bits in found.choice.bits:
        terminal.say(f"{bits:>4g} bits  {found.member_names[number]}")
    terminal.say(
        f"{found.file_bytes:,} of {limit:,} bytes, GAP@20 {found.gap:.5f} on the records that it was chosen on",
        exported_sizes_in_words(exported),
        f"{out}: the best mixture of equal shares that fits, then shares fitted",
    )


def _in_words(bits: tuple[tuple[int, float], ...]) -> str:
    levels = [level for _, level in bits]
    return ", ".join(f"{levels.count(level)} × {level:g}" for level in sorted(set(levels), reverse=True))
