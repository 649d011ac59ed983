"""Variables of many types for checkpoints, and how those that were read are compared."""

import numpy as np

from from2018 import tf_bundle as bundle


def some_variables() -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    variables = {f"tower/of_{name}": (random.normal(size=(2, 3)) * 9).astype(name) for name in bundle.TYPES}
    return variables | {
        "global_step": np.array(47, np.int64),
        "none": np.zeros((0, 5), np.float32),
        "tower/größe": np.arange(4, dtype=np.float32).reshape(1, 2, 2),
    }


def assert_same(values: np.ndarray, expected: np.ndarray) -> None:
    assert values.dtype == expected.dtype
    assert values.shape == expected.shape
    assert values.tobytes() == expected.tobytes()
