"""Every public call is explained, by an example that runs among others."""

import doctest
import inspect

import numpy as np
import pytest

import topgb

CALLS = [
    name for name in topgb.__all__ if callable(getattr(topgb, name)) and not isinstance(getattr(topgb, name), type)
]


@pytest.mark.parametrize("name", [*CALLS, "Model"])
def test_an_example_of_a_call_runs(name, workplace, monkeypatch):
    monkeypatch.chdir(workplace.folder)
    call = getattr(topgb, name)
    known = {"topgb": topgb, "np": np, "recipe": workplace.recipe, "server": workplace.server}
    examples = doctest.DocTestFinder(recurse=False).find(call, name, globs=known)
    assert sum(len(example.examples) for example in examples) > 0
    told: list[str] = []
    for example in examples:
        doctest.DocTestRunner().run(example, out=told.append)
    assert not told, "".join(told)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_says_what_it_raises_and_names_its_options(name):
    call = getattr(topgb, name)
    assert "InputError" in call.__doc__
    signature = inspect.signature(call)
    optional = [each for each in signature.parameters.values() if each.default is not each.empty]
    keywords = {each.name for each in signature.parameters.values() if each.kind is each.KEYWORD_ONLY}
    # `load` is no command; `out` follows the positions of the commands.
    assert name == "load" or {each.name for each in optional} - {"out"} <= keywords


def test_help_and_dir_show_every_call():
    assert set(topgb.__all__) <= set(dir(topgb))
    assert all(f"{name}" in topgb.__doc__ for name in CALLS)
