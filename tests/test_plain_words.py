"""Docstrings, comments and help texts are plain sentences: none begins with words that put its subject last."""

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "topgb"
FRONTED = re.compile(r"(?:^|[.!?] +|\n\n)(Of|What|Those) ")
# Each is a folder, or a file at the top.
ROOMS = sorted({path.relative_to(SOURCE).parts[0] for path in SOURCE.rglob("*.py")})


def _docstrings(text: str) -> Iterator[tuple[int, str]]:
    """The line and the words of every docstring."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            words = ast.get_docstring(node)
            if words is not None:
                yield node.body[0].lineno, words


def _comments(text: str) -> Iterator[tuple[int, str]]:
    """The line and the words of every comment; a comment of several lines counts by its first."""
    continued = 0
    for token in tokenize.generate_tokens(iter(text.splitlines(keepends=True)).__next__):
        if token.type == tokenize.COMMENT:
            line, column = token.start
            beside_code = bool(token.line[:column].strip())
            if beside_code or line != continued:
                yield line, token.string.lstrip("# ")
            continued = 0 if beside_code else line + 1


def _help_texts(text: str) -> Iterator[tuple[int, str]]:
    """The line and the words of the help text of every option."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.keyword) and node.arg == "help" and isinstance(node.value, ast.Constant):
            yield node.value.lineno, str(node.value.value)


def _fronted(text: str) -> list[str]:
    found = [*_docstrings(text), *_comments(text), *_help_texts(text)]
    return [f"line {line}: {words.splitlines()[0]}" for line, words in found if FRONTED.search(words)]


@pytest.mark.parametrize("room", ROOMS)
def test_no_sentence_of_a_room_begins_with_its_object(room):
    path = SOURCE / room
    for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
        assert not _fronted(file.read_text()), file


def test_such_sentences_are_found():
    lines = ['"""What a file holds."""', "x = 1  # Of the files, the first.", "# A comment of two", "# Those lines."]
    lines += ['x = Option(help="Of a run: its weights.")', "# A sentence. Of these the first.", "# It is of those."]
    first = ["line 1: What a file holds.", "line 2: Of the files, the first."]
    last = ["line 6: A sentence. Of these the first.", "line 5: Of a run: its weights."]
    assert _fronted("\n".join(lines)) == [*first, *last]
