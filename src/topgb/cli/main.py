"""The program `topgb`: its commands, and how errors reach the user."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import getdoc, signature
from pathlib import Path
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from topgb import terminal
from topgb.cli.arguments import max_unpacked_option
from topgb.cli.interrupts import INTERRUPTED, end, end_interrupted
from topgb.errors import InputError, InterruptError, TopgbError, TopgbWarning, printable, set_wording
from topgb.unpacked_size import set_max_unpacked

# Each command's file and function; a file is imported when its command is called, or listed on a help page.
COMMANDS = {
    "demo": "topgb.cli.demo:demo",
    "extract": "topgb.cli.extract:extract",
    "train": "topgb.cli.train:train",
    "build": "topgb.cli.build:build",
    "distill": "topgb.cli.distill:distill",
    "eval": "topgb.cli.eval:evaluate",
    "compare": "topgb.cli.compare:compare",
    "predict": "topgb.cli.predict:predict",
    "tag": "topgb.cli.tag:tag",
    "thresholds": "topgb.cli.thresholds:thresholds",
    "report": "topgb.cli.report:report",
    "serve": "topgb.cli.serve:serve",
    "doctor": "topgb.cli.doctor:doctor",
}
GROUPS = {
    "data": "Get records, look at them, check them, and make them.",
    "submission": "Put submissions to the challenge together, and check them.",
    "model": "Look at model files, and make new ones from them.",
}
COMMANDS_OF = {
    "data": {
        "download": "topgb.cli.data.download:download",
        "drop-fakes": "topgb.cli.data.drop_fakes:drop_fakes",
        "pack": "topgb.cli.data.pack:pack",
        "inspect": "topgb.cli.data.inspect:inspect",
        "verify": "topgb.cli.data.verify:verify",
        "synth": "topgb.cli.data.synth:synth",
    },
    "submission": {
        "concat": "topgb.cli.submission.concat:concat",
        "check": "topgb.cli.submission.check:check",
    },
    "model": {
        "show": "topgb.cli.model.show:show",
        "import-tf": "topgb.cli.model.import_tf:import_tf",
        "quantize": "topgb.cli.model.quantize:quantize",
        "shrink": "topgb.cli.model.shrink:shrink",
        "average": "topgb.cli.model.average:average",
        "ensemble": "topgb.cli.model.ensemble:ensemble",
        "remember": "topgb.cli.model.remember:remember",
        "rerank": "topgb.cli.model.rerank:rerank",
        "export": "topgb.cli.model.export:export",
        "card": "topgb.cli.model.card:card",
    },
}
# Every other command takes --max-unpacked.
UNPACKING_NOTHING = {"demo", "doctor", "tag", "build", "download", "synth", "show", "import-tf", "average", "export"}
# Flags of 2018 without an underscore, which no command has; all others have one, and none of topgb's has.
PLAIN_2018 = {"model", "gating", "lightvlad", "vlagd", "iterations", "optimizer"}
_STYLE: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": "markdown",
    "pretty_exceptions_enable": False,
}


class _Command(TyperCommand):
    """A command that knows an unquoted glob, which the shell has replaced by many names, when it sees one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # Click would name all surplus arguments, which may be thousands.
        ctx.allow_extra_args = True
        try:
            rest = super().parse_args(ctx, args)
        except Exception as error:
            # Click's own class stands in a private module of Typer's.
            unknown = type(error).__name__ == "NoSuchOption"
            said = _of_2018(getattr(error, "option_name", ""), self) if unknown else None
            if said is None:
                raise
            raise InputError(said) from None
        if ctx.args and not ctx.resilient_parsing:
            raise InputError(_surplus(ctx.args, ctx.command_path))
        return rest


def _of_2018(name: str, command: TyperCommand) -> str | None:
    """The advice for an option that the 2018 scripts had; None for others. Only theirs had underscores."""
    if "_" not in name.strip("-_") and name.lstrip("-") not in PLAIN_2018:
        return None
    here = name.replace("_", "-")
    if any(here in option.opts for option in command.params):
        return f"{name} is written {here} now; docs/coming-from-2018.md has the other flags of 2018"
    return (
        f"{name} is a flag of 2018's scripts; docs/coming-from-2018.md says what each has become: those of models are "
        "in recipes now, as in topgb train netvlad1 --data 'train*.tfrecord' --out run --set model.clusters.rgb=192"
    )


def _surplus(arguments: list[str], command: str) -> str:
    first, count = arguments[0], len(arguments)
    more = f" and {count - 1:,} more" if count > 1 else ""
    if not os.path.exists(first):
        return f"{first!r}{more} {'are' if more else 'is'} too much; {command} --help lists what it takes"
    # Names of shards differ in their numbers.
    begin = os.path.splitext(first)[0].rstrip("0123456789")
    glob = f"{begin}*{os.path.splitext(first)[1]}"
    return (
        f"{first!r}{more} {'are' if more else 'is'} too much, as when the shell fills in a glob; put it in quotes: "
        f"'{glob}'"
    )


@contextmanager
def _quoting_safely() -> Iterator[None]:
    """Escape what Typer's own errors quote from the command line."""
    try:
        yield
    except Exception as error:
        words = error.format_message() if hasattr(error, "format_message") else ""
        # The error of a call without arguments is a help page.
        if words and not isinstance(error, TopgbError) and "NoArgs" not in type(error).__name__:
            # Typer lists choices in lines of their own.
            text = printable(words.replace(":\n\t", ": ").replace(",\n\t", ", "))
            error.format_message = lambda: text  # type: ignore[attr-defined]
        raise


class _LazyGroup(TyperGroup):
    """A group with the commands in `lazy`, which are imported when they are needed, besides those that Typer knows."""

    lazy: ClassVar[dict[str, str]] = COMMANDS

    def format_help(self, ctx: Any, formatter: Any) -> None:
        # No other command prints such a page.
        from topgb.cli.listing import print_listing

        listed = [(name, getdoc(self._function(name)) or "") for name in self.lazy]
        print_listing(ctx, listed + [(name, group.help or "") for name, group in self.commands.items()])

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _quoting_safely():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        with _quoting_safely():
            return super().invoke(ctx)

    def list_commands(self, ctx: Any) -> list[str]:
        return [*self.lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        alone = typer.Typer(**_STYLE)
        recipes = f"Recipes: {', '.join(_shipped_recipes())}." if cmd_name == "train" else None
        alone.command(cmd_name, cls=_Command, epilog=recipes)(self._function(cmd_name))
        command = typer.main.get_command(alone)
        if cmd_name not in UNPACKING_NOTHING:
            command.params.append(max_unpacked_option())
        return command

    def _function(self, cmd_name: str) -> Callable[..., None]:
        module, _, name = self.lazy[cmd_name].partition(":")
        function: Callable[..., None] = getattr(import_module(module), name)
        for parameter in signature(function).parameters.values():
            for declared in getattr(parameter.annotation, "__metadata__", ()):
                # Typer would answer an unreadable file with a usage error; what opens the file says what is in the way.
                declared.readable = False
        return function


def _shipped_recipes() -> list[str]:
    # Not from topgb.training, which would import PyTorch before the help is printed.
    return sorted(path.stem for path in (Path(__file__).parents[1] / "recipes").glob("*.yaml"))


app = typer.Typer(
    name="topgb",
    help="Train multi-label video taggers on frame features and fit them into one model file.",
    no_args_is_help=True,
    cls=_LazyGroup,
    **_STYLE,
)
for _name, _help in GROUPS.items():
    _group = typer.Typer(help=_help, no_args_is_help=True, cls=type(_name, (_LazyGroup,), {"lazy": COMMANDS_OF[_name]}))
    # Typer accepts a group without commands of its own only if it has a callback.
    _group.callback()(lambda: None)
    app.add_typer(_group, name=_name)


def _print_version(wanted: bool) -> None:
    if wanted:
        from topgb.version import __version__

        terminal.show(f"topgb {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def _in_flags(name: str, value: Any = None) -> str:
    # Imported with the first message that names an option; most commands end without one.
    from topgb.cli.flags import in_flags

    return in_flags(name, value)


def _show_by(others: Callable[..., None]) -> Callable[..., None]:
    """How warnings are shown: topgb's own as a line, the rest by `others`."""

    def show(message: Warning | str, category: type[Warning], *more: Any, **named: Any) -> None:
        if issubclass(category, TopgbWarning):
            terminal.tell(f"warning: {message}")
        else:
            others(message, category, *more, **named)

    return show


def run(interrupted: Callable[[], bool] = lambda: False) -> None:
    """Run the command line. Exit codes: 0, 1 failure, 2 bad input, 130 interrupted.

    Once `interrupted()` is true, any error counts as the interrupt's.
    """
    earlier = set_wording(_in_flags)
    try:
        with warnings.catch_warnings():
            # Each sentence once, though two models may meet the same records.
            warnings.simplefilter("default", TopgbWarning)
            warnings.showwarning = _show_by(warnings.showwarning)
            app(prog_name="topgb")
    except SystemExit as ended:
        # Typer ends with this code at a KeyboardInterrupt.
        if ended.code == INTERRUPTED:
            end_interrupted()
        lost = terminal.lost()
        if lost is not None and not ended.code:
            reason = lost.strerror or lost
            end(f"cannot write the result to standard output: {reason}; write it to a place that takes it", 1)
        raise
    except KeyboardInterrupt:
        end_interrupted()
    except Exception as error:
        # Code in C or Rust turns an interrupt into other errors, which topgb may have turned into its own.
        if interrupted() and not isinstance(error, InterruptError):
            end_interrupted()
        ending = _message_and_code(error)
        if ending is None:
            raise
        end(*ending)
    finally:
        set_wording(earlier)
        set_max_unpacked(None)


def _is_lack_of_memory(error: Exception) -> bool:
    # NumPy's and pyarrow's errors are MemoryErrors; PyTorch's have only their words, and on a GPU a class of their own.
    words = ("DefaultCPUAllocator", "not enough memory", "out of memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))


def _message_and_code(error: Exception) -> tuple[str, int] | None:
    """The message for an error and the exit code; None if the error is a defect of topgb."""
    if isinstance(error, TopgbError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        place = "" if error.filename is None else f"{error.filename}: "
        return f"{place}{error.strerror or error}; check the path, its permissions and the room on the disk", 1
    if _is_lack_of_memory(error):
        reason = printable(" ".join(str(error).split())[:160]) or "Python could not get any"
        hint = (
            "in training, lower training.batch_size, data.classes or the model's sizes; otherwise use a larger machine"
        )
        return f"there is not enough memory ({reason}); {hint}", 1
    # PyTorch raises this wherever the program happens to be.
    if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker"):
        from topgb.records.training_batches import lost_reader

        return str(lost_reader(str(error).removeprefix("DataLoader ").split(". ")[0])), 1
    return None
