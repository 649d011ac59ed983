"""Class names from a CSV, and back."""

import pytest

from topgb.csv_rows import LONGEST_LINE, csv_field
from topgb.errors import InputError
from topgb.vocabulary import check_names, read_vocabulary, write_vocabulary

YOUTUBE8M = (
    "Index,TrainVideoCount,KnowledgeGraphId,Name,WikiUrl,Vertical1,Vertical2,Vertical3,WikiDescription\n"
    '0,788288,/m/03bt1gh,Game,https://x/Game,Games,,,"A game is play,\nsometimes ""structured""."\n'
    "2,415890,/m/01mw1,,https://x/,Games,,,\n"
    '1,539945,/m/01mk,"Tank, the",https://x/,Games,,,"Two\r\n\r\nlines, 7,8"\n'
    "3,378135,,,,,,,\n"
)


def _file(tmp_path, content):
    path = tmp_path / "names.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_youtube8m(tmp_path, mark):
    assert read_vocabulary(_file(tmp_path, mark + YOUTUBE8M)) == ("Game", "Tank, the", "/m/01mw1", "3")


def test_audioset(tmp_path):
    text = 'index,mid,display_name\r\n0,/m/09x0r,"Speech"\r\n1,/m/05zppz,"Male speech, man speaking"\r\n2,/m/x,""\r\n'
    assert read_vocabulary(_file(tmp_path, text)) == ("Speech", "Male speech, man speaking", "/m/x")


def test_rows_may_be_short_and_blank_lines_and_spaces_do_not_matter(tmp_path):
    assert read_vocabulary(_file(tmp_path, "Name, INDEX \n é ,1\n\n , \nb, 0\n,2")) == ("b", "é", "2")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no text"),
        ("Name\na\n", "no column Index"),
        ("index,label\n0,a\n", "no column Name"),
        ("Index,Name\n", "names no class"),
        ('Index,Name\n0,"a\nb"\nx,c\n', "line 4 has the Index 'x'"),
        ("Index,Name\n-1,a\n", "line 2 has the Index '-1'"),
        ("Index,Name\n1.0,a\n", "line 2 has the Index '1.0'"),
        ("Index,Name\n²,a\n", "line 2 has the Index '²'"),
        ("Index,Name\n,a\n", "line 2 has the Index ''"),
        ("Index,Name\n" + "9" * 5000 + ",a\n", "line 2 has the Index '999999999999999999999999999999…'"),
        ("Index,Name\n0,a\n1,b\n0,c\n", "line 4 names class 0 again; line 2 did already"),
        ("Index,Name\n0,a\n3,b\n", "line 3 names class 3, but no line names class 1"),
        ("Index,Name\n1,a\n2,b\n", "no line names class 0"),
        (b"Index,Name\n0,\xff\n", "is not UTF-8 text"),
        ("Index,Name\n0,a\n".encode("utf-16")[:-1], "line 2 breaks off, or is not the UTF-16"),
        ("Index,Name\n0,a\n".encode("utf-16-le"), "line 1 holds zero bytes"),
        (b"\0" * 500, "begins like a file whose bytes never arrived (zeros alone); copy or download it again"),
        (b"x" * (LONGEST_LINE + 1), "line 1 is longer than"),
        ("Index,Name\n0," + "a" * 200_000, "line 2 is not a row of a CSV"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(tmp_path, content, words):
    with pytest.raises(InputError) as raised:
        read_vocabulary(_file(tmp_path, content))
    assert words in str(raised.value)
    assert str(raised.value).startswith(str(tmp_path / "names.csv"))
    assert "\n" not in str(raised.value)


def test_what_is_no_file(tmp_path):
    with pytest.raises(InputError, match="is not a file"):
        read_vocabulary(tmp_path)
    with pytest.raises(InputError, match="cannot read .*absent: No such file"):
        read_vocabulary(tmp_path / "absent")


NAMES = ("Game", "Tank, the", 'the "best"', "a\nb", "c\rd", "é", "x;y")


@pytest.mark.parametrize("counts", [None, [7, 6, 5, 4, 3, 2, 1]])
def test_what_is_written_is_read_back(tmp_path, counts):
    path = tmp_path / "out.csv"
    write_vocabulary(path, NAMES, counts)
    assert read_vocabulary(path) == NAMES
    assert path.read_text().startswith("Index,Name\n0,Game\n" if counts is None else "Index,TrainVideoCount,Name\n0,7,")
    with pytest.raises(InputError, match="exists already"):
        write_vocabulary(path, NAMES)
    write_vocabulary(path, ["a"], force=True)
    assert path.read_bytes() == b"Index,Name\n0,a\n"


def test_half_a_surrogate_pair_is_written_as_an_escape():
    assert csv_field("a\ud800,") == '"a\\ud800,"'


def test_the_number_of_names_is_checked():
    check_names(NAMES, 7)
    with pytest.raises(InputError, match="7 class names were given for 3,862 classes"):
        check_names(NAMES, 3862)
