"""The feature spec: each wrong feature is refused."""

import math

import pytest

from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec


@pytest.mark.parametrize(
    ("level", "features", "words"),
    [
        ("foo", [Feature("rgb", 1)], "level 'foo'"),
        ("frame", [Feature("rgb", 1, "int32")], "dtype 'int32'"),
        ("frame", [Feature("rgb", 1, range=(-math.inf, math.inf))], "must be finite"),
        ("frame", [Feature("rgb", 1, range=(math.nan, 1.0))], "must be finite"),
        ("frame", [Feature("rgb", 0)], "size 0"),
        ("frame", [Feature("r.b", 1)], "named 'r.b'"),
        ("frame", [Feature(f"f{index}", 1) for index in range(1001)], "1001 features"),
    ],
)
def test_a_wrong_feature_is_refused(level, features, words):
    with pytest.raises(InputError, match=words):
        FeatureSpec(level, tuple(features))
