"""Imports point one way, between rooms and between files, as docs/architecture.md says; its tree names every file."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

import topgb
from combining.small_models import model_file
from topgb.cli.main import COMMANDS, COMMANDS_OF

SOURCE = Path(__file__).resolve().parents[1] / "src" / "topgb"
PAGE = (SOURCE.parents[1] / "docs" / "architecture.md").read_text()
# The leaves that two rooms may import; the other rooms may import all.
LEAVES_OF = {
    "models": {"errors", "features", "batch", "matmul_library"},
    "jobs": {"errors", "matmul_library", "progress", "version"},
}
# Files that hold names of modules as data, and the package itself, which names the public calls' modules.
NAMING = {"topgb", "topgb.moved"}
# `topgb demo` has no call of its own.
CALLS = {*topgb._LAZY, "demo"}


@cache
def _tree() -> dict[str, str]:
    """The page's tree: what is said of each room, by the room's name, and of each file at the top."""
    lines = PAGE.partition("    src/topgb/\n")[2].partition("\n\n")[0].splitlines()
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        entry = re.fullmatch(r" {6}(\w+)(?:/|\.py) +(.+)", line)
        name = entry.group(1) if entry else name
        found[name] = found.get(name, "") + " " + (entry.group(2) if entry else line.strip())
    return found


@cache
def _arrows() -> dict[str, set[str]]:
    """The rooms that each room may import: those that the page's arrows lead to, directly or through others."""
    direct: dict[str, set[str]] = {}
    for line in PAGE.partition("## The rooms")[2].splitlines():
        if line.startswith("    ") and " → " in line:
            chain = [set(re.findall(r"\w+", part)) for part in line.split("→")]
            for above, below in pairwise(chain):
                for room in above:
                    direct.setdefault(room, set()).update(below)
    rooms = {*direct, *set().union(*direct.values())}

    def below(room: str, seen: frozenset[str]) -> set[str]:
        assert room not in seen, f"the arrows lead from {room} to itself"
        return set().union(*({each} | below(each, seen | {room}) for each in direct.get(room, ())))

    return {room: below(room, frozenset()) for room in rooms}


@cache
def _files() -> dict[str, Path]:
    """Every file of topgb by its module's name; a package's is that of its `__init__`."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = ("topgb", *path.relative_to(SOURCE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def _imports(module: str) -> frozenset[str]:
    return frozenset(_imported(_files()[module].read_text(), module not in NAMING)) - {module}


def _imported(text: str, strings: bool = True) -> Iterator[str]:
    """The files of topgb that a file's text imports, wherever the import stands.

    With `strings`, the name of a module in a string counts too, as `import_module` and the table of commands have it.
    """
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            # A file out of a package, or a name out of a file.
            names = [file if (file := f"{node.module}.{a.name}") in _files() else str(node.module) for a in node.names]
        elif strings and isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value.partition(":")[0]]
        yield from (name for name in names if name in _files() and name != "topgb")


def _with_packages(names: frozenset[str], module: str) -> set[str]:
    """`names`, and the packages that Python imports on the way to them, except those that hold `module`."""
    found = set(names)
    for name in names:
        parts = name.split(".")
        packages = {".".join(parts[:count]) for count in range(2, len(parts))}
        found |= {package for package in packages if not f"{module}.".startswith(f"{package}.")}
    return found


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _wrong(room: str, imported: set[str]) -> set[str]:
    """The imported files that a file of `room` may not import."""
    leaves = _tree().keys() - _arrows().keys()
    allowed = {room} | _arrows().get(room, set()) | LEAVES_OF.get(room, leaves)
    return {name for name in imported if _room(name) not in allowed}


@pytest.mark.parametrize("room", sorted({_room(module) for module in _files()} - {"", "__main__"}))
def test_a_room_imports_only_what_lies_below_it(room):
    for module in _files():
        if _room(module) == room:
            wrong = _wrong(room, set(_imports(module)))
            assert not wrong, f"{module} imports {sorted(wrong)}"


@pytest.mark.parametrize(
    "text",
    [
        "from topgb.quantizing.schemes import encode",
        "from topgb.quantizing import schemes",
        "import topgb.quantizing.schemes as s",
        "def f():\n    from topgb.quantizing.schemes import encode",
        "class A:\n    def f(self):\n        if 1:\n            import topgb.quantizing.schemes",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from topgb.quantizing.schemes import encode",
        "from importlib import import_module\nimport_module('topgb.quantizing.schemes')",
        "COMMANDS = {'encode': 'topgb.quantizing.schemes:encode'}",
    ],
)
def test_an_import_against_the_arrows_is_found(text):
    assert _wrong("training", set(_imported(text))) == {"topgb.quantizing.schemes"}
    assert _wrong("combining", set(_imported(text))) == set()


def test_relative_imports_and_leaves_against_the_arrows_are_found():
    with pytest.raises(AssertionError, match="relative"):
        list(_imported("from ..quantizing import schemes"))
    assert _wrong("models", {"topgb.files"}) == {"topgb.files"}
    assert _wrong("files", {"topgb.records.shards", "topgb.errors"}) == {"topgb.records.shards"}
    assert _wrong("records", {"topgb.modelfile"}) == {"topgb.modelfile"}


def test_names_of_modules_are_made_up_in_two_places():
    """`import_module` elsewhere has a string, which the tests above see."""
    makers = {
        module
        for module, path in _files().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and re.search(r"\b(import_module|__import__)\b", ast.unparse(node.func))
        and not isinstance(node.args[0], ast.Constant)
    }
    # The calls' and the commands' modules stand in tables; old names, architectures and other libraries do not.
    tables = {"topgb", "topgb.cli.main"}
    assert makers - tables == {"topgb.moved", "topgb.models.registry", "topgb.video.torch_pictures"}


def test_no_room_has_the_name_of_a_public_call():
    assert not _tree().keys() & CALLS


def test_no_files_import_each_other_in_a_circle():
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " imports ".join([*way[way.index(module) :], module])
        if module not in done:
            for name in sorted(_with_packages(_imports(module), module)):
                visit(name, (*way, module))
            done.add(module)

    for module in sorted(_files()):
        visit(module, ())


def test_the_page_shows_every_file_and_no_other():
    rooms = {path.name if path.is_dir() else path.stem for path in SOURCE.iterdir()} - {"__pycache__", "py"}
    assert _tree().keys() == rooms
    commands = {entry.partition(":")[0] for table in (COMMANDS, *COMMANDS_OF.values()) for entry in table.values()}
    for module in _files():
        if _room(module) in ("", "__main__") or module in commands or _files()[module].name == "__init__.py":
            continue
        name = module.split(".")[-1]
        assert len(module.split(".")) == 2 or re.search(rf"\b{name}\b", _tree()[_room(module)]), (
            f"docs/architecture.md does not show {module}"
        )
    stems = {module.split(".")[-1] for module in _files()}
    # Words without an underscore may be prose.
    assert {word for room in _tree().values() for word in re.findall(r"\b[a-z0-9]+_\w+\b", room)} <= stems


def test_a_file_of_the_command_line_is_a_command():
    tables = {"": COMMANDS, **COMMANDS_OF}
    expected = {
        ".".join(filter(None, ["topgb.cli", group, name.replace("-", "_")]))
        for group, table in tables.items()
        for name in table
    }
    others = {f"topgb.cli.{name}" for name in ("main", "arguments", "interrupts", "listing", "flags")}
    files = {module for module, path in _files().items() if _room(module) == "cli" and path.name != "__init__.py"}
    assert files - others == expected


def test_one_loop_goes_through_records_for_models():
    callers = {
        module
        for module, path in _files().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and "evaluation_batches" in ast.dump(node.func)
    }
    assert callers == {"topgb.evaluation.predictions"}


def test_one_way_opens_records():
    openers = {module for module in _files() if "open_dataset(" in _files()[module].read_text()}
    assert openers == {"topgb.records.dataset", "topgb.evaluation.opening"}


def test_few_files_lie_on_the_way_of_eval(small_records, tmp_path):
    """A reader of `topgb eval` opens these files, models and packages' `__init__`s aside; once there were 60."""
    model = model_file(tmp_path / "model.safetensors")
    code = (
        f"import sys; sys.argv = ['topgb', 'eval', {str(model)!r}, {small_records['validate']!r}]\n"
        "from topgb.cli.main import app\n"
        "app(prog_name='topgb', standalone_mode=False)\n"
        "print('MODULES', *(name for name in sys.modules if name.split('.')[0] == 'topgb'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = done.stdout.split("MODULES")[1].split()
    paths = {_files()[name] for name in names if _room(name) != "models" and _files()[name].name != "__init__.py"}
    assert len(paths) <= 45, sorted(map(str, paths))
    for path in paths:
        assert len(path.read_text().splitlines()) <= 300, path
