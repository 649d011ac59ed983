"""What must hold of what a kill left behind, and of the same command run again."""

import json
from pathlib import Path

from faults import figures
from faults.commands import SETS, Case, Inputs, final_files, succeeded
from faults.programs import Command, Ended, Zygote, killed
from faults.whole import check_sets, check_whole, leftovers
from topgb.training.checkpoint import KEPT


def check_after_kill(
    case: Case, program: Command | Zygote, ended: Ended, wanted: dict[str, bytes], out: Path, row: str
) -> None:
    """Assert that what a kill left in `out` is whole, and that the command run again ends in the files `wanted`."""
    sums = Inputs.sums(wanted) if case.name == "download" else None
    check_whole(out, sums)
    check_sets(out, [wanted] if case.name in SETS else [])
    assert {name: out_bytes for name, out_bytes in final_files(out).items() if name in wanted}.items() <= wanted.items()
    begun = any(out.iterdir())
    moment = "while writing" if begun else "nothing written"
    figures.count(row, "tried", moment if killed(ended) else "after the end")
    if not killed(ended) and case.again is case.arguments and ended.code == 0:
        assert final_files(out) == wanted
        figures.count(row, "equal")
        return
    run_again(case, program, wanted, out)
    if begun:
        figures.count(row, "resumed")
    figures.count(row, "equal")
    if case.name == "train":
        _check_curves(out / "run")


def run_again(case: Case, program: Command | Zygote, wanted: dict[str, bytes], out: Path) -> None:
    """Run the command once more after it was stopped; assert that it ends in the files `wanted`, and no others."""
    again = program.start(case.again(out)).wait()
    if again.code == 2 and final_files(out) == wanted:
        # Killed between the rename and the end: the file is there, whole, and is not written over.
        assert "exists already" in again.err
    else:
        succeeded(again)
    assert final_files(out) == wanted
    assert leftovers(out) == []


def _check_curves(run: Path) -> None:
    """No step of the curves comes twice or in another order, and validations and the last step are all there."""
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [entry["step"] for entry in entries if "loss" in entry]
    assert steps == sorted(set(steps))
    validated = [entry["step"] for entry in entries if "validation" in entry]
    last = max(int(path.name.split("-")[1]) for path in (run / "checkpoints").glob("step-*"))
    assert validated == [last // 2, last]
    assert steps[-1] == last
    assert len(list((run / "checkpoints").iterdir())) == sum(KEPT.values())
