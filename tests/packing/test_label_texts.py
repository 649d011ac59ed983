"""Labels that are no names, in every container and at both levels: 0/1 vectors, scores, several names in one."""

import csv
from pathlib import Path

import numpy as np
import pytest

from topgb.errors import InputError
from topgb.packing.label_faults import find_fault
from topgb.packing.pack import PackOptions, pack

# What each of the videos has in its cell, and what is said of it.
FAULTS = {
    "vectors": (["0;1;1", "1;0;0"], "a 0/1 vector; write the names"),
    "vectors of floats": (["0.0;1.0;1.0", "1.0;0.0;0.0"], "a 0/1 vector"),
    "vectors of truths": (["False;True;True", "True;False;False"], "a 0/1 vector"),
    "vectors in brackets": (["[0, 1, 1]", "[1, 0, 0]"], "a 0/1 vector"),
    "NumPy's vectors": (["[0 1 1]", "[1 0 0]"], "a 0/1 vector"),
    "vectors without a sign": (["011", "100"], "a 0/1 vector"),
    "vectors of two": (["0;1", "1;0"], "all 12 videos are 0 and 1, a 0/1 vector of two classes"),
    "scores": (["0.1;0.9", "0.7;0.3"], "a number with a fraction"),
    "numbers as pandas writes them": (["3.0", "1.0"], "a number with a fraction"),
    "names with scores": (["cat:0.9", "dog=.5"], "a name with a score"),
    "names with a colon": (["cat:dog", "cat", "dog"], "several names; separator=':'"),
    "names with a word": (["cat and dog", "cat", "dog"], "several names; separator=' and '"),
    "a word processor's quotes": (["“cat”", "“dog”"], "quotes of its own"),
    "HTML": (["R&amp;B", "rock"], "a sign of HTML"),
    "full width": (["ｃａｔ", "cat"], "differs from .* in case, width, blanks, hyphens or invisible"),
    "a dash": (["-", "cat"], "a missing value"),
    "R's missing value": (["NA", "cat"], "a missing value"),
    "a spreadsheet's error": (["#REF!", "cat"], "a missing value"),
    "vectors of -1 and 1": (["-1;1;-1", "1;-1;-1"], "a 0/1 vector"),
    "vectors of yes and no": (["no;yes;no", "yes;no;no"], "a 0/1 vector"),
    "vectors of two, -1 and 1": (["-1;+1", "+1;-1"], r"all 12 videos are \+1 and -1, a 0/1 vector of two classes"),
    "vectors of counts": (["2;0;0", "0;3;0"], "repeats a number, as vectors of counts or scores do"),
    "vectors of scores": (["0.5;0;0.5", "1.0;0.25;0.25"], "repeats a number|with a fraction"),
    "names in lines": (["cat\ndog", "bird\ndog"], r"several names; separator='\\n'"),
    "names with an end of line alike": (["cat\ndog"], r"several names; separator='\\n'"),
    "a sign at the end": (["cat,,", "dog"], r"several names; separator=','"),
    "a control character": (["cat\x07", "dog"], "a control character"),
    "a lost letter": (["caf\ufffd", "dog"], "a wrong encoding before, which lost a letter"),
    "UTF-8 as Windows reads it": (["caf\u00c3\u00a9", "dog"], "is 'café' read in a wrong encoding"),
    "blanks": (["hot  dog", "hot dog"], "differs from .* in case, width, blanks"),
    "underscores": (["hot_dog", "hot dog"], "differs from .* in case, width, blanks"),
    "zeros before numbers": (["007", "7"], "differs from .* in the zeros before a number alone"),
    "NumPy's numbers": (["[3 7]", "[1 2]"], "a list, but not one that can be read"),
    "NumPy's names": (["['cat' 'dog']"], "a list, but not one that can be read"),
    "printed arrays": (["array(['cat', 'dog'])"], "a part of a list as a program prints it"),
    "printed sets": (["frozenset({'cat'})"], "a part of a list as a program prints it"),
}
CONTAINERS = ("csv", "text in Parquet", "lists in Parquet")
VIDEOS = 12


def _packed(folder: Path, cells: list[str], container: str, level: str, separator: str | None = None) -> None:
    """Pack videos with these cells of labels, over and over."""
    values = np.ones((2, 3), np.float32) if level == "frame" else np.ones(3, np.float32)
    rows = [(f"v{number:02d}", cells[number % len(cells)]) for number in range(VIDEOS)]
    options = PackOptions(separator=separator)
    if container == "csv":
        (folder / "f").mkdir()
        for video, _ in rows:
            np.save(folder / f"f/{video}.npy", values)
        with open(folder / "l.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("id", "labels"), *rows])
        pack(str(folder / "f"), folder / "o", folder / "l.csv", options=options)
        return
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    labels = [cell.split(";") if container.startswith("lists") else cell for _, cell in rows]
    columns = {"id": [video for video, _ in rows], "labels": labels, "x": [values.tolist()] * VIDEOS}
    parquet.write_table(pyarrow.table(columns), folder / "t.parquet")
    pack(str(folder / "t.parquet"), folder / "o", options=options)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_name_is_refused(tmp_path, fault, container):
    cells, words = FAULTS[fault]
    level = "frame" if len(fault) % 2 else "video"
    with pytest.raises(InputError, match=words) as raised:
        _packed(tmp_path, cells, container, level)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("cells", "separator", "words"),
    [
        (["[1 2]", "[2 3]"], " ", "a part of a list"),
        (["array(['cat', 'dog'])"], ",", "a part of a list"),
        (["cat;dog", "bird;fish"], ",", "several names; separator=';'"),
    ],
)
@pytest.mark.parametrize("container", CONTAINERS)
def test_pieces_of_lists_are_no_names(tmp_path, container, cells, separator, words):
    if container.startswith("lists"):
        # Semicolons are taken apart by whoever makes these lists.
        cells = [cell.replace(";", "|") for cell in cells]
        words = words.replace(";'", "[|]'")
    with pytest.raises(InputError, match=words):
        _packed(tmp_path, cells, container, "frame", separator)


@pytest.mark.parametrize(("cells", "separator"), [(["[0, 1, 1]", "[1, 0, 0]"], ","), (["0 1 1", "1 0 0"], " ")])
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_separator_makes_no_classes_of_a_vector(tmp_path, container, cells, separator):
    with pytest.raises(InputError, match="a 0/1 vector"):
        _packed(tmp_path, cells, container, "video", separator)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    "cells",
    [
        ["0;1", "1", "0"],
        ["16:9", "4:3"],
        ["cat;cat", "dog"],
        ["hot-dog", "hot"],
        ["AC/DC", "R&B"],
        ["C++", "C"],
        ["10", "11", "101"],
        ["'90s", "dogs’"],
        ["Ça va", "El Niño", "naïve", "Ähre", "ÃO"],
        ["rock 'n' roll", "What's the Story (Morning Glory)?", "f(x)"],
        ['Hallelujah ("Shrek")', "1) cats", "smile :)"],
        ["-1", "1"],
        ["no", "yes"],
        ["👩‍🚀", "👩"],
    ],
)
def test_names_stay_names(tmp_path, cells, container):
    _packed(tmp_path, cells, container, "video")
    assert (tmp_path / "o/vocabulary.csv").is_file()


def test_a_category_of_pandas_is_a_text(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {
        "id": pyarrow.array(["a", "b", "c"]).dictionary_encode(),
        "labels": pyarrow.array(["cat;dog", "dog", "dog"]).dictionary_encode(),
        "x": [[1.0], [2.0], [3.0]],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    packed = pack(str(tmp_path / "t.parquet"), tmp_path / "o")
    assert (packed.train, packed.labels, packed.description.classes) == (3, 4, 2)


@pytest.mark.parametrize(
    "name",
    [
        "label",
        "Labels",
        "segment_labels",
        "targets",
        "CLASS",
        "frame_labels",
        "labelVector",
        "one-hot",
        "onehot",
        "y_true",
        "gt",
        "ground_truth",
        "target_ids",
    ],
)
@pytest.mark.parametrize("container", ["npz", "hdf5", "parquet", "folders"])
def test_labels_are_never_a_feature(tmp_path, container, name):
    values = {"x": np.ones(4, np.float32), name: np.eye(4, dtype=np.float32)[0]}
    source: str | dict[str, str] = str(tmp_path / "f")
    (tmp_path / "f").mkdir()
    if container == "npz":
        np.savez(tmp_path / "f/a.npz", **values)
    elif container == "hdf5":
        with pytest.importorskip("h5py").File(tmp_path / "f/a.h5", "w") as file:
            for key, array in values.items():
                file[f"a/{key}"] = array
    elif container == "parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        columns = {"id": ["a"], **{key: [array.tolist()] for key, array in values.items()}}
        parquet.write_table(pyarrow.table(columns), tmp_path / "f/a.parquet")
    else:
        source = {}
        for key, array in values.items():
            source[key] = str(tmp_path / key)
            (tmp_path / key).mkdir()
            np.save(tmp_path / key / "a.npy", array)
    with pytest.raises(InputError, match=f"no feature can be called '{name}', as "):
        pack(source, tmp_path / "o")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("name", ["class_token", "cls", "x", "y", "glottis", "hot", "targeted", "labellum"])
def test_features_stay_features(tmp_path, name):
    (tmp_path / "f").mkdir()
    for video in "ab":
        np.savez(tmp_path / f"f/{video}.npz", **{name: np.eye(3, dtype=np.float32)["ab".index(video)]})
    assert pack(str(tmp_path / "f"), tmp_path / "o").description.spec.features[0].name == name


@pytest.mark.parametrize("sign", ["a", "0 ", ":", "&#1", ".", "1.", "'", "[", " and "])
def test_a_long_name_takes_no_long_time(sign):
    """A name of a megabyte would take days in quadratic time."""
    name = sign.strip() + sign * ((1 << 20) // len(sign))
    found = find_fault([name, "cat"], [name], None)
    assert found is None or found[0] == name
