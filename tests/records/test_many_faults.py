"""A small file can unpack to millions of faults: they are bounded wherever they are kept."""

import numpy as np
import pytest

from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec
from topgb.records import feature_tallies, inspect, on_damaged
from topgb.records.codec import encode_example
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.framing import frame_record
from topgb.records.inspect import inspect_shards
from topgb.records.labels import _repeated
from topgb.records.verify import verify_shards
from topgb.youtube8m.fakes import drop_fakes

SPEC = FeatureSpec("video", (Feature("mean_rgb", 2, "float32"),))


def _record(number: int, name: str = "mean_rgb", labels: tuple[int, ...] = (0,)) -> bytes:
    return encode_example(f"v{number}", {name: np.array([1.0, 2.0], np.float32)}, list(labels))


def _file(path, payloads: list[bytes], damaged: bool = False):
    framed = [bytearray(frame_record(payload)) for payload in payloads]
    for record in framed if damaged else []:
        record[-1] ^= 1
    path.write_bytes(b"".join(framed))
    return str(path)


@pytest.fixture
def damaged(tmp_path, monkeypatch):
    monkeypatch.setattr(on_damaged, "MOST_FAULTS", 5)
    return _file(tmp_path / "a.tfrecord", [_record(n) for n in range(9)], damaged=True)


@pytest.mark.parametrize(
    "read",
    [
        verify_shards,
        inspect_shards,
        lambda path: [len(batch) for batch in evaluation_batches(open_dataset(path, SPEC, 2, 1, "skip"), 2)],
    ],
    ids=["verify", "inspect", "batches"],
)
def test_too_many_damaged_records_are_refused(damaged, read):
    with pytest.raises(InputError, match=r"a\.tfrecord: more than 5 records .* does not match its CRC; name other"):
        read(damaged)


def test_drop_fakes_leaves_nothing_of_too_many_damaged_records(damaged, tmp_path):
    with pytest.raises(InputError, match="more than 5 records"):
        drop_fakes(damaged, tmp_path / "out", on_damaged="skip")
    assert not list((tmp_path / "out").glob("*"))


def test_too_many_unusable_records_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(on_damaged, "MOST_FAULTS", 5)
    path = _file(tmp_path / "a.tfrecord", [_record(n, labels=(1, 1)) for n in range(9)])
    with pytest.raises(InputError, match="more than 5 records"):
        verify_shards(path)
    # inspect keeps their number and one reason.
    assert inspect_shards(path).bad_labels == 9


def test_names_and_classes_without_end_are_refused(tmp_path, monkeypatch):
    path = _file(tmp_path / "a.tfrecord", [_record(n, f"feature{n}", (n,)) for n in range(9)])
    assert len(inspect_shards(path).features) == 9
    monkeypatch.setattr(inspect, "_MOST_CLASSES", 5)
    with pytest.raises(InputError, match="record 5 at byte .*: more than 5 classes, which no records of videos have"):
        inspect_shards(path)
    monkeypatch.setattr(feature_tallies, "_MOST_NAMES", 4)
    with pytest.raises(InputError, match="more than 4 features"):
        inspect_shards(path)


def test_a_class_that_occurs_twice_in_a_long_list_is_found_at_once():
    assert "the class 7 more than once" in _repeated([*range(300_000), 7])
