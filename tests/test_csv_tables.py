"""Tables that people and their programs write: how they are recognised."""

import gzip

import pytest

from topgb.csv_tables import read_table
from topgb.errors import InputError
from topgb.vocabulary import read_classes, read_vocabulary


def test_a_spreadsheets_csv(tmp_path):
    """A mark in front, lines of commas at the end."""
    path = tmp_path / "x.csv"
    path.write_bytes("\ufeffId,Name\r\n\r\nä,\ufeff\r\n , \r\n,,\r\n".encode())
    table = read_table(path, ("id",))
    assert table.columns == ["id", "name"]
    assert list(table.rows) == [(3, ["ä", "\ufeff"])]


def test_lines_are_counted_from_the_files_first(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('# a "comment\n\n# id; b\n1;2\n\n"3\n";4\n')
    table = read_table(path, ("id", "b"))
    assert (table.columns, table.delimiter) == (["id", "b"], ";")
    assert list(table.rows) == [(4, ["1", "2"]), (6, ["3\n", "4"])]


def test_a_file_of_empty_lines_is_given_up_soon(tmp_path):
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b"\n" * 20_000_000))
    with pytest.raises(InputError, match="no column names in its first 10,000 lines"):
        read_table(path, ("id",))


@pytest.mark.parametrize(
    "content",
    [
        'Index, Name\n0, "cat"\n1, "naïve, really"\n',
        'index;name\n1;"naïve, really"\n0;cat\n',
        'sep=;\nindex;name\n1;"naïve, really"\n0;cat\n',
        "Name\tIndex\ncat\t0\nnaïve, really\t1\n",
        'Index,Name\n0,cat\n1,"nai\u0308ve, really"\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_class_names(tmp_path, content, encoding):
    path = tmp_path / "v.csv"
    path.write_bytes(content.encode(encoding))
    assert read_vocabulary(path) == ("cat", "naïve, really")


def test_audiosets_classes_keep_their_ids(tmp_path):
    path = tmp_path / "class_labels_indices.csv"
    path.write_text('index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n')
    assert read_classes(path).ids == ("/m/09x0r", "/m/05zppz")


def test_gzip_is_known_by_its_bytes(tmp_path):
    path = tmp_path / "v.csv"
    path.write_bytes(gzip.compress(b"Index,Name\n0,cat\n1,dog\n"))
    assert read_vocabulary(path) == ("cat", "dog")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04" + bytes(90), "begins like a ZIP archive"),
        (b"PAR1" + bytes(90), "begins like a Parquet table"),
        (b"\x28\xb5\x2f\xfd" + bytes(90), "begins like zstd"),
        (b"\x93NUMPY\x01\0", "begins like a NumPy array"),
        (b"Index,Name\r0,cat\r", r"line 1 holds a carriage return \(CR\) without a line feed"),
        (b"\n\n", "holds no text"),
    ],
)
def test_what_is_no_csv_is_named(tmp_path, content, words):
    path = tmp_path / "v.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_classes(path)
