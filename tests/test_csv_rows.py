"""CSVs read row by row."""

import gzip

import pytest

from topgb.csv_rows import UnreadableRowError, csv_rows
from topgb.errors import InputError
from topgb.files import atomic_write_named


def test_progress_ends_with_all_bytes(tmp_path):
    path = tmp_path / "x.csv.gz"
    with atomic_write_named(path) as file:
        for number in range(200_000):
            file.write(f"{number * 7919 % 1_000_003}\n".encode())
    seen = []
    rows = list(csv_rows(path, lambda done, total: seen.append((done, total))))
    assert len(rows) == 200_000
    size = path.stat().st_size
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert [pair for pair in seen if pair[0] == size] == [(size, size)] == seen[-1:]


@pytest.mark.parametrize(
    ("name", "content", "line", "words"),
    [
        ("x.csv", b'a,b\n"c,d\ne\n', 2, "is not a row of a CSV (unexpected end of data)"),
        ("x.csv", b'a,b\n"c"d,e\n', 2, "is not a row of a CSV"),
        ("x.csv", b"a,b\rc,d\n", 1, "holds a carriage return"),
        ("x.csv", b"a\n" + b'"' + b"x\n" * 200_000, 2, "field larger than field limit"),
        ("x.csv", b"a\nb\n\xff\n", 3, "is not UTF-8 text"),
        ("x.csv", b"a\n" + b"x" * 2_000_000, 2, "is longer than 1,048,576 bytes"),
        ("x.csv.gz", b"a,b\n", 1, "the gzip stream is broken"),
        ("x.csv.gz", gzip.compress(b"a\n" * 9, mtime=0)[:-4], 1, "the gzip stream is broken"),
        ("x.csv.gz", gzip.compress(b"a\n" * 9, mtime=0)[:-8] + bytes(8), 1, "the gzip stream is broken"),
    ],
)
def test_rows_that_cannot_be_read(tmp_path, name, content, line, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableRowError) as caught:
        list(csv_rows(path))
    assert caught.value.line == line
    assert str(caught.value).startswith(f"{path}: line {line} ")
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["", "absent.csv", "file/below.csv"])
def test_what_is_no_file(tmp_path, name):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError):
        list(csv_rows(tmp_path / name))
