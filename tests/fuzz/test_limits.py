"""The limit on memory holds for whoever allocates; without that, no harness would notice."""

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from fuzz import planted
from fuzz.limits import Peak
from fuzz.refusals import unless_refused
from topgb.errors import InputError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")


@pytest.fixture(scope="module")
def fresh():
    """Runs functions in a new process: in this one earlier tests may have left malloc more than 100 MB to give."""
    with _new_process() as process:
        yield lambda function, *arguments: process.submit(function, *arguments).result()


def _new_process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"))


@pytest.mark.parametrize("name", planted.PLANTED)
def test_100_mb_are_noticed(name, fresh):
    assert fresh(planted.unnoticed, name) == ""


def test_what_protobuf_takes_is_no_damage(fresh):
    """It says with the error of a damaged message that the memory did not suffice."""
    assert "did not suffice" in fresh(planted.protobuf_short_of_memory)


def _freed_peak() -> int:
    peak = Peak()
    with peak.measured(0):
        np.ones(planted.SIZE, np.uint8)
    return peak.most


def test_a_peak_that_was_freed_again_is_seen():
    # In a process of its own: the others have left the memory of theirs.
    with _new_process() as process:
        assert process.submit(_freed_peak).result() > planted.SIZE * 0.9


def test_an_undocumented_end_is_no_refusal():
    # Its sentence would be escaped if it were made with it.
    escape = InputError("file")
    escape.args = ("file\x1b: escape",)
    for error in (InputError("no name"), escape):
        with pytest.raises(AssertionError):
            unless_refused(lambda error=error: _raise(error), "file")
    with pytest.raises(KeyError):
        unless_refused(lambda: _raise(KeyError("file")), "file")


def _raise(error: Exception) -> None:
    raise error
