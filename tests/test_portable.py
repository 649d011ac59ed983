"""The driver of `make test-portable`: it goes on after a failure, ends red, and says what cannot be had."""

import os
import subprocess
import sys

import pytest

import portable
from portable import NotToBeHadError, Run, run_all, threads


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(portable, "SEEN", "import os; print('seen with', os.environ['OMP_NUM_THREADS'])")


def _absent() -> str:
    raise NotToBeHadError("pip cannot get it")


GOOD = Run("good", {"OMP_NUM_THREADS": "3"}, commands=(["-c", "print('all is well')"],))
BAD = Run("bad", commands=(["-c", "raise SystemExit('a bit differs')"], ["-c", "print('never')"]))
ABSENT = Run("absent", prepare=_absent, commands=(["-c", "print('never')"],))


def test_a_failure_is_shown_and_the_others_run(capsys):
    assert run_all([BAD, ABSENT, GOOD]) == 1
    printed = capsys.readouterr().out
    table = [line.split(maxsplit=1)[0] for line in printed.split("=== All runs")[1].splitlines() if line]
    assert table == ["bad", "absent", "good"]
    for words in (
        "FAILED with exit code 1",
        "a bit differs",
        "seen with 3",
        "pip cannot get it",
        "passed: all is well",
    ):
        assert words in printed
    assert "never" not in printed


def test_what_cannot_be_had_is_no_failure():
    assert run_all([ABSENT, GOOD]) == 0


def test_more_threads_than_cores_are_used():
    code = "import torch; print(torch.get_num_threads())"
    environment = {**os.environ, **threads(9)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "9\n"
