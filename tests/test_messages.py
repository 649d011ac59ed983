"""Messages name the options of the Python API; the command line, and it alone, writes them as flags."""

import ast
import inspect
import pickle
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

import topgb
from cli.program import topgb as program
from topgb.cli.flags import flag, in_flags
from topgb.cli.main import app
from topgb.devices import choose_device
from topgb.errors import DamagedRecordError, InputError, in_python, option, set_wording, wording
from topgb.files import refuse_existing
from topgb.from2018.merged import mixture_weights
from topgb.from2018.settings import flags_beside
from topgb.models import parse_model
from topgb.quantizing.quantize import QuantizeOptions
from topgb.training.curves import diverged
from topgb.training.recipe import load_recipe
from topgb.youtube8m.plan import take_shard

SOURCE = Path(__file__).resolve().parents[1] / "src" / "topgb"
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
# Flags of other programs than topgb: `ray start`.
FOREIGN = {"--num-cpus"}


@pytest.fixture
def on_the_command_line():
    """Messages are worded as the command line has them."""
    earlier = set_wording(in_flags)
    yield
    set_wording(earlier)


@cache
def _trees() -> dict[Path, ast.Module]:
    """The files of the Python API."""
    paths = (path for path in SOURCE.rglob("*.py") if SOURCE / "cli" not in path.parents)
    return {path: ast.parse(path.read_text()) for path in paths}


def _literals(tree: ast.Module) -> list[str]:
    """The string literals of a file, those in f-strings included, without docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(node.body[0], ast.Expr)
    }
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings)
    return [constant.value for constant in constants if isinstance(constant.value, str)]


def _named_options() -> set[str]:
    """The options that messages name."""
    names = set()
    for tree in _trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "option":
                assert isinstance(node.args[0], ast.Constant), ast.unparse(node)
                names.add(node.args[0].value)
    return names


def _python_options() -> set[str]:
    """The parameters of the public calls."""
    calls = (getattr(topgb, name) for name in topgb.__all__)
    return {name for call in calls if inspect.isfunction(call) for name in inspect.signature(call).parameters}


def _flags(command: Any) -> set[str]:
    """The flags of a command of Click, and of those below it."""
    own = {name for each in command.params for name in each.opts}
    if not hasattr(command, "list_commands"):
        return own
    context = command.make_context("topgb", ["--"], resilient_parsing=True)
    return own.union(*(_flags(command.get_command(context, name)) for name in command.list_commands(context)))


def test_no_message_of_the_python_api_holds_a_flag():
    for path, tree in _trees().items():
        found = {name for literal in _literals(tree) for name in FLAG.findall(literal)} - FOREIGN
        assert not found, f"{path} names {sorted(found)}; use topgb.errors.option"


def test_what_messages_name_is_an_option_of_the_python_api():
    assert len(_named_options()) > 30
    assert not _named_options() - _python_options()


def test_what_messages_name_has_a_flag():
    commands = typer.main.get_command(app)
    assert not {flag(name) for name in _named_options()} - _flags(commands)


def test_no_message_is_made_while_a_module_is_imported():
    # The command line chooses its wording later.
    def calls(node: ast.AST) -> list[str]:
        if isinstance(node, ast.FunctionDef):
            # What is called there and then: decorators and defaults.
            return [call for part in (*node.decorator_list, node.args) for call in calls(part)]
        own = [ast.unparse(node)] if isinstance(node, ast.Call) and ast.unparse(node.func) == "option" else []
        return [*own, *(call for part in ast.iter_child_nodes(node) for call in calls(part))]

    assert calls(ast.parse("def f(x=option('a')):\n    return option('b')")) == ["option('a')"]
    for path, tree in _trees().items():
        assert not calls(tree), path


def _refusals(folder: Path) -> dict[str, tuple[str, str]]:
    """Errors of the Python API as they are worded now, and the ends that they have in Python and as flags."""

    def words(call, *arguments) -> str:
        with pytest.raises(InputError) as caught:
            call(*arguments)
        return str(caught.value)

    return {
        words(refuse_existing, Path(__file__), False): ("with force=True", "with --force"),
        words(choose_device, "abacus"): ("use device='cpu'", "use --device cpu"),
        words(QuantizeOptions, "int4", 3.0, 7): (
            "group is 7; it must be a multiple of 8",
            "--group is 7; it must be a multiple of 8",
        ),
        words(load_recipe, "rnn1", ["epochs"]): (
            "set 'epochs' is not KEY=VALUE, such as set={'model.clusters': 64}",
            "--set 'epochs' is not KEY=VALUE, such as --set model.clusters=64",
        ),
        words(flags_beside, folder / "prefix"): ("give set={'model': '…'}", "give --set model=…"),
        words(mixture_weights, None, ["model_0/", "model_1/"], "m"): ("weights=('W0', 'W1')", "--weights W0,W1"),
        words(take_shard, {}, (3, 100)): (
            "shard=(3, 100) takes none of the plan's 0 files; give fewer parts",
            "--shard 3,100 takes none of the plan's 0 files; give fewer parts",
        ),
        words(parse_model, {"aggregator": "average"}): (
            "state it in the recipe or with set={'model.head': '…'}",
            "state it in the recipe or with --set model.head=…",
        ),
        str(diverged(5, folder)): (
            "(set={'optimizer.learning_rate': '…'}) or clipped gradients (set={'optimizer.clip_norm': 1.0})",
            "(--set optimizer.learning_rate=…) or clipped gradients (--set optimizer.clip_norm=1)",
        ),
        str(DamagedRecordError("a", 0, 0, "cut")): ("with on_damaged='skip'", "with --on-damaged skip"),
    }


def test_errors_name_options_as_python_has_them(tmp_path):
    (tmp_path / "model_flags.json").write_text("{")
    for message, (in_code, _) in _refusals(tmp_path).items():
        assert message.endswith(in_code)
        assert not FLAG.search(message)


def test_the_command_line_has_flags_in_the_same_errors(tmp_path, on_the_command_line):
    (tmp_path / "model_flags.json").write_text("{")
    for message, (_, as_flags) in _refusals(tmp_path).items():
        assert message.endswith(as_flags)


@pytest.mark.parametrize(
    ("named", "in_code", "as_flags"),
    [
        (("top_k",), "top_k", "--top-k"),
        (("engine", "ray"), "engine='ray'", "--engine ray"),
        (("resume", True), "resume=True", "--resume"),
        (("validate", 0.25), "validate=0.25", "--validate 0.25"),
        (("set", {"a": 1, "b": 2}), "set={'a': 1, 'b': 2}", "--set a=1 --set b=2"),
        (("range", {"rgb": (-2.0, 2.5)}), "range={'rgb': (-2.0, 2.5)}", "--range rgb:-2,2.5"),
    ],
)
def test_wordings(named, in_code, as_flags):
    assert (in_python(*named), in_flags(*named)) == (in_code, as_flags)


def test_a_command_words_its_own_messages_alone(tmp_path):
    out = tmp_path / "demo"
    out.write_text("")
    done = program("demo", "--out", out)
    assert done.returncode == 2
    assert done.stderr.endswith("choose another --out\n")
    assert (wording(), option("out")) == (in_python, "out")


def test_a_damaged_record_is_worded_where_it_arrives(on_the_command_line):
    sent = pickle.dumps(DamagedRecordError("a", 0, 0, "cut"))
    set_wording(in_python)
    assert str(pickle.loads(sent)).endswith("with on_damaged='skip'")


def test_the_wording_travels_to_other_processes(on_the_command_line):
    assert pickle.loads(pickle.dumps(wording()))("top_k", 3) == in_flags("top_k", 3) == "--top-k 3"
