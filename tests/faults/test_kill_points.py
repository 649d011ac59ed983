"""SIGKILL before each rename, fsync and removal in turn: between any two of them a rerun ends in the same files."""

import itertools
import random
import shutil

import pytest

from faults.after_kill import check_after_kill
from faults.commands import NAMES, fresh
from faults.programs import killed

# Of a quick dose: the first calls (a folder is begun) and as many further ones as there are random kills.
FIRST = 5
# More calls than any of the commands makes.
MOST = 400


@pytest.mark.parametrize("name", NAMES)
def test_killed_before_each_final_step(name, dose, inputs, zygote, undisturbed, tmp_path):
    case = inputs.case(name, "few")
    wanted, _ = undisturbed(case)
    further = sorted(random.Random(name).sample(range(FIRST + 1, 60), dose))
    calls = itertools.count(1) if dose >= 10 else [*range(1, FIRST + 1), *further]
    for call in calls:
        out = fresh(tmp_path / "out")
        ended = zygote.start(case.arguments(out), die=call).wait()
        if not killed(ended):
            break
        check_after_kill(case, zygote, ended, wanted, out, f"{name}, step by step")
        assert call < MOST
    shutil.rmtree(tmp_path / "out")
    assert call > 1
