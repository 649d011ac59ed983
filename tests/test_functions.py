"""Functions and files are short enough for a reader, and a private name of another library has one place."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import topgb
from topgb.cli.main import COMMANDS, COMMANDS_OF

SOURCE = Path(__file__).resolve().parents[1] / "src" / "topgb"
MOST_LINES, MOST_PARAMETERS, MOST_FILE_LINES = 60, 7, 300

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# Private names of other libraries: each is used in one file, and what comes of it has a test.
PRIVATE = {
    "_linear_pointwise": "matmul_library.py",
    "_reorder_linear_weight": "matmul_library.py",
    "_is_mkldnn_bf16_supported": "devices.py",
    "ray._private": "jobs/cluster.py",
    "_assert_tensor_metadata": "modelfile/export/exporting.py",
    "torch._higher_order_ops": "modelfile/export/scanned.py",
    "_weight_int8pack_mm": "modelfile/packed_linear.py",
    "_modules": "models/byfeature.py",
    "_new_shared": "records/batch_buffers.py",
    "_shutdown_workers": "records/reader_processes.py",
    "_foreach_lerp_": "training/ema.py",
    "torch.utils._python_dispatch": "models/activations.py",
    "torch.utils._pytree": "models/activations.py",
    "_fused_adamw_": "training/optimizer.py",
    "_version": "models/factored.py",
    "_foreach_norm": "training/optimizer.py",
    "_foreach_mul_": "training/optimizer.py",
}
# Public, though they begin so.
PUBLIC = {"_replace", "_asdict", "_fields", "_exit"}


@cache
def _trees() -> dict[str, ast.Module]:
    return {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}


def _functions() -> Iterator[tuple[str, ast.FunctionDef, bool]]:
    """Every function: where it stands, the function, and whether it is a method."""
    for name, tree in _trees().items():
        methods = {id(item) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for item in node.body}
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS) and not _is_overload(node):
                yield f"{name}:{node.lineno} {node.name}", node, id(node) in methods


def _is_overload(function: ast.FunctionDef) -> bool:
    """Whether it states types alone, for a function of the same name."""
    return any(isinstance(node, ast.Name) and node.id == "overload" for node in function.decorator_list)


def _parameters(function: ast.FunctionDef, is_method: bool) -> int:
    given = function.args
    count = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs)
    static = any(isinstance(node, ast.Name) and node.id == "staticmethod" for node in function.decorator_list)
    return count - (is_method and not static)


def _is_public_call(where: str) -> bool:
    """Whether a function is a command or its call: its parameters are the options, one line each, with explanations."""
    place, name = where.split()
    if place.startswith("cli/"):
        module = "topgb." + place.partition(".py")[0].replace("/", ".")
        return f"{module}:{name}" in {entry for table in (COMMANDS, *COMMANDS_OF.values()) for entry in table.values()}
    # A model's method may have the name of a call.
    return topgb._LAZY.get(name) == "topgb." + place.partition(".py")[0].replace("/", ".")


def _lines(where: str, node: ast.FunctionDef) -> int:
    """The lines of a function; of a public call, those of its body alone."""
    first = node.body[1] if _is_public_call(where) else node
    return node.end_lineno - first.lineno + 1


def test_functions_are_short():
    long = {where: _lines(where, node) for where, node, _ in _functions()}
    assert {where: lines for where, lines in long.items() if lines > MOST_LINES} == {}


def test_functions_take_few_parameters():
    counts = {
        where: _parameters(node, is_method) for where, node, is_method in _functions() if not _is_public_call(where)
    }
    assert {where: count for where, count in counts.items() if count > MOST_PARAMETERS} == {}


def test_files_are_short():
    lengths = {name: len((SOURCE / name).read_text().splitlines()) for name in _trees()}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_FILE_LINES} == {}


def test_no_call_unpacks_what_it_could_write():
    found = [
        f"{name}:{node.lineno}"
        for name, tree in _trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and any(isinstance(part, ast.Starred) and isinstance(part.value, (ast.Tuple, ast.List)) for part in node.args)
    ]
    assert found == []


def test_annotations_say_what_they_mean():
    """No annotation is the text "object", which stands for a type that could be named, and no progress is an object."""
    arguments = [
        (name, node) for name, tree in _trees().items() for node in ast.walk(tree) if isinstance(node, ast.arg)
    ]
    vague = [
        f"{name}:{node.lineno} {node.arg}"
        for name, node in arguments
        if node.annotation is not None
        for words in [ast.unparse(node.annotation)]
        if words == "'object'" or (node.arg == "progress" and "object" in words)
    ]
    assert vague == []


def _private_names(name: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(private name, file) of each attribute that nothing in topgb defines, and of each private module imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr) and node.attr not in _own_names():
            yield node.attr, name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("topgb"):
            parts = node.module.split(".")
            first = next((place for place, part in enumerate(parts) if _is_private(part)), None)
            if first is not None:
                yield ".".join(parts[: first + 1]), name
            yield from ((alias.name, name) for alias in node.names if _is_private(alias.name))


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC


@cache
def _own_names() -> frozenset[str]:
    """Private names that topgb itself gives: to functions, classes, variables and attributes."""
    own = set()
    for tree in _trees().values():
        for node in ast.walk(tree):
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
                own.add(node.name)
            elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
                own.add(node.id if isinstance(node, ast.Name) else node.attr)
    return frozenset(own)


def test_private_names_of_other_libraries_have_one_place_each():
    found = {pair for name, tree in _trees().items() for pair in _private_names(name, tree)}
    assert found == set(PRIVATE.items())
