"""The prefix of a checkpoint."""

from pathlib import Path

import pytest


@pytest.fixture
def prefix(tmp_path) -> Path:
    return tmp_path / "model.ckpt-31"
