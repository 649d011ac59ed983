"""Text leaves the program at one place, where control characters are escaped and a lost terminal ends nothing."""

import ast
import errno
import io
import json
import pickle
import sys
import warnings
from pathlib import Path

import pytest

from topgb import terminal
from topgb.errors import DamagedRecordError, InputError
from topgb.progress import TerminalProgress

SOURCE = Path(__file__).resolve().parents[1] / "src" / "topgb"
# C0, DEL, C1, bidirectional overrides and isolates, line separators, half a surrogate pair.
HOSTILE = "a\x00\x07\x08\t\n\r\x1b[2J\x7f\x85\x9b\u061c\u200e\u202a\u202e\u2066\u2069\u2028\u2029\ufeff\ud800z"
PRINTERS = {"say": terminal.say, "show": terminal.show, "tell": terminal.tell}
# Calls that print, and attributes by which one could.
PRINTING = {"print", "echo", "secho", "print_exc", "print_exception"}
# Asks whether standard error is a terminal, and has rich draw bars.
ALSO = {"progress.py"}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_other_file_prints(path):
    if path.name == "terminal.py":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            value = getattr(node.func, "value", None)
            # rich draws bars and help pages, whose words are topgb's own, on streams that `hold_streams` has made safe.
            rich = name == "print" and "console" in (getattr(value, "attr", ""), getattr(value, "id", ""))
            assert name not in PRINTING or rich, f"{path}:{node.lineno}"
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "sys":
            assert path.name in ALSO or node.attr not in ("stdout", "stderr", "__stdout__", "__stderr__"), path


@pytest.mark.parametrize("name", PRINTERS)
def test_control_characters_are_escaped(name, capsys):
    PRINTERS[name](HOSTILE, "é 漢字 → …")
    out, err = capsys.readouterr()
    first, second = (err if name == "tell" else out).splitlines()
    assert first.isprintable()
    assert r"\x1b[2J" in first
    assert r"\u202e" in first
    assert r"\n" in first
    assert r"\ud800" in first
    assert second == "é 漢字 → …"


def test_json_stays_json(capsys):
    terminal.show_json({HOSTILE: [HOSTILE, "é"]})
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isprintable()
    assert json.loads(line) == {HOSTILE: [HOSTILE, "é"]}


@pytest.mark.parametrize("error", [InputError(HOSTILE), DamagedRecordError(HOSTILE, 0, 0, HOSTILE)])
def test_errors_are_one_printable_line_also_in_other_processes(error):
    assert str(error).isprintable()
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


class _Lost(io.StringIO):
    """A stream that cannot be written."""

    def __init__(self, number: int):
        super().__init__()
        self._number = number

    def write(self, text: str) -> int:
        raise OSError(self._number, "lost")


class _LostTerminal(_Lost):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("name", PRINTERS)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE, errno.EIO])
def test_a_lost_stream_raises_nothing(name, number, monkeypatch):
    monkeypatch.setattr(sys, "stdout", _Lost(number))
    monkeypatch.setattr(sys, "stderr", _Lost(number))
    PRINTERS[name]("text")
    lost = terminal.lost()
    # Only a result is missed, and only by a reader who is still there.
    assert (lost is None) == (name != "show" or number == errno.EPIPE)
    assert terminal.lost() is None


@pytest.mark.parametrize("name", PRINTERS)
def test_a_stream_that_is_closed_or_not_there_raises_nothing(name, monkeypatch):
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        PRINTERS[name]("text")
    assert terminal.lost() is None


@pytest.mark.parametrize("name", PRINTERS)
def test_what_a_terminal_cannot_show_is_escaped(name, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    PRINTERS[name]("1 → é")
    assert stream.buffer.getvalue() == b"1 \\u2192 \\xe9\n"


@pytest.mark.parametrize(
    "stream", [None, _Lost(errno.EPIPE), _LostTerminal(errno.EIO)], ids=["none", "pipe", "terminal"]
)
def test_progress_ends_no_work(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("topgb.progress.LINE_SECONDS", 0.0)
    progress = TerminalProgress()
    progress.begin("reading", 3, "files")
    progress.advance(1, "half")
    progress.say("a line")
    progress.end()


def test_bars_show_names_as_they_are(monkeypatch):
    """Rich's markup and emoji, and a terminal's commands, in names of files and models."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    seen = Terminal()
    monkeypatch.setattr(sys, "stderr", seen)
    monkeypatch.setenv("COLUMNS", "200")
    progress = TerminalProgress()
    progress.begin("[red]x[/y] \x1b]0;t\x07\u202e", 2, "files")
    progress.advance(1, "[/bold] \x1b[2J")
    progress.say(":smile: [/z] \x1b[2J\u202e")
    progress.end()
    shown = seen.getvalue()
    for text in (r"[red]x[/y] \x1b]0;t\x07\u202e", r"[/bold] \x1b[2J", r":smile: [/z] \x1b[2J\u202e"):
        assert text in shown
    assert "\x1b]0" not in shown
    assert "\u202e" not in shown


def test_warnings_and_defects_are_escaped(capsys, monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", terminal._tell_warning)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("odd \x1b[2J", stacklevel=1)
    try:
        raise RuntimeError("a defect \u202e")
    except RuntimeError as error:
        terminal._tell_defect(RuntimeError, error, error.__traceback__)
    err = capsys.readouterr().err
    assert all(line.isprintable() for line in err.splitlines())
    assert r"UserWarning: odd \x1b[2J" in err
    assert err.endswith("RuntimeError: a defect \\u202e\n")
