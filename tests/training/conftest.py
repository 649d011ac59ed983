"""A small training job, and two ranks of one training."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.programs import Ended, Zygote
from topgb.training.job import TrainingJob
from topgb.training.recipe import load_recipe


@pytest.fixture(scope="session")
def two_ranks(zygote: Zygote) -> Callable[..., list[Ended]]:
    """A command, or a script, as `torchrun` runs it in two processes, but without importing: how each has ended."""

    def run(arguments: list[str], script: Path | None = None) -> list[Ended]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test"}
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        running = [
            zygote.start(arguments, variables={**world, **where, "RANK": rank, "LOCAL_RANK": rank}, script=script)
            for rank in ("0", "1")
        ]
        return [each.wait() for each in running]

    return run


@pytest.fixture
def job(small_records, small_recipe, tmp_path) -> TrainingJob:
    return TrainingJob(load_recipe(str(small_recipe)), small_records["train"], tmp_path / "run", device="cpu")
