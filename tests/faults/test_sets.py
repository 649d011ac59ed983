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
from topgb.training.replaced_run import EARLIER

# Another set by the same command, with more shards: the new one leaves some of them out.
OTHER = {
    "distill": ["--top-k", "5"],
    "pack": ["--videos-per-shard", "5", "--store", "float32"],
    # The same features: those of the old set make the new one.
    "extract": ["--validate", "0.5"],
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


@pytest.mark.parametrize("name", [*SETS, "distill"])
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


@pytest.mark.parametrize("name", [*SETS, "distill"])
def test_a_full_disk(name, few, replacing, zygote, tmp_path):
    case, earlier, old, new = replacing(name)
    with disk_of(tmp_path / "disk", 64 << 20) as disk:
        for part in range(few):
            shutil.copytree(earlier, disk.folder / "out")
            disk.leave(sum(map(len, new.values())) * part // few)
            ended = zygote.start(case.arguments(disk.folder / "out")).wait()
            assert ended.code == 1
            assert "No space left on device" in one_line(ended)
            # `distill` keeps what it has finished, and goes on with it.
            kept = {name: content for name, content in final_files(disk.folder / "out").items() if "/." not in name}
            assert kept == old
            disk.empty()
            succeeded(zygote.start(case.arguments(disk.folder / "out")).wait())
            assert final_files(disk.folder / "out") == new
            assert leftovers(disk.folder / "out") == []
            shutil.rmtree(disk.folder / "out")


@pytest.fixture
def replacing_a_run(inputs, zygote, undisturbed, tmp_path):
    """`train --force`; a folder with an earlier run to copy; the files of that run and of the new one."""
    plain = inputs.case("train", "few")
    earlier = fresh(tmp_path / "earlier")
    succeeded(zygote.start([*plain.arguments(earlier), "--set", "training.seed=1"]).wait())

    def arguments(out):
        return [*plain.arguments(out), "--force"]

    return Case("train", arguments, arguments), earlier, final_files(earlier), undisturbed(plain)[0]


def _holds_a_run(out, old):
    """Whether the old run is there whole, in its place or set aside, or the new one has a checkpoint."""
    aside = out / "run" / EARLIER
    there = {**final_files(out), **{f"run/{name}": content for name, content in final_files(aside).items()}}
    return old.items() <= there.items() or any((out / "run/checkpoints").glob("step-*"))


def test_a_run_that_is_replaced(dose, replacing_a_run, zygote, tmp_path):
    case, earlier, old, new = replacing_a_run
    assert old != new
    calls = itertools.count(1) if dose >= 10 else [2, 5, 9, 14, *random.Random("run").sample(range(15, 60), dose)]
    for call in calls:
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(earlier, out)
        ended = zygote.start(case.arguments(out), die=call).wait()
        if not killed(ended):
            break
        assert _holds_a_run(out, old), call
        figures.count("train, replacing a run step by step", "tried", "while writing", "resumed", "equal")
        run_again(case, zygote, new, out)


def test_a_run_that_cannot_be_replaced_stays(few, replacing_a_run, zygote, tmp_path):
    case, earlier, old, _ = replacing_a_run
    with disk_of(tmp_path / "disk", 64 << 20) as disk:
        shutil.copytree(earlier, disk.folder / "out")
        disk.leave(100_000)
        ended = zygote.start(case.arguments(disk.folder / "out")).wait()
        assert ended.code == 1
        assert "No space left on device" in one_line(ended)
        assert final_files(disk.folder / "out") == old
        assert leftovers(disk.folder / "out") == []
