"""What is kept of a prediction on a cluster until all of it is there."""

import pytest

from topgb.errors import DamagedRecordError, InputError
from topgb.evaluation.finished_shards import FinishedShards, ShardRows

OF = {"model": {"sha256": "1"}, "records": [["a.tfrecord", 2, 3, 4]], "class_names": ("x", "y")}
PART = ShardRows(
    b"v1,1 0.5\nv2,0 0.25\n", 2, [DamagedRecordError("a.tfrecord", 2, 17, "its data does not match its CRC")]
)


def test_a_part_is_kept_with_its_damage(tmp_path):
    parts = FinishedShards(tmp_path / "p.csv", OF)
    assert not parts.has(7)
    parts.write(7, PART)
    again = FinishedShards(tmp_path / "p.csv", OF)
    assert again.has(7)
    found = again.read(7)
    assert (found.csv, found.videos, [str(e) for e in found.damaged]) == (PART.csv, 2, [str(PART.damaged[0])])
    again.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("other", [{**OF, "model": {"sha256": "2"}}, {**OF, "class_names": None}, None])
def test_parts_of_something_else_are_removed(tmp_path, other):
    FinishedShards(tmp_path / "p.csv", OF).write(7, PART)
    assert not FinishedShards(tmp_path / "p.csv", other).has(7)
    assert [path.name for path in (tmp_path / ".p.csv.parts").iterdir()] == ["parts.json"]


def test_parts_that_nothing_describes_are_not_gone_on_with(tmp_path):
    FinishedShards(tmp_path / "p.csv", None).write(7, PART)
    assert not FinishedShards(tmp_path / "p.csv", None).has(7)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_description_that_makes_no_sense_is_of_something_else(tmp_path, content):
    FinishedShards(tmp_path / "p.csv", OF).write(7, PART)
    (tmp_path / ".p.csv.parts" / "parts.json").write_bytes(content)
    assert not FinishedShards(tmp_path / "p.csv", OF).has(7)


def test_what_else_has_the_name_stays(tmp_path):
    (tmp_path / ".p.csv.parts").write_text("mine")
    with pytest.raises(InputError, match="is a file.*move it away"):
        FinishedShards(tmp_path / "p.csv", OF)
