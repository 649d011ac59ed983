"""Where the tests find real records and golden cases; both lie outside the repository and may be absent."""

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def golden_folder() -> Path:
    """The folder of golden cases: `TOPGB_GOLDEN`, or `../shared/golden` beside the checkout."""
    return Path(os.environ.get("TOPGB_GOLDEN", SHARED / "golden"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the real records (../shared/data beside the checkout) are absent")
    return folder
