"""What the tests of faults share: how often to kill, the commands, and the ways to run them."""

import os
from pathlib import Path

import pytest

from faults.commands import Case, final_files, fresh, make_inputs, succeeded
from faults.programs import Command, Zygote

QUICK = 2


@pytest.fixture(scope="session")
def dose() -> int:
    """Kills of each command: `TOPGB_FAULTS`, or a few."""
    return int(os.environ.get("TOPGB_FAULTS", QUICK))


@pytest.fixture(scope="session")
def few(dose) -> int:
    """Of what differs less from one time to the next."""
    return min(dose, 5)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    made = make_inputs(tmp_path_factory.mktemp("faults"))
    yield made
    made.server.close()


@pytest.fixture(scope="session")
def command(tmp_path_factory) -> Command:
    return Command(tmp_path_factory.mktemp("command"))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, zygote: Zygote):
    """Of a command: the files that it leaves, and the seconds that it takes."""
    found: dict[str, tuple[dict[str, bytes], float]] = {}

    def look_up(case: Case) -> tuple[dict[str, bytes], float]:
        key = " ".join(case.arguments(Path()))
        if key not in found:
            out = fresh(tmp_path_factory.mktemp("undisturbed") / "out")
            ended = succeeded(zygote.start(case.arguments(out)).wait())
            found[key] = final_files(out), ended.seconds
        return found[key]

    return look_up
