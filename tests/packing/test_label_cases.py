"""Labels as people write them, packed: read where they can mean one thing only, and refused elsewhere."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from cli.program import topgb
from conftest import SHARED
from topgb.errors import InputError
from topgb.packing.pack import PackOptions, pack
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.description import find_description
from topgb.vocabulary import read_vocabulary

LABELS = {
    "clip0": {"cat", "dog"},
    "clip1": {"dog"},
    "clip2": {"cat"},
    "clip3": {"bird"},
    "clip4": {"cat"},
    "clip5": {"dog"},
}
NAMES = {"cat", "dog", "bird"}


@pytest.fixture
def csv_labels():
    return _case("csv-labels")


def _case(name: str) -> Path:
    folder = SHARED / "cases" / name
    if not folder.is_dir():
        pytest.skip(f"needs ../shared/cases/{name}")
    return folder


def _labels(out: Path) -> dict[str, set[str]]:
    """The names of each video's classes, by its id."""
    described = find_description(f"{out}/*.tfrecord")
    names = read_vocabulary(out / "vocabulary.csv")
    dataset = open_dataset(f"{out}/*.tfrecord", described.spec, described.classes, 300)
    (batch,) = evaluation_batches(dataset, 100)
    rows = zip(batch.ids, batch.labels, strict=True)
    return {video: {names[number] for number in row.nonzero()[:, 0].tolist()} for video, row in rows}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ok.csv", []),
        ("spacequote.csv", []),
        ("spacequote2.csv", ["--separator", ","]),
        ("commas.csv", ["--separator", ","]),
        ("pipe.csv", ["--separator", "|"]),
        ("namelist.csv", ["--separator", ","]),
    ],
)
def test_the_labels_of_the_case(csv_labels, tmp_path, name, options):
    done = topgb(
        "data", "pack", csv_labels / "features", "--labels", csv_labels / name, "--out", tmp_path / "o", *options
    )
    assert done.returncode == 0, done.stderr
    assert _labels(tmp_path / "o") == LABELS


def test_audiosets_segments_as_they_come(csv_labels, tmp_path):
    pack(str(csv_labels / "features"), tmp_path / "o", csv_labels / "audioset.csv")
    mids = {"cat": "/m/0a", "dog": "/m/0b", "bird": "/m/0c"}
    expected = {"clip0": "ab", "clip1": "b", "clip2": "a", "clip3": "c", "clip4": "a", "clip5": "b"}
    assert _labels(tmp_path / "o") == {video: {f"/m/0{sign}" for sign in signs} for video, signs in expected.items()}
    vocabulary = tmp_path / "class_labels_indices.csv"
    rows = [f'{index},{mid},"{name}, so to say"' for index, (name, mid) in enumerate(mids.items())]
    vocabulary.write_text("\n".join(["index,mid,display_name", *rows]))
    pack(str(csv_labels / "features"), tmp_path / "named", csv_labels / "audioset.csv", vocabulary)
    assert read_vocabulary(tmp_path / "named/vocabulary.csv") == tuple(f"{name}, so to say" for name in mids)
    assert _labels(tmp_path / "named")["clip0"] == {"cat, so to say", "dog, so to say"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("commas.csv", "clip0.npy: its label 'cat,dog' looks like several names; --separator , takes them apart; if"),
        ("spacequote2.csv", "its label 'cat,dog' looks like several names; --separator , takes them apart"),
        ("pipe.csv", "its label 'cat|dog' looks like several names; --separator '|' takes them apart"),
        ("listrepr.csv", "its label '[0, 1]' looks like a list; --separator , reads lists such as"),
        ("namelist.csv", "looks like a list; --separator , reads lists such as"),
        ("wide.csv", "has no column 'labels' in its first line, which is 'id, bird, cat, dog'"),
    ],
)
def test_what_is_seen_is_said_with_the_option_to_use(csv_labels, tmp_path, name, words):
    done = topgb("data", "pack", csv_labels / "features", "--labels", csv_labels / name, "--out", tmp_path / "o")
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_a_vocabulary_with_blanks_before_quotes(csv_labels, tmp_path):
    vocabulary = csv_labels / "vocabulary-spacequote.csv"
    pack(str(csv_labels / "features"), tmp_path / "o", csv_labels / "ok.csv", vocabulary)
    assert read_vocabulary(tmp_path / "o/vocabulary.csv") == ("cat", "dog", "bird")
    with pytest.raises(InputError, match=r"its label 'cat\|dog' is not in the vocabulary; it looks like several names"):
        pack(str(csv_labels / "features"), tmp_path / "p", csv_labels / "pipe.csv", vocabulary)
    with pytest.raises(InputError, match="its label '0' is not in the vocabulary; labels are the names of classes"):
        pack(str(csv_labels / "features"), tmp_path / "p", csv_labels / "ints.csv", vocabulary)


def test_one_form_of_unicode(tmp_path):
    case = _case("nfd-nfc")
    pack(str(case / "features"), tmp_path / "o", case / "labels.csv")
    assert _labels(tmp_path / "o") == {"café": {"cat"}, "naïve video (1)": {"dog"}}


@pytest.mark.parametrize("kind", ["parquet", "h5", "npz"])
@pytest.mark.parametrize("level", ["frame", "video"])
def test_one_form_of_unicode_in_every_container(tmp_path, kind, level):
    """The siblings of that case: ids in tables and in HDF5 files are NFD, the CSV NFC, or the other way about."""
    for ids, rows in (("NFD", "NFC"), ("NFC", "NFD")):
        names = [unicodedata.normalize(ids, name) for name in ("café", "naïve video (1)")]
        values = [np.full((2, 3) if level == "frame" else 3, number, np.float16) for number in range(2)]
        folder = tmp_path / ids
        folder.mkdir()
        if kind == "parquet":
            pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
            floats = pyarrow.array([array.astype(np.float32).tolist() for array in values])
            parquet.write_table(pyarrow.table({"id": names, "x": floats}), folder / "a.parquet")
        elif kind == "h5":
            with pytest.importorskip("h5py").File(folder / "a.h5", "w") as file:
                for name, array in zip(names, values, strict=True):
                    file[name] = array
        else:
            for name, array in zip(names, values, strict=True):
                np.savez(folder / f"{name}.npz", x=array)
        text = "id,labels\ncafé,cat\nnaïve video (1),dog\n"
        (tmp_path / "l.csv").write_text(unicodedata.normalize(rows, text), encoding="utf-8")
        pack(str(folder), tmp_path / f"packed-{ids}", tmp_path / "l.csv")
        assert _labels(tmp_path / f"packed-{ids}") == {"café": {"cat"}, "naïve video (1)": {"dog"}}


def _table(path: Path, labels: list, level: str) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    one = [1, 2, 3] if level == "video" else [[1, 2, 3], [4, 5, 6]]
    kind = pyarrow.list_(pyarrow.uint8()) if level == "video" else pyarrow.list_(pyarrow.list_(pyarrow.float32()))
    columns = {
        "id": [f"v{number}" for number in range(len(labels))],
        "labels": labels,
        "mean": pyarrow.array([one] * len(labels), kind),
    }
    parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("level", ["frame", "video"])
@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["cat,dog", "dog", "bird"], "row 0 .*'cat,dog' looks like several names; separator=','"),
        (["[0, 1]", "[1]", "[1]"], r"'\[0, 1\]' looks like a list"),
        ([["cat|dog"], ["dog"], []], r"'cat\|dog' looks like several names; separator='\|'"),
        ([["['cat', 'dog']"], [], []], "looks like a list"),
        (['"cat";"dog"', "dog", "cat"], "has quotes of its own"),
    ],
)
def test_tables_are_refused_alike(tmp_path, level, labels, words):
    with pytest.raises(InputError, match=words):
        pack(str(_table(tmp_path / "t.parquet", labels, level)), tmp_path / "o")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("level", ["frame", "video"])
@pytest.mark.parametrize(
    ("labels", "separator"),
    [
        (["cat,dog", "dog", "bird"], ","),
        (['["cat", "dog"]', "['dog']", "[bird]"], ","),
        ([["cat|dog"], ["dog"], ["bird"]], "|"),
        ([["cat", "dog"], ["dog"], ["bird"]], None),
        ([["cat", "do\u0308g"], ["dög"], ["bird"]], None),
    ],
)
def test_tables_are_read_alike(tmp_path, level, labels, separator):
    pack(str(_table(tmp_path / "t.parquet", labels, level)), tmp_path / "o", options=PackOptions(separator=separator))
    dog = "dög" if "do\u0308g" in labels[0] else "dog"
    assert _labels(tmp_path / "o") == {"v0": {"cat", dog}, "v1": {dog}, "v2": {"bird"}}


def test_ids_that_differ_in_their_form_alone_are_one_id(tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    for form in ("NFC", "NFD"):
        np.save(folder / unicodedata.normalize(form, "café.npy"), np.zeros(3, np.float32))
    with pytest.raises(InputError, match="the id 'café' occurs twice"):
        pack(str(folder), tmp_path / "o")
    (folder / unicodedata.normalize("NFC", "café.npy")).unlink()
    labels = tmp_path / "labels.csv"
    labels.write_bytes("id;labels\ncafé;naïve;nai\u0308ve\n".encode("utf-16"))
    pack(str(folder), tmp_path / "o", labels)
    assert _labels(tmp_path / "o") == {"café": {"naïve"}}


def test_a_sign_that_cannot_separate_is_refused():
    for sign in ("", "[", '"'):
        with pytest.raises(InputError, match="cannot separate labels"):
            PackOptions(separator=sign)
