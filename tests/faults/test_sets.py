"""A set of files that replaces another: whatever stops it, the old or the new one is there, or neither is read."""

import itertools
import random
import shutil

import pytest

from faults import figures
from faults.after_kill import run_again
from faults.commands import SETS, Case, final_files, fresh, succeeded
from faults.disks import disk_of
from faults.programs import killed, one_line
from faults.whole import check_sets, leftovers

# Another set by the same command, with more shards: the new one leaves some of them out.
OTHER = {
    "pack": ["--videos-per-shard", "5", "--store", "float32"],
    "drop-fakes": ["--threshold", "0.2"],
    "synth": ["--videos-per-shard", "10", "--seed", "1"],
}


@pytest.fixture
def replacing(inputs, zygote, undisturbed, tmp_path):
    """A command with --force; the files of an earlier set, which lie in a folder to copy; and those of the new set."""

    def prepare(name):
        plain = inputs.case(name, "few")
        earlier = fresh(tmp_path / "earlier")
        succeeded(zygote.start([*plain.arguments(earlier), *OTHER[name]]).wait())

        def arguments(out):
            return [*plain.arguments(out), "--force"]

        case = Case(name, arguments, arguments)
        old, new = final_files(earlier), undisturbed(plain)[0]
        assert old != new
        return case, earlier, old, new

    return prepare


@pytest.mark.parametrize("name", SETS)
def test_killed_before_each_final_step(name, dose, replacing, zygote, tmp_path):
    case, earlier, old, new = replacing(name)
    calls = itertools.count(1) if dose >= 10 else sorted(random.Random(name).sample(range(1, 25), 2 * dose))
    for call in calls:
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(earlier, out)
        ended = zygote.start(case.arguments(out), die=call).wait()
        if not killed(ended):
            break
        check_sets(out, [old, new])
        figures.count(f"{name}, replacing a set step by step", "tried", "while writing", "resumed", "equal")
        run_again(case, zygote, new, out)


@pytest.mark.parametrize("name", SETS)
def test_a_full_disk(name, few, replacing, zygote, tmp_path):
    case, earlier, old, new = replacing(name)
    with disk_of(tmp_path / "disk", 64 << 20) as disk:
        for part in range(few):
            shutil.copytree(earlier, disk.folder / "out")
            disk.leave(sum(map(len, new.values())) * part // few)
            ended = zygote.start(case.arguments(disk.folder / "out")).wait()
            assert ended.code == 1
            assert "No space left on device" in one_line(ended)
            assert final_files(disk.folder / "out") == old
            disk.empty()
            succeeded(zygote.start(case.arguments(disk.folder / "out")).wait())
            assert final_files(disk.folder / "out") == new
            assert leftovers(disk.folder / "out") == []
            shutil.rmtree(disk.folder / "out")
