"""Files that are gzipped where their name says so."""

import gzip

import pytest

from topgb.csv_rows import csv_rows
from topgb.errors import InputError
from topgb.files import atomic_write_named


@pytest.mark.parametrize(("name", "unpack"), [("x.csv", bytes), ("x.csv.gz", gzip.decompress)])
def test_what_is_written_is_read(tmp_path, name, unpack):
    path = tmp_path / name
    for _ in range(2):
        with atomic_write_named(path) as file:
            file.write(b'a,"b\nc"\r\n\n')
            file.write("ä,\n".encode())
        written = path.read_bytes()
        assert unpack(written) == 'a,"b\nc"\r\n\nä,\n'.encode()
        other = tmp_path / f"other-{name}"
        with atomic_write_named(other) as file:
            file.write(unpack(written))
        assert other.read_bytes() == written
    assert list(csv_rows(path)) == [(1, ["a", "b\nc"]), (3, []), (4, ["ä", ""])]


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(InputError), atomic_write_named(tmp_path / "x.gz") as file:
        file.write(b"half")
        raise InputError("no")
    assert list(tmp_path.iterdir()) == []
