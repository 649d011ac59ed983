"""Two extractors are the same if their identities are, to the type of a number; messages say where they differ."""

import pytest

from topgb.extractor_identity import difference, digest, shown

ONE = {"name": "default", "image": {"net": "lite0", "mean": [0.5, 0.5], "fps": 1}, "sound": None}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({**ONE, "image": {**ONE["image"], "fps": 1.0}}, "image.fps is 1, not 1.0"),
        ({**ONE, "image": {**ONE["image"], "mean": [0.5, 0.4]}}, "image.mean.1 is 0.5, not 0.4"),
        ({**ONE, "sound": {"rate": 16000}}, "sound is None, not absent"),
        ({"name": "image", "image": ONE["image"]}, "sound is None, not absent"),
        ({**ONE, "name": "other"}, "name is 'default', not 'other'"),
        ({**ONE, "image": {}}, "image is absent, not {}"),
        ({**ONE, "image": {**ONE["image"], "net": "x" * 900}}, "image.net is 'lite0', not 'xxx"),
    ],
)
def test_what_differs_is_named(other, said):
    found = difference(ONE, other)
    assert found.startswith(said)
    assert len(found) < 200
    assert digest(ONE) != digest(other)


def test_the_order_of_keys_makes_no_difference():
    other = dict(reversed(ONE.items()))
    assert difference(ONE, other) is None
    assert digest(ONE) == digest(other)
    assert shown(ONE) == f"default ({digest(ONE)[:8]})"
    assert shown({"net": "x"}) == digest({"net": "x"})[:8]
