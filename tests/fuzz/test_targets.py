"""The harnesses without atheris: sound inputs, a few hundred seeded changes of them, and what hypothesis comes up with.

`make test-fuzz` runs a million of each, guided by coverage.
"""

import random
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import (
    checkpoint_target,
    checks_target,
    gzip_target,
    json_target,
    modelfile_target,
    records_target,
    yaml_target,
)
from fuzz.limits import limited, return_freed_memory
from fuzz.mutations import mutated

TARGETS: dict[str, ModuleType] = {
    **{"records": records_target, "modelfile": modelfile_target, "checkpoint": checkpoint_target},
    **{"yaml": yaml_target, "json": json_target, "gzip": gzip_target, "checks": checks_target},
}
if find_spec("pyarrow") is not None:
    TARGETS["packing"] = import_module("fuzz.packing_target")
if find_spec("h5py") is not None:
    TARGETS["hdf5"] = import_module("fuzz.hdf5_target")
MUTATIONS = {"records": 600, "modelfile": 400, "checkpoint": 600}


@pytest.fixture(scope="module", params=TARGETS)
def harness(request, tmp_path_factory):
    """Name, target, seeds; the target has seen the seeds, so that what is set up once is no input's fault."""
    target = TARGETS[request.param].Target(Path(tmp_path_factory.mktemp("fuzz")))
    seeds = target.seeds()
    for seed in seeds:
        target.run(seed)
    return_freed_memory()
    return request.param, target, seeds


def test_changed_inputs_are_read_or_refused(harness):
    name, target, seeds = harness
    generator = random.Random(f"{name} 1")
    for number in range(MUTATIONS.get(name, 200)):
        data = mutated(generator, seeds, target.tokens)
        with limited(len(data)):
            try:
                target.run(data)
            except Exception as error:
                pytest.fail(f"change {number}, {data!r}: {type(error).__name__}: {error}")


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(harness, data):
    """The first of them choose what is done, so these are structured inputs as well as random ones."""
    with limited(len(data)):
        harness[1].run(data)


def test_the_seeds_are_sound(tmp_path, monkeypatch):
    """A harness whose inputs are all refused at the door would find nothing."""
    monkeypatch.setattr("fuzz.refusals.InputError", ZeroDivisionError)
    for module in TARGETS.values():
        target, refused = module.Target(tmp_path), 0
        seeds = target.seeds()
        for seed in seeds:
            try:
                target.run(seed)
            except Exception:
                refused += 1
        assert refused < len(seeds) * 0.6, module.__name__
