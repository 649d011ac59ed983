"""The program `topgb`: its commands, and how errors reach the user."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import typer

from topgb.cli.build import build
from topgb.cli.compare import compare
from topgb.cli.data.download import download
from topgb.cli.data.drop_fakes import drop_fakes
from topgb.cli.data.inspect import inspect
from topgb.cli.data.pack import pack
from topgb.cli.data.synth import synth
from topgb.cli.data.verify import verify
from topgb.cli.demo import demo
from topgb.cli.distill import distill
from topgb.cli.evaluate import evaluate
from topgb.cli.exit import end
from topgb.cli.flags import in_flags
from topgb.cli.interrupts import INTERRUPTED, end_interrupted
from topgb.cli.model.average import average
from topgb.cli.model.ensemble import ensemble
from topgb.cli.model.export import export
from topgb.cli.model.import_tf import import_tf
from topgb.cli.model.quantize import quantize
from topgb.cli.model.remember import remember
from topgb.cli.model.rerank import rerank
from topgb.cli.model.show import show
from topgb.cli.model.shrink import shrink
from topgb.cli.predict import predict
from topgb.cli.submission.check import check
from topgb.cli.submission.concat import concat
from topgb.cli.train import train
from topgb.errors import InterruptError, TopgbError, set_wording
from topgb.version import __version__


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
app.command("demo")(demo)
data = typer.Typer(help="Get records, look at them, check them, and make them.", no_args_is_help=True)
data.command("download")(download)
data.command("drop-fakes")(drop_fakes)
data.command("pack")(pack)
data.command("inspect")(inspect)
data.command("verify")(verify)
data.command("synth")(synth)
app.add_typer(data, name="data")
app.command("train", epilog=f"Recipes: {', '.join(_shipped_recipes())}.")(train)
app.command("build")(build)
app.command("distill")(distill)
app.command("eval")(evaluate)
app.command("compare")(compare)
app.command("predict")(predict)
submission = typer.Typer(help="Put submissions to the challenge together, and check them.", no_args_is_help=True)
submission.command("concat")(concat)
submission.command("check")(check)
app.add_typer(submission, name="submission")
model = typer.Typer(help="Look at model files, and make new ones from them.", no_args_is_help=True)
model.command("show")(show)
model.command("import-tf")(import_tf)
model.command("quantize")(quantize)
model.command("shrink")(shrink)
model.command("average")(average)
model.command("ensemble")(ensemble)
model.command("remember")(remember)
model.command("rerank")(rerank)
model.command("export")(export)
app.add_typer(model, name="model")


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
    earlier = set_wording(in_flags)
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
    finally:
        set_wording(earlier)


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
