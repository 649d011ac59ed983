"""Text files are read and written in UTF-8, whatever the locale says."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "topgb"
# In these, `open` is not Python's own, or is given bytes.
OTHERS = {"os", "archive", "files", "self", "format", "tarfile", "fsspec", "av"}


def _mode(call: ast.Call) -> str:
    named = [word.value for word in call.keywords if word.arg == "mode"]
    first = 1 if isinstance(call.func, ast.Name) else 0
    given = [*call.args[first : first + 1], *named]
    return next((str(node.value) for node in given if isinstance(node, ast.Constant)), "r")


def _without_encoding(tree: ast.AST) -> list[int]:
    """The lines of calls that open text and leave its encoding to the locale."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or any(word.arg == "encoding" for word in node.keywords):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        owner = getattr(node.func, "value", None)
        owners = {getattr(owner, "id", ""), getattr(owner, "attr", "")}
        if (
            name in ("read_text", "write_text")
            or (name == "open" and not owners & OTHERS and not isinstance(owner, ast.Call) and "b" not in _mode(node))
            or any(word.arg in ("text", "universal_newlines") for word in node.keywords)
        ):
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_text_file_names_its_encoding(path):
    assert _without_encoding(ast.parse(path.read_text(encoding="utf-8"))) == []


def test_a_call_that_leaves_it_to_the_locale_is_found():
    calls = ["open(p)", "open(p, 'w')", "p.open()", "p.read_text()", "p.write_text(t)", "run(c, text=True)"]
    for call in calls:
        assert _without_encoding(ast.parse(call)) == [1], call
    for call in ("open(p, 'rb')", "p.open('wb')", "open(p, encoding='utf-8')", "os.open(p, 0)", "p.read_bytes()"):
        assert _without_encoding(ast.parse(call)) == [], call
