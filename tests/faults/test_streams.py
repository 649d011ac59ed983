"""A standard stream that is closed, full, or a pipe whose reader has gone: the work is done all the same."""

import pytest

from faults.commands import final_files, fresh
from faults.programs import one_line

KINDS = ("closed", "full", "gone")
PROGRAM = """
import os, sys
from topgb.__main__ import run

kind, number = sys.argv[1], int(sys.argv[2])
del sys.argv[1:3]
if kind == "closed":
    os.close(number)
    setattr(sys, ("stdin", "stdout", "stderr")[number], None)
elif kind == "full":
    os.dup2(os.open("/dev/full", os.O_WRONLY), number)
else:
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, number)
run()
"""


@pytest.fixture(scope="module")
def run_without(zygote, tmp_path_factory):
    """Run a command with stream `number` of that kind."""
    script = tmp_path_factory.mktemp("streams") / "program.py"
    script.write_text(PROGRAM, encoding="utf-8")
    return lambda kind, number, arguments: zygote.start([kind, number, *arguments], script=script).wait()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("name", ["train", "predict", "predict-segments", "pack", "extract", "thresholds", "card"])
def test_work_is_done(name, number, kind, run_without, inputs, undisturbed, tmp_path):
    case = inputs.case(name, "few")
    out = fresh(tmp_path / "out")
    ended = run_without(kind, number, case.arguments(out))
    assert ended.code == 0, ended.err
    assert "Exception" not in ended.err
    assert final_files(out) == undisturbed(case)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_that_gets_nowhere_is_a_failure_unless_nobody_wants_it(kind, run_without, inputs):
    ended = run_without(kind, 1, ["model", "show", str(inputs.model), "--json"])
    if kind == "full":
        assert ended.code == 1
        assert "cannot write the result to standard output: No space left on device" in one_line(ended)
    else:
        assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_that_cannot_be_said_keeps_its_code(kind, run_without, tmp_path):
    assert run_without(kind, 2, ["model", "show", str(tmp_path / "absent")]).code == 2
