"""Labels by name: what the CSV may look like, and every way in which it can be wrong."""

import gzip
from collections import Counter

import pytest

from topgb.errors import InputError
from topgb.packing.label_faults import find_fault
from topgb.packing.labels import class_names, known_classes, read_labels, split_labels
from topgb.vocabulary import Classes


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
        (b"", "holds no text"),
        (b"id,label\na,b\n", "no column 'labels'"),
        (b"id,labels,labels\na,b,c\n", "two columns 'labels'"),
        (b"id,labels\n", "labels no video"),
        (b"id,labels\na,cat,dog\n", "line 2 has 3 cells, the first line 2; separate several labels by semicolons"),
        (b"id,labels\na,cat,dog\n", "or give separator=',' if that separates labels too"),
        (b"id,labels\na,cat\nb\n", "line 3 has 1 cells"),
        (b"id,labels\n ,cat\n", "line 2 has an empty id"),
        ("id,labels\na,café\n".encode("latin-1"), r"line 2 is not UTF-8 text \(as Latin-1 it holds 'a,café'\)"),
        (b"\xff\xfei\x00d\x00", "no column 'labels' in its first line, which is 'id'"),
        (b"\xff\xfei\x00d", "breaks off, or is not the UTF-16"),
        (b"id,labels\na," + b"x" * 200_000, "line 2 is not a row"),
        (b"x" * 200_000, "line 1 is not a row"),
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


def test_classes_need_different_names():
    known = known_classes(Classes(("b", "a", "x"), ("/m/b", "", "a")), "v.csv")
    assert known.numbers == {"b": 0, "a": 1, "x": 2}
    # A name goes before another class's id.
    assert known.aliases == {"/m/b": "b"}
    with pytest.raises(InputError, match="v.csv calls both class 0 and class 2 'b'"):
        known_classes(Classes(("b", "a", "b"), ("", "", "")), "v.csv")


def test_split_labels():
    assert split_labels(" a;b ;;a") == ("a", "b")
    assert split_labels("") == ()
    assert split_labels("a;b, c", ",") == ("a;b", "c")
    assert split_labels("a;b", None) == ("a;b",)
    assert split_labels("'a;b'") == ("'a;b'",)
    assert split_labels("cafe\u0301") == ("café",)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[0, 1]", ("0", "1")),
        ("['cat', 'dog']", ("cat", "dog")),
        ('["hot dog","a, b"]', ("hot dog", "a, b")),
        (r"""["dog's", 'dog\'s', "say \"a\""]""", ("dog's", 'say "a"')),
        ("{'cat'}", ("cat",)),
        ("('cat',)", ("cat",)),
        ("[]", ()),
        # Not lists that can be read: one name, which is refused later.
        ("['cat' 'dog']", ("['cat' 'dog']",)),
        ('["a, b" "c"]', ('["a, b" "c"]',)),
        (r'["caf\u00e9"]', (r'["caf\u00e9"]',)),
        ("[[0], [1]]", ("[[0], [1]]",)),
    ],
)
def test_lists_are_read_where_commas_separate(text, names):
    assert split_labels(text, ",") == names


@pytest.mark.parametrize(
    ("content", "separator"),
    [
        ('id, labels\nx, "a;b"\ny, c\n', None),
        ("id;labels\nx;a;b\ny;c\n", None),
        ('id;labels\nx;"a;b"\ny;c\n', None),
        ("id\tlabels\nx\ta;b\ny\tc\n", None),
        ("id\tlabels\nx\ta\tb\ny\tc\n", "\t"),
        ("id,labels\nx,a,b\ny,c\n", ","),
        ('id,labels\nx,"a,b"\ny,c\n', ","),
        ("labels|id\na;b|x\nc|y\n", None),
        ("id,labels\nx,a|b\ny,c\n", "|"),
        ("id,labels\nx,\"['a', 'b']\"\ny,['c']\n", ","),
        ("# made by me, 2024\n#id,labels\nx,a;b\ny,c\n", None),
        ("# made by me, 2024\nid,labels\nx,a;b\ny,c\n", None),
        ('# n=2\n# YTID, start_seconds, positive_labels\nx, 0.0, "a,b"\ny, 1.0, "c"\n', None),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_forms_of_the_same_labels(tmp_path, content, separator, encoding, suffix):
    path = tmp_path / f"labels{suffix}"
    data = content.encode(encoding)
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    assert read_labels(path, separator) == {"x": ("a", "b"), "y": ("c",)}


@pytest.mark.parametrize(
    ("names", "name", "words"),
    [
        (["[0, 1]", "0"], "[0, 1]", "looks like a list; separator=',' reads lists"),
        (["[1]", "[2]"], "[1]", "looks like a list"),
        (["('cat',)"], "('cat',)", "looks like a list"),
        (["cat,dog", "dog"], "cat,dog", "looks like several names; separator=',' takes them apart"),
        (["cat, dog", "dog, bird", "bird, cat"], "bird, cat", "looks like several names; separator=','"),
        (["cat|dog"], "cat|dog", "separator='|'"),
        (["cat/dog", "cat", "dog"], "cat/dog", "separator='/'"),
        (["cat;dog", "cat"], "cat;dog", "separator=';'"),
        (["0 7", "7"], "0 7", "looks like several numbers; separator=' '"),
        (["0,7"], "0,7", "looks like several numbers; separator=','"),
        (["cat dog", "cat", "dog"], "cat dog", "looks like several names; separator=' '"),
        (["'cat'", "dog"], "'cat'", "has quotes of its own"),
        (['"cat', 'dog"'], '"cat', "has quotes of its own"),
        (["nan", "cat"], "nan", "looks like a missing value; leave the cell empty"),
        (["None", "cat"], "None", "looks like a missing value"),
        (
            ["Cat", "cat", "dog"],
            "Cat",
            "differs from 'cat' in case, width, blanks, hyphens or invisible characters alone",
        ),
        (["cat", "cat\u200b"], "cat", r"differs from 'cat\u200b' in case, width, blanks, hyphens or invisible"),
        (["cat\uff1bdog", "cat"], "cat\uff1bdog", "looks like several names"),
        (["cat\u3001dog", "dog"], "cat\u3001dog", "looks like several names"),
    ],
)
def test_names_that_are_lists_are_recognised(names, name, words):
    found = find_fault(names, names, None)
    assert found is not None
    assert found[0] == name
    assert words in found[1]


def test_long_cells_take_no_time():
    blanks = " " * 100_000
    assert split_labels(f"[a{blanks}'b']", ",") == (f"[a{blanks}'b']",)
    assert split_labels("['" + "\\'" * 50_000 + "]", ",")
    assert find_fault([f"1{blanks}x", f"1{blanks}2"], [f"1{blanks}x"], None) is None


def test_names_are_not_taken_for_lists():
    names = ["Inside, small room", "Inside, large room or hall", "AC/DC", "9/11", "24", "10,000 BC"]
    names += [
        "bye, bye",
        "(What's the Story) Morning Glory?",
        "'Allo 'Allo!",
        '12" vinyl',
        '"Weird Al" Yankovic',
        "R&B",
    ]
    names += ["Speech", "Male speech, man", "hot dog", "dog", "/m/09x0r", "/m/0b", "C++", "Rock-paper", "a", "'"]
    assert find_fault(names, names, None) is None
