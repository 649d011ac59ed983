"""Imports point one way, between rooms and between files, as docs/architecture.md says."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from combining.small_models import model_file

SOURCE = Path(__file__).resolve().parents[1] / "src" / "topgb"
BASE = {"errors", "features", "batch", "files", "checksums", "csv_rows", "vocabulary", "tensors", "devices", "progress"}
BASE |= {"version", "file_sets", "folder_lock", "csv_tables", "results", "json_reading", "yaml_reading"}
BASE |= {"matmul_library", "signals", "terminal", "unpacked_size", "extractor_identity", "remote_errors"}
MODELS = {"models", "modelfile", *BASE}
FIGURES = {"evaluation", "youtube8m", "records", "jobs", *MODELS}
# What each room, or file at the top, may import. A room that is not here may import nothing.
MAY_IMPORT = {
    "errors": set(),
    "json_reading": {"files"},
    "unpacked_size": {"errors"},
    "yaml_reading": {"errors", "files"},
    "version": set(),
    "remote_errors": {"errors"},
    "moved": set(),
    "terminal": {"errors"},
    "progress": {"errors", "terminal"},
    "results": {"errors"},
    "batch": set(),
    "extractor_identity": {"errors"},
    "features": {"errors"},
    "files": {"errors"},
    "file_sets": {"errors", "files"},
    "folder_lock": {"errors", "files", "signals"},
    "signals": set(),
    "checksums": {"errors", "files"},
    "devices": {"errors", "matmul_library"},
    "matmul_library": {"errors", "files", "json_reading"},
    "csv_rows": {"errors", "files", "unpacked_size"},
    "tensors": {"errors", "files", "checksums"},
    "csv_tables": {"csv_rows", "errors"},
    "vocabulary": {"csv_rows", "csv_tables", "errors", "files"},
    "jobs": {"errors", "matmul_library", "progress", "version"},
    "records": {"jobs", *BASE},
    "packing": {"records", *BASE},
    "video": {"packing", "records", *BASE},
    "youtube8m": {"records", "jobs", *BASE},
    "models": {"errors", "features", "batch", "matmul_library"},
    "modelfile": {"models", *BASE},
    "from2018": MODELS,
    "evaluation": FIGURES,
    "quantizing": FIGURES,
    "training": FIGURES,
    "combining": {"quantizing", *FIGURES},
    "demonstration": {"training", "combining", "quantizing", *FIGURES},
    "video_demonstration": {"api", "tagging", "video", *BASE},
    "serving": {"tagging", "video", "packing", *FIGURES},
    "tagging": {"video", *FIGURES},
    "api": {"tagging", "training", "combining", "quantizing", "from2018", "packing", "video", "serving", *FIGURES},
    "cli": {
        *{
            "api",
            "demonstration",
            "video_demonstration",
            "tagging",
            "training",
            "combining",
            "quantizing",
            "from2018",
            "packing",
            "video",
        },
        *FIGURES,
    },
}
# Calls of the public API: importing a submodule of that name would put the module in the call's place.
CALLS = [
    "average",
    "build",
    "card",
    "compare",
    "demo",
    "distill",
    "download",
    "drop_fakes",
    "ensemble",
    "evaluate",
    "export",
    "extract",
    "import_tf",
    "inspect",
    "load",
    "pack",
    "predict",
    "quantize",
    "remember",
    "report",
    "rerank",
    "serve",
    "shrink",
    "synth",
    "tag",
    "thresholds",
    "train",
    "verify",
]


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
    """The files of topgb that a file imports, at its top or inside a function; not for type checking alone."""
    tree = ast.parse(_files()[module].read_text())
    unseen = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for inner in block.body
        for node in ast.walk(inner)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            # A file out of a package, or a name out of a file.
            names |= {file if (file := f"{node.module}.{a.name}") in _files() else node.module for a in node.names}
    return frozenset(names & _files().keys())


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_lies_below_it(room):
    modules = [module for module in _files() if _room(module) == room]
    assert modules
    for module in modules:
        # The package itself holds the names of the public API alone.
        wrong = {name for name in _imports(module) if _room(name) not in {room, *MAY_IMPORT[room]}}
        assert not wrong, f"{module} imports {sorted(wrong)}"


def test_every_room_is_listed():
    assert {_room(module) for module in _files()} - {"", "__main__"} == set(MAY_IMPORT)


def test_no_room_has_the_name_of_a_public_call():
    assert not set(MAY_IMPORT) & set(CALLS)


def test_no_files_import_each_other_in_a_circle():
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " imports ".join([*way[way.index(module) :], module])
        if module not in done:
            for name in sorted(_imports(module)):
                visit(name, (*way, module))
            done.add(module)

    for module in sorted(_files()):
        visit(module, ())


def test_the_page_shows_every_room():
    page = (SOURCE.parents[1] / "docs" / "architecture.md").read_text()
    for room in MAY_IMPORT:
        name = f"{room}/" if (SOURCE / room).is_dir() else f"{room}.py"
        assert f"    {name}" in page, f"docs/architecture.md does not show {name}"


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
