"""topgb demo."""

from pathlib import Path
from typing import Annotated

import typer

from topgb import terminal
from topgb.cli.arguments import Force


def demo(
    out: Annotated[Path, typer.Option(help="Directory for records, run, model files and report.")] = Path("demo-out"),
    force: Force = False,
) -> None:
    """The whole story on synthetic records, with a report at the end."""
    from topgb.demonstration import run_demo
    from topgb.progress import TerminalProgress

    result = run_demo(out, force=force, progress=TerminalProgress())
    for name, scores in result.scores.items():
        terminal.say(f"{name:<20}  {result.sizes[name]:>12,} bytes  GAP@20 {scores.gap:.4f}  MAP {scores.map:.4f}")
    terminal.say(f"report: {result.report}")
