"""Golden cases, computed by the 2018 code: found by file name and JSON, whatever folder they lie in."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(os.environ.get("TOPGB_GOLDEN", Path(__file__).resolve().parents[3] / "shared" / "golden"))


@dataclass(frozen=True)
class Case:
    """One case: its arrays by key, and the settings in its JSON."""

    name: str
    settings: dict[str, Any]

    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(FOLDER / f"{self.name}.npz", allow_pickle=False) as file:
            return dict(file)

    def __str__(self) -> str:
        return self.name


def cases(pattern: str) -> list[Case]:
    """The cases whose file name matches the glob `pattern`, in name order."""
    return [
        Case(path.stem, json.loads(path.with_suffix(".json").read_text()))
        for path in sorted(FOLDER.glob(f"{pattern}.npz"))
    ]


def variables(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The 2018 variables under `prefix` (`var|`, `step2|`), by their names inside the scope `tower/`."""
    start = f"{prefix}tower/"
    return {key.removeprefix(start): value for key, value in arrays.items() if key.startswith(start)}
