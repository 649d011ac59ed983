"""Each call takes what its command takes, under the same names."""

import inspect
from keyword import iskeyword

import click
import pytest
import typer

import topgb
from topgb.cli.main import app

COMMANDS = {
    "average": "model average",
    "build": "build",
    "card": "model card",
    "compare": "compare",
    "distill": "distill",
    "download": "data download",
    "drop_fakes": "data drop-fakes",
    "ensemble": "model ensemble",
    "evaluate": "eval",
    "export": "model export",
    "extract": "extract",
    "import_tf": "model import-tf",
    "inspect": "data inspect",
    "pack": "data pack",
    "predict": "predict",
    "quantize": "model quantize",
    "remember": "model remember",
    "report": "report",
    "rerank": "model rerank",
    "serve": "serve",
    "shrink": "model shrink",
    "synth": "data synth",
    "tag": "tag",
    "thresholds": "thresholds",
    "train": "train",
    "verify": "data verify",
}
# What a call returns has `to_dict()`.
OF_COMMANDS = {"json"}
# How a command prints what its call returns.
PRINTED = {"tag": {"format"}}
# `names` of models are positions in both, and differ.
POSITIONS = {"compare": {"model_a": "a", "model_b": "b"}, "distill": {"teacher": "model"}}


def _command(words: str) -> click.Command:
    command = typer.main.get_command(app)
    context = click.Context(command)
    for word in words.split():
        command = command.get_command(context, word)
    return command


def _names(command: click.Command) -> tuple[list[str], set[str]]:
    """Arguments by position, and options as Python names of their flags."""
    positions = [each.name for each in command.params if each.param_type_name == "argument"]
    flags = [each.opts[0].lstrip("-") for each in command.params if each.param_type_name == "option"]
    options = {flag + "_" if iskeyword(flag) else flag.replace("-", "_") for flag in flags}
    return positions, options - {"help"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_call_takes_what_its_command_takes(name):
    positions, options = _names(_command(COMMANDS[name]))
    positions = [POSITIONS.get(name, {}).get(each, each) for each in positions]
    parameters = inspect.signature(getattr(topgb, name)).parameters.values()
    given = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    keywords = {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
    assert given[: len(positions)] == positions
    assert {*given[len(positions) :], *keywords} - {"progress"} == options - OF_COMMANDS - PRINTED.get(name, set())


def test_every_call_has_its_command():
    types = {name for name in topgb.__all__ if isinstance(getattr(topgb, name), type)}
    assert set(COMMANDS) == set(topgb.__all__) - types - {"__version__", "load"}
