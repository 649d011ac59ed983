"""Progress of long work: a bar on a terminal and in a notebook, a line now and then elsewhere, or silence."""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

from topgb.errors import printable
from topgb.terminal import tell

LINE_SECONDS = 10.0
NOTEBOOK_SECONDS = 0.2


class Progress:
    """Long work reports to this; the base class shows nothing."""

    def begin(self, what: str, total: int, unit: str, done: int = 0) -> None:
        """A stage of `total` units begins; `done` of them are finished already."""

    def advance(self, count: int, note: str = "") -> None:
        """`count` more units are finished; `note` is shown beside them."""

    def end(self) -> None:
        """The stage is over."""

    def say(self, line: str) -> None:
        """Show a line that stays."""


SILENT = Progress()
_shown: "TerminalProgress | None" = None


class TerminalProgress(Progress):
    """Progress on standard error: a bar if that is a terminal or a notebook, else a line every ten seconds."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        # A notebook's output that can be changed.
        self._cell: Any = None

    def begin(self, what: str, total: int, unit: str, done: int = 0) -> None:
        self.end()
        self._what, self._total, self._unit = printable(what), total, unit
        self._done = self._first = done
        self._note, self._started = "", time.monotonic()
        self._last_line = self._started
        # None where the process was started without it.
        if sys.stderr is not None and sys.stderr.isatty():
            self._begin_bar()
        elif _in_notebook():
            from IPython.display import display

            self._cell = display(self._figures(), display_id=True)

    def advance(self, count: int, note: str = "") -> None:
        self._done += count
        self._note = printable(note) or self._note
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, note=self._note, speed=self._speed())
        elif self._cell is not None:
            if time.monotonic() - self._last_line > NOTEBOOK_SECONDS:
                self._last_line = time.monotonic()
                self._cell.update(self._figures())
        elif time.monotonic() - self._last_line > LINE_SECONDS:
            self._last_line = time.monotonic()
            self.say(self._line())

    def end(self) -> None:
        global _shown
        if self._bar is not None:
            with _ignoring_loss():
                self._bar.stop()
            self._bar = self._task = _shown = None
        if self._cell is not None:
            self._cell.update(self._figures())
            self._cell = None

    def say(self, line: str) -> None:
        if self._bar is not None:
            with _ignoring_loss():
                self._bar.console.print(printable(line), highlight=False, markup=False, emoji=False)
        else:
            tell(line)

    def _speed(self) -> str:
        seconds = time.monotonic() - self._started
        return f"{(self._done - self._first) / seconds:,.0f} {self._unit}/s" if seconds > 0 else ""

    def _line(self) -> str:
        share = self._done / self._total if self._total else 1.0
        rate = (self._done - self._first) / max(time.monotonic() - self._started, 1e-9)
        left = f"{(self._total - self._done) / rate:,.0f} s left" if rate else ""
        return "  ".join(part for part in (f"{self._what} {share:4.0%}", self._speed(), left, self._note) if part)

    def _figures(self) -> "_InNotebook":
        return _InNotebook(self._done, self._total, self._line())

    def _begin_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
        from rich.table import Column

        global _shown
        # In a narrow terminal the bar shrinks, not the figures.
        self._bar = Bar(
            # Names of files may hold what rich takes for markup.
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
            TaskProgressColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[speed]}", markup=False, table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True)),
            expand=True,
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(self._what, total=self._total, completed=self._done, note="", speed="")
        with _ignoring_loss():
            self._bar.start()
        _shown = self


def _ignoring_loss() -> AbstractContextManager[None]:
    """A block in which the terminal may get lost: no work ends because its progress is not seen."""
    return suppress(OSError, ValueError)


class _InNotebook:
    """A bar and its figures, as a notebook displays them; plain text where the notebook's page is not seen."""

    def __init__(self, done: int, total: int, line: str):
        self.line = line
        self.bar = f'<progress value="{done}" max="{max(total, 1)}"></progress>'

    def __repr__(self) -> str:
        return self.line

    def _repr_html_(self) -> str:
        import html

        return f"{self.bar} {html.escape(self.line)}"


def _in_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    from rich.console import Console

    return Console().is_jupyter


def end_shown() -> None:
    """Remove the bar from the terminal, if there is one, so that other output can follow."""
    if _shown is not None:
        _shown.end()


def counting(progress: Progress, what: str, unit: str) -> Callable[[int, int], None]:
    """A callback (done, total) that reports to `progress` as one stage."""
    before: int | None = None

    def on_progress(done: int, total: int) -> None:
        nonlocal before
        if before is None:
            progress.begin(what, total, unit)
        progress.advance(done - (before or 0))
        before = done
        if done == total:
            progress.end()

    return on_progress
