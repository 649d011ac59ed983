"""The help page of a group of commands: what each of them does, in the look of Typer's pages for single commands.

Typer's own printer is not used, because it imports readers of Markdown, Pygments and printers of tracebacks, which
would take a third of `topgb --help`.
"""

from collections.abc import Sequence
from inspect import cleandoc
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text


def print_listing(context: Any, commands: Sequence[tuple[str, str]]) -> None:
    """Print the usage, help and options of the group whose Click context this is, and `commands` with their help."""
    console = Console(highlight=False)
    pieces = context.command.collect_usage_pieces(context)
    usage = Text.assemble(("Usage: ", "yellow"), " ".join([context.command_path, *pieces]), style="bold")
    console.print(Padding(usage, 1))
    console.print(Padding(Text(_first_paragraph(context.command.help)), (0, 1, 1, 1)))
    options = [(", ".join(option.opts), option.help) for option in context.command.get_params(context)]
    console.print(_panel("Options", options))
    console.print(_panel("Commands", commands))


def _panel(title: str, rows: Sequence[tuple[str, str]]) -> Panel:
    table = Table(show_header=False, expand=True, box=None, pad_edge=False)
    table.add_column(style="bold cyan", no_wrap=True)
    # The greedy one: the names keep the width of the longest.
    table.add_column(ratio=1)
    for name, words in rows:
        table.add_row(Text(name), Text(_first_paragraph(words)))
    return Panel(table, border_style="dim", title=title, title_align="left")


def _first_paragraph(words: str) -> str:
    """The first paragraph of a help text, in one line."""
    return cleandoc(words).split("\n\n")[0].replace("\n", " ")
