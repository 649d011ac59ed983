"""Imports point one way, as docs/architecture.md says."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "topgb"
LEAVES = {"csv_rows", "errors", "features", "files", "batch", "devices", "progress", "tensors", "vocabulary"}
MAY_IMPORT = {
    "errors": set(),
    "features": {"errors"},
    "files": {"errors"},
    "devices": {"errors"},
    "progress": set(),
    "batch": set(),
    "tensors": {"errors", "files"},
    "csv_rows": {"errors"},
    "vocabulary": {"csv_rows", "errors", "files"},
    "jobs": {"errors", "progress"},
    "records": {"jobs", *LEAVES},
    "models": {"errors", "features", "batch"},
    "modelfile": {"models", *LEAVES},
    "evaluation": {"modelfile", "models", "records", "jobs", *LEAVES},
    "compress": {"evaluation", "modelfile", "models", "records", *LEAVES},
    "training": {"evaluation", "modelfile", "models", "records", *LEAVES},
    "demo": {"training", "compress", "evaluation", "modelfile", "models", "records", *LEAVES},
    "cli": {"demo", "training", "compress", "evaluation", "modelfile", "models", "records", "jobs", *LEAVES},
}


def _rooms(path: Path) -> set[str]:
    """The rooms of topgb that a file imports from."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "topgb":
            parts = node.module.split(".")
            rooms |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            rooms |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("topgb.")}
    return {room for room in rooms if room in MAY_IMPORT}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_lies_below_it(room):
    files = [SOURCE / f"{room}.py"] if (SOURCE / f"{room}.py").exists() else sorted((SOURCE / room).glob("*.py"))
    assert files
    for path in files:
        wrong = _rooms(path) - MAY_IMPORT[room] - {room}
        assert not wrong, f"{path.name} imports from {wrong}"


def test_every_room_is_listed():
    rooms = {p.stem for p in SOURCE.glob("*.py")} | {p.name for p in SOURCE.iterdir() if (p / "__init__.py").exists()}
    assert rooms - {"__init__", "__main__"} == set(MAY_IMPORT)
