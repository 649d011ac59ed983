"""The challenge's CSV, put together and checked."""

import gzip

import pytest
import torch

from conftest import SMALL_CLASSES, SMALL_SPEC
from topgb.errors import InputError
from topgb.evaluation import metrics, predict, prediction_formats
from topgb.records.dataset import open_dataset
from topgb.records.ids import video_ids
from topgb.records.labels import Targets
from topgb.youtube8m import submission
from topgb.youtube8m.submission import Problem, check, concat, fake_rows

HEADER = submission.HEADER


def _csv(path, *rows, header=HEADER):
    text = "".join(f"{line}\n" for line in (header, *rows)).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def _told(found):
    return [str(problem) for problem in found.problems]


def test_header_and_pairs_are_those_that_predict_writes():
    assert (submission.HEADER, submission.MOST_PAIRS) == (prediction_formats.HEADER, metrics.TOP_K)


class Falling:
    """The same probabilities for every video, in no order, among them equal ones and nothing."""

    def predict_batch(self, batch):
        scores = torch.tensor([0, 1, 0.25, 0.25, 1e-9, 0.123456789, 0.5, 0.5, 0.5, 0, 1, 0.3])
        return scores.expand(len(batch), SMALL_CLASSES)


def test_what_predict_writes_is_a_submission(small_records, tmp_path):
    data = open_dataset(small_records["unlabelled"], SMALL_SPEC, SMALL_CLASSES, 300, targets=Targets(False))
    predict.write_predictions(Falling(), data, tmp_path / "p.csv.gz", torch.device("cpu"))
    found = check(tmp_path / "p.csv.gz", video_ids(small_records["unlabelled"]))
    assert (found.rows, found.count, found.videos, found.missing, found.unknown) == (20, 0, 20, 0, 0)


@pytest.mark.parametrize(("good", "fake", "out"), [("g.csv", "f.csv", "o.csv"), ("g.csv.gz", "f.csv", "o.csv.gz")])
def test_predictions_and_fakes_make_a_submission(tmp_path, good, fake, out):
    _csv(tmp_path / good, "a,5 0.5 1 0.25", '"b, ""c""\nd",7 1')
    with fake_rows(tmp_path / fake) as add:
        for video in ("x", 'y "z",\n'):
            add(video)
    assert concat(tmp_path / good, tmp_path / fake, tmp_path / out) == (2, 2)
    written = (tmp_path / out).read_bytes()
    text = (gzip.decompress(written) if out.endswith(".gz") else written).decode()
    assert text == f'{HEADER}\na,5 0.5 1 0.25\n"b, ""c""\nd",7 1\nx,0 0\n"y ""z"",\n",0 0\n'
    videos = ["x", "a", 'b, "c"\nd', 'y "z",\n', "x"]
    found = check(tmp_path / out, videos)
    assert (found.rows, found.count, found.videos) == (4, 0, 4)
    with pytest.raises(InputError, match="exists already"):
        concat(tmp_path / good, tmp_path / fake, tmp_path / out)
    concat(tmp_path / good, tmp_path / fake, tmp_path / out, force=True)
    assert (tmp_path / out).read_bytes() == written


def test_no_fakes_are_a_header(tmp_path):
    with fake_rows(tmp_path / "f.csv"):
        pass
    assert (tmp_path / "f.csv").read_text() == f"{HEADER}\n"
    assert concat(_csv(tmp_path / "g.csv", "a,1 1"), tmp_path / "f.csv", tmp_path / "o.csv") == (1, 0)
    with pytest.raises(InputError, match="exists already"), fake_rows(tmp_path / "f.csv"):
        pass


@pytest.mark.parametrize(
    ("good", "fake", "words"),
    [
        (["a,1 1", "b,1 1"], ["c,0 0", "b,0 0"], "fake.csv: line 3 has video 'b' again, after line 3 of {}/good.csv"),
        (["a,1 1", '"b\n",1 1', "a,1 1"], [], "good.csv: line 5 has video 'a' again, after line 2 of {}/good.csv"),
        (["a,1 1", "b,1,1"], [], "good.csv: line 3 has 3 columns instead of 2"),
        (["a,1 1"], [""], "fake.csv: line 2 has 0 columns instead of 2"),
        (["a,1 1"], ['"b,1 1'], "fake.csv: line 2 is not a row of a CSV"),
    ],
)
def test_what_cannot_be_joined(tmp_path, good, fake, words):
    _csv(tmp_path / "good.csv", *good)
    _csv(tmp_path / "fake.csv", *fake)
    with pytest.raises(InputError) as caught:
        concat(tmp_path / "good.csv", tmp_path / "fake.csv", tmp_path / "out.csv")
    assert words.format(tmp_path) in str(caught.value)
    assert not (tmp_path / "out.csv").exists()


def test_a_header_that_is_none(tmp_path):
    good = _csv(tmp_path / "good.csv", "a,1 1")
    for header, words in ((f"{HEADER},ClassNames", "predict without names=True"), ("vids,std", "is no submission")):
        with pytest.raises(InputError, match=f"fake.csv does not begin with the line {HEADER}.*{words}"):
            concat(good, _csv(tmp_path / "fake.csv", header=header), tmp_path / "out.csv")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("", "line 3: the row has 0 columns instead of 2"),
        ("v", "line 3: video 'v': the row has 1 column instead of 2"),
        ("v,1 1,", "line 3: video 'v': the row has 3 columns instead of 2"),
        (",1 1", "line 3: the row has no id"),
        ("v,", "line 3: video 'v': it has no pairs"),
        ("first,1 1", "line 3: video 'first': it has a row already, in line 2"),
        ("v,1 1 2", "line 3: video 'v': its 3 values are no pairs"),
        ("v,1  1", "its 3 values are no pairs of a class and a probability, with one space between any two"),
        ("v," + " ".join(f"{n} 0.5" for n in range(21)), "it has 21 pairs, and 20 is the most"),
        ("v,3 0.5 4 0.5 3 0.25", "class 3 comes twice"),
        ("v,3 0.5 4 0.5 03 0.25", "class 03 comes twice"),
        ("v,-1 1", "'-1' is no class"),
        ("v,1.0 1", "'1.0' is no class"),
        ("v,² 1", "'²' is no class"),
        (f"v,{'9' * 5000} 1", f"'{'9' * 60}…' is no class"),
        ("v,1 1.5", "'1.5', of class 1, is no probability from 0 to 1"),
        ("v,1 -0.5", "'-0.5', of class 1, is no probability"),
        ("v,1 nan", "'nan', of class 1, is no probability"),
        ("v,1 0_1", "'0_1', of class 1, is no probability"),
        ("v,1 e", "'e', of class 1, is no probability"),
        ("v,1 1e-3 2 0.25", "its pairs are not sorted: 0.25 of class 2 comes after 1e-3"),
    ],
)
def test_a_wrong_row(tmp_path, row, words):
    path = _csv(tmp_path / "x.csv", "first,1 1", row, "last,0 1e-05 3861 0")
    found = check(path)
    [told] = _told(found)
    assert words in told
    assert told.startswith("line 3: ")
    assert (found.rows, found.count, found.videos) == (3, 1, None)


def test_wrong_headers(tmp_path):
    rows = ["a,1 1,name", "b,1 1,name"]
    found = check(_csv(tmp_path / "names.csv", *rows, header=f"{HEADER},ClassNames"))
    assert _told(found) == [
        f"line 1: there is a column of class names; predict without names=True, so that it is {HEADER}"
    ]
    found = check(_csv(tmp_path / "bom.csv", "a,1 1", header=f"\ufeff{HEADER}"))
    assert _told(found) == [f"line 1: the header is '\\ufeff{HEADER}', not {HEADER}"]
    found = check(_csv(tmp_path / "none.csv", "b,1 1", header="a,1 1"))
    assert (found.rows, _told(found)) == (1, [f"line 1: the header is 'a,1 1', not {HEADER}"])
    (tmp_path / "empty.csv").write_bytes(b"")
    assert _told(check(tmp_path / "empty.csv")) == ["there is no row below the header"]


def test_lines_are_counted_as_an_editor_does(tmp_path):
    path = _csv(tmp_path / "x.csv", '"a\nb",1 1', '"c\n\n",2', "d,1 1")
    assert check(path).problems[0].line == 4
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert check(path).problems[0].line == 4


def test_the_first_problems_are_listed_and_all_are_counted(tmp_path):
    found = check(_csv(tmp_path / "x.csv", *(f"v{n},1 2" for n in range(50))))
    assert [problem.line for problem in found.problems] == list(range(2, 22))
    assert (found.count, found.rows) == (50, 50)


def test_a_row_that_cannot_be_read_ends_the_check(tmp_path):
    path = _csv(tmp_path / "x.csv", "a,1 2", "b,1 1", '"c,1 1', "d,1 1")
    found = check(path, ["a", "z"])
    assert _told(found)[1].startswith("line 4: the row is not a row of a CSV (unexpected end of data)")
    assert _told(found)[1].endswith("the rows from here on were not checked")
    assert (found.count, found.rows, found.videos, found.missing) == (2, 2, None, 0)
    (tmp_path / "x.csv.gz").write_bytes(b"not gzipped\n")
    with pytest.raises(InputError, match="x.csv.gz: line 1 cannot be unpacked"):
        check(tmp_path / "x.csv.gz")


def test_the_datas_videos(tmp_path):
    path = _csv(tmp_path / "x.csv", "a,1 1", "b,1 1", "c,1 1,1", "d,1 1", "a,1 1")
    found = check(path, ["z", "c", "a", "y", "z", "a"])
    assert found.problems == [
        Problem(4, "c", "the row has 3 columns instead of 2"),
        Problem(6, "a", "it has a row already, in line 2"),
        Problem(None, "z", "it is in the data, but has no row"),
        Problem(None, "y", "it is in the data, but has no row"),
        Problem(3, "b", "it is not in the data"),
        Problem(5, "d", "it is not in the data"),
    ]
    assert (found.videos, found.missing, found.unknown, found.count) == (4, 2, 2, 6)
