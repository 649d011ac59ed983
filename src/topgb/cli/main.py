"""The program `topgb`: its commands, and how errors reach the user."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import typer

from topgb import __version__
from topgb.cli import compare, data, demo, distill, evaluate, model, submission, train
from topgb.cli.endings import end
from topgb.cli.interrupts import INTERRUPTED, end_interrupted
from topgb.errors import InterruptError, TopgbError


def _shipped_recipes() -> list[str]:
    # Not from topgb.training, which would import PyTorch before the help is printed.
    return sorted(path.stem for path in (Path(__file__).parents[1] / "recipes").glob("*.yaml"))


app = typer.Typer(
    name="topgb",
    help="Train multi-label video taggers on frame features and fit them into one model file.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.add_typer(data.app, name="data")
app.command("train", epilog=f"Recipes: {', '.join(_shipped_recipes())}.")(train.train)
app.command("build")(train.build)
app.command("distill")(distill.distill)
app.command("eval")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("predict")(evaluate.predict)
app.add_typer(submission.app, name="submission")
app.add_typer(model.app, name="model")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"topgb {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def run(interrupted: Callable[[], bool] = lambda: False) -> None:
    """Run the command line. Exit codes: 0, 1 failure, 2 bad input, 130 interrupted.

    Once `interrupted()`, any error is an interrupt's.
    """
    try:
        app(prog_name="topgb")
    except SystemExit as ended:
        # Typer's word for a KeyboardInterrupt.
        if ended.code == INTERRUPTED:
            end_interrupted()
        raise
    except KeyboardInterrupt:
        end_interrupted()
    except BrokenPipeError:
        # The reader of our output has gone (`topgb … | head`); there is nothing to say and no one to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        # What is written in C or Rust turns an interrupt into errors of its own, and those may have become ours.
        if interrupted() and not isinstance(error, InterruptError):
            end_interrupted()
        told = _told(error)
        if told is None:
            raise
        end(*told)


def _told(error: Exception) -> tuple[str, int] | None:
    """What to say of an error, and the exit code; None where it is a defect of topgb."""
    if isinstance(error, TopgbError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        place = "" if error.filename is None else f"{error.filename}: "
        return f"{place}{error.strerror or error}; check the path, its permissions and the room on the disk", 1
    # PyTorch raises it wherever the program is at that moment.
    if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker"):
        reason = str(error).removeprefix("DataLoader ").split(". ")[0]
        hint = "go on with --resume, or with fewer --workers"
        return f"a process that reads records ahead was lost ({reason}); {hint}", 1
    return None
