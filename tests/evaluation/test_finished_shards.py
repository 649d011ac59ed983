"""The finished shards of a prediction on a cluster: kept until all are there, and read again after a stop."""

import pytest

from topgb.errors import DamagedRecordError, InputError
from topgb.evaluation.finished_shards import FinishedShards, ShardRows

DESCRIPTION = {"model": {"sha256": "1"}, "records": [["a.tfrecord", 2, 3, 4]], "class_names": ("x", "y")}
ROWS = ShardRows(
    b"v1,1 0.5\nv2,0 0.25\n", 2, [DamagedRecordError("a.tfrecord", 2, 17, "its data does not match its CRC")]
)


def test_a_shard_is_kept_with_its_damaged_records(tmp_path):
    finished = FinishedShards(tmp_path / "p.csv", DESCRIPTION)
    assert not finished.has(7)
    finished.write(7, ROWS)
    again = FinishedShards(tmp_path / "p.csv", DESCRIPTION)
    assert again.has(7)
    found = again.read(7)
    assert (found.rows, found.videos, [str(e) for e in found.damaged]) == (ROWS.rows, 2, [str(ROWS.damaged[0])])
    again.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "other", [{**DESCRIPTION, "model": {"sha256": "2"}}, {**DESCRIPTION, "class_names": None}, None]
)
def test_shards_under_another_description_are_removed(tmp_path, other):
    FinishedShards(tmp_path / "p.csv", DESCRIPTION).write(7, ROWS)
    assert not FinishedShards(tmp_path / "p.csv", other).has(7)
    assert [path.name for path in (tmp_path / ".p.csv.parts").iterdir()] == ["parts.json"]


def test_shards_without_a_description_are_removed(tmp_path):
    FinishedShards(tmp_path / "p.csv", None).write(7, ROWS)
    assert not FinishedShards(tmp_path / "p.csv", None).has(7)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_shards_under_a_broken_description_are_removed(tmp_path, content):
    FinishedShards(tmp_path / "p.csv", DESCRIPTION).write(7, ROWS)
    (tmp_path / ".p.csv.parts" / "parts.json").write_bytes(content)
    assert not FinishedShards(tmp_path / "p.csv", DESCRIPTION).has(7)


def test_a_file_of_the_folders_name_is_refused(tmp_path):
    (tmp_path / ".p.csv.parts").write_text("mine")
    with pytest.raises(InputError, match="is a file.*move it away"):
        FinishedShards(tmp_path / "p.csv", DESCRIPTION)
