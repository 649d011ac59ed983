"""topgb model rerank."""

from pathlib import Path
from typing import Annotated

import typer

from topgb import terminal
from topgb.cli.arguments import Force, ModelOrRun, OnDamagedOption, multiply_fast


def rerank(
    model: ModelOrRun,
    data: Annotated[
        str, typer.Option(help="Labelled records to learn from: a file, a folder, a glob in quotes, a list, or a URL.")
    ],
    scores: Annotated[
        str,
        typer.Option(
            help="Folders of topgb distill that know these videos, by models that were trained without them; "
            "comma-separated.",
            metavar="DIR,DIR,…",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The model file to write.")],
    candidates: Annotated[
        int | None,
        typer.Option(min=1, help="How many of a video's best classes are judged anew.  [default: 30, or all if fewer]"),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the videos.")] = 8,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the second stage's weights and of the order of videos.")
    ] = 0,
    on_damaged: OnDamagedOption = "stop",
    force: Force = False,
) -> None:
    """Add a second stage that judges each video's best classes anew, together.

    Prints the scores without and with it on a tenth of the videos, which are left out of its training for that.
    """
    from topgb.combining.rerank import RerankTraining
    from topgb.combining.rerank import rerank as add_second_stage
    from topgb.devices import keep_freed_memory
    from topgb.models.reranker import RerankerOptions
    from topgb.progress import TerminalProgress
    from topgb.training.opened import open_stored

    keep_freed_memory()
    multiply_fast("cpu")
    folders = [Path(part.strip()) for part in scores.split(",") if part.strip()]
    sizes = None if candidates is None else RerankerOptions(candidates=candidates)
    settings = RerankTraining(sizes, epochs, seed=seed, on_damaged=on_damaged)
    gain = add_second_stage(open_stored(model), data, folders, out, settings, force, TerminalProgress())
    for name, before, after in (
        ("GAP@20", gain.before.gap, gain.after.gap),
        ("Hit@1", gain.before.hit_at_1, gain.after.hit_at_1),
        ("PERR", gain.before.perr, gain.after.perr),
    ):
        terminal.say(f"{name:<8}{before:.4f} → {after:.4f}   on {gain.before.videos:,} videos that were left out")
    terminal.say(f"{out}: {out.stat().st_size:,} bytes")
