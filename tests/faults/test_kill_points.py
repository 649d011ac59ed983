"""SIGKILL before each rename, fsync and removal in turn: between any two of them a rerun ends in the same files."""

import itertools
import random
import shutil

import pytest

from faults.after_kill import check_after_kill
from faults.commands import NAMES, SETS, fresh
from faults.programs import killed

# Of a quick dose: the first calls (a folder is begun) and as many further ones as there are random kills.
FIRST = 5
# About how many calls commands make.
CALLS = {"pack": 22, "extract": 20, "synth": 16, "drop-fakes": 12, "remember": 3, "rerank": 3}
# Of these a quick dose kills one: they take seconds.
SLOW = ("shrink", "rerank")
# More calls than any of the commands makes.
MOST = 400


@pytest.mark.parametrize("name", NAMES)
def test_killed_before_each_final_step(name, dose, inputs, zygote, undisturbed, tmp_path):
    case = inputs.case(name, "few")
    wanted, _ = undisturbed(case)
    calls = itertools.count(1) if dose >= 10 else _some_calls(name, dose)
    for call in calls:
        out = fresh(tmp_path / "out")
        ended = zygote.start(case.arguments(out), die=call).wait()
        if not killed(ended):
            break
        check_after_kill(case, zygote, ended, wanted, out, f"{name}, step by step")
        assert call < MOST
    shutil.rmtree(tmp_path / "out")
    assert call > 1


def _some_calls(name, dose):
    last = CALLS.get(name, 60)
    if name in SLOW:
        return random.Random(name).sample(range(2, last + 1), 1)
    if name in SETS:
        # `test_sets.py` kills these too.
        return sorted(random.Random(name).sample(range(1, last + 1), 2 * dose))
    further = range(FIRST + 1, last + 1)
    return [*range(1, FIRST + 1), *sorted(random.Random(name).sample(further, min(dose, len(further))))]
