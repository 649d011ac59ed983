"""Labels by name: what the CSV may look like, and every way in which it can be wrong."""

from collections import Counter

import pytest

from topgb.errors import InputError
from topgb.packing.labels import class_names, class_numbers, read_labels, split_labels


def test_rows_of_one_id_add_up_and_names_are_trimmed(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(
        b"\xef\xbb\xbfurl,Labels ,ID\r\nx,guitar ; cat,a\r\n\r\nx,,b\r\nx,cat;dog;;dog,a\r\n"
        + 'x,"Rock, paper; Épée",c\r\n'.encode()
    )
    assert read_labels(path) == {"a": ("guitar", "cat", "dog"), "b": (), "c": ("Rock, paper", "Épée")}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no column 'id'"),
        (b"id,label\na,b\n", "no column 'labels'"),
        (b"id,labels,labels\na,b,c\n", "two columns 'labels'"),
        (b"id,labels\n", "labels no video"),
        (b"id,labels\na,cat,dog\n", "line 2 has 3 cells, the first line 2; separate several labels by semicolons"),
        (b"id,labels\na,cat\nb\n", "line 3 has 1 cells"),
        (b"id,labels\n ,cat\n", "line 2 has an empty id"),
        (b"id,labels\na,\xff\n", "not UTF-8"),
        (b"\xff\xfei\x00d\x00", "not UTF-8"),
        (b"id,labels\na," + b"x" * 200_000, "line 2 is not a row"),
        (b"x" * (2 << 20), "line 1 is longer than"),
        (b'id,labels\n"a\n', "line 2"),
    ],
)
def test_what_is_no_such_csv_gets_one_sentence(tmp_path, data, words):
    path = tmp_path / "labels.csv"
    path.write_bytes(data)
    with pytest.raises(InputError, match=words) as raised:
        read_labels(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="is not a file"):
        read_labels(tmp_path)
    with pytest.raises(InputError, match="cannot read .*absent"):
        read_labels(tmp_path / "absent.csv")


def test_classes_are_the_most_frequent_first_and_ties_go_by_name():
    assert class_names(Counter({"dog": 2, "cat": 5, "bird": 2, "ant": 0})) == ("cat", "bird", "dog", "ant")


def test_class_numbers_need_different_names():
    assert class_numbers(["b", "a"], "v.csv") == {"b": 0, "a": 1}
    with pytest.raises(InputError, match="v.csv calls both class 0 and class 2 'b'"):
        class_numbers(["b", "a", "b"], "v.csv")


def test_split_labels():
    assert split_labels(" a;b ;;a") == ("a", "b")
    assert split_labels("") == ()
