"""topgb demo."""

from pathlib import Path
from typing import Annotated

import typer

from topgb import terminal
from topgb.cli.arguments import Force


def demo(
    out: Annotated[Path, typer.Option(help="Directory for records, run, model files and report.")] = Path("demo-out"),
    videos: Annotated[
        bool, typer.Option("--videos", help="The story of your own videos instead, on clips made for it.")
    ] = False,
    force: Force = False,
) -> None:
    """The whole story on synthetic records, with a report at the end.

    With --videos (and the extra video) from small clips with pictures and sound to the tags of a new one.
    """
    if videos:
        _show_videos(out, force)
        return
    from topgb.demonstration import run_demo
    from topgb.progress import TerminalProgress

    result = run_demo(out, force=force, progress=TerminalProgress())
    for name, scores in result.scores.items():
        terminal.say(f"{name:<20}  {result.sizes[name]:>12,} bytes  GAP@20 {scores.gap:.4f}  MAP {scores.map:.4f}")
    terminal.say(f"report: {result.report}")


def _show_videos(out: Path, force: bool) -> None:
    from topgb.tagging.formats import text_lines
    from topgb.video_demonstration import run_video_demo, scene_lines

    result = run_video_demo(out, force=force)
    terminal.say(f"GAP@20 {result.gap:.4f} on {result.videos} clips that were held out", "", "a new clip:")
    terminal.say(*text_lines(result.tagged))
    terminal.say("and what it really holds:", *(f"  {line}" for line in scene_lines(result.made.scenes)), "")
    terminal.say(
        f"subtitles: {result.subtitles}  (a player that opens the clip shows them)", f"report: {result.report}"
    )
