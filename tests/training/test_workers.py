"""How many processes read ahead: no more than there are cores, unless insisted on."""

import os
from dataclasses import replace

import pytest

from topgb.progress import Progress
from topgb.training import loop
from topgb.training.job import TrainingJob
from topgb.training.preparation import _within_cores
from topgb.training.recipe import load_recipe


class Said(Progress):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture
def job(small_records, small_recipe, tmp_path, monkeypatch) -> TrainingJob:
    # Of a machine with many more.
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    recipe = load_recipe(str(small_recipe), ["training.epochs=1"])
    return TrainingJob(recipe, small_records["train"], tmp_path / "run", device="cpu", workers=64)


def test_workers_are_bounded_by_the_cores_that_this_process_may_use(job, monkeypatch):
    started = []
    load = loop.load_batches

    def note(batches, steps, workers, pin_memory):
        started.append(workers)
        return load(batches, steps, 0, pin_memory)

    monkeypatch.setattr(loop, "load_batches", note)
    said = Said()
    loop.train(job, said)
    loop.train(replace(job, force=True, oversubscribe=True), Said())
    assert started == [2, 64]
    assert [line for line in said.lines if "workers" in line] == [
        "warning: workers=64 asks for more than the 2 cores here; 2 read ahead, oversubscribe=True starts them all"
    ]


@pytest.mark.parametrize(("workers", "devices", "left"), [(2, 1, 2), (0, 1, 0), (3, 2, 1), (1, 4, 1)])
def test_the_processes_of_a_machine_share_its_cores(workers, devices, left, job):
    said = Said()
    assert _within_cores(replace(job, workers=workers, devices=devices), said).workers == left
    assert len(said.lines) == (left < workers)
