"""dataset.yaml: written, read back, found beside records, and refused where it says nonsense."""

import os
import shutil

import pytest
import yaml

from topgb.errors import InputError
from topgb.extractor_identity import canonical
from topgb.features import Feature, FeatureSpec
from topgb.records.description import (
    FILE,
    Description,
    check_descriptions,
    find_description,
    find_descriptions,
    write_description,
)
from topgb.training.recipe import load_recipe
from topgb.vocabulary import write_vocabulary

SPEC = FeatureSpec("frame", (Feature("é", 6, range=(-1.5, 3.25)), Feature("sound", 3, "float32")))


@pytest.fixture
def folder(tmp_path):
    """A folder of two shards (empty ones do here) with a description and class names."""
    for number in range(2):
        (tmp_path / f"train000{number}.tfrecord").write_bytes(b"")
    write_vocabulary(tmp_path / "vocabulary.csv", ["cat", "dog"])
    write_description(Description(tmp_path / FILE, SPEC, 2, "vocabulary.csv"))
    return tmp_path


def test_what_is_written_is_read(folder):
    found = find_description(f"{folder}/train*.tfrecord")
    assert found == Description(folder / FILE, SPEC, 2, "vocabulary.csv")
    assert found.class_names() == ("cat", "dog")
    assert find_description([str(folder / "train0000.tfrecord")]) == found


def test_it_looks_like_a_recipe(folder):
    assert (folder / FILE).read_text().split("\n", 1)[1] == (
        "level: frame\nfeatures:\n  - {name: é, size: 6, dtype: uint8, range: [-1.5, 3.25]}\n"
        "  - {name: sound, size: 3, dtype: float32}\nclasses: 2\nvocabulary: vocabulary.csv\n"
    )


def test_it_is_the_data_section_of_a_recipe(folder):
    section = yaml.safe_load((folder / FILE).read_text())
    del section["vocabulary"]
    assert section == find_description(f"{folder}/*.tfrecord").data_section()
    data = load_recipe("video-moe", [f"data={yaml.safe_dump(section)}"]).data
    assert (data.spec(), data.classes) == (SPEC, 2)


def test_a_relative_pattern_and_the_current_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert find_description("train*.tfrecord").spec == SPEC
    assert find_description("./train0000.tfrecord").class_names() == ("cat", "dog")


def test_none_where_there_is_none_or_the_records_lie_apart(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copy(folder / "train0000.tfrecord", elsewhere)
    assert find_description(f"{elsewhere}/*.tfrecord") is None
    assert find_description(f"{elsewhere}/*.tfrecord,{folder}/*.tfrecord") is None
    assert find_description("memory://x/*.tfrecord") is None
    with pytest.raises(InputError, match="no file matches"):
        find_description(f"{folder}/other*")


def test_it_is_not_overwritten_without_force(folder):
    again = Description(folder / FILE, SPEC, None)
    with pytest.raises(InputError, match="force=True"):
        write_description(again)
    write_description(again, force=True)
    assert find_description(f"{folder}/*.tfrecord") == again
    assert "classes" not in again.data_section()
    assert again.class_names() is None


GOOD = "level: frame\nfeatures: [{name: x, size: 3}]\nclasses: 2\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a mapping"),
        ("- a\n", "not a mapping"),
        ("path: ../coco\ntrain: images\n", "the key 'path'"),
        (GOOD.replace("frame", "clip"), "level 'clip'"),
        (GOOD.replace("frame", "[frame]"), "level"),
        ("level: frame\n", "'features' is not a list"),
        (GOOD.replace("size: 3", "size: x"), "an integer"),
        (GOOD.replace("size: 3", "size: true"), "an integer"),
        (GOOD.replace("size: 3", "size: 0"), "size 0"),
        (GOOD.replace("size: 3", "size: 3, dtype: int8"), "dtype 'int8'"),
        (GOOD.replace("size: 3", "size: 3, dtype: [uint8]"), "dtype"),
        (GOOD.replace("size: 3", "size: 3, range: [1]"), "the range"),
        (GOOD.replace("size: 3", "size: 3, range: [2, 1]"), "low must be below high"),
        (GOOD.replace("size: 3", "size: 3, range: [0, .nan]"), "finite"),
        (GOOD.replace("size: 3", "size: 3, range: [0, 1" + "0" * 400 + "]"), "a number has 401 characters"),
        (GOOD.replace("[{", "[{name: x, size: 1}, {"), "twice"),
        (GOOD.replace("[{name: x, size: 3}]", "[x]"), "a feature is not a mapping"),
        (GOOD.replace("classes: 2", "classes: many"), "'classes' is 'many'"),
        (GOOD.replace("classes: 2", "classes: 0"), "'classes' is 0"),
        (GOOD + "vocabulary: ../../secret.csv\n", "beside it"),
        (GOOD + "vocabulary: [1]\n", "beside it"),
        (GOOD + "? [a]\n: 1\n", "not YAML"),
        (GOOD + "x: 2020-13-45\n", "not YAML"),
        (GOOD + "x: !!python/object/apply:os.system [ls]\n", "not YAML"),
        ("[" * 5000, "not YAML"),
        ("# " + "x" * (1 << 21), "longer than 262,144 bytes"),
        (b"level: \xff", "not YAML"),
        (b"level: \x00", "not YAML"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_another_file_of_that_name_gets_one_sentence(folder, text, words):
    (folder / FILE).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=words) as raised:
        find_description(f"{folder}/*.tfrecord")
    assert str(raised.value).startswith(str(folder / FILE))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_gets_one_sentence(folder):
    (folder / FILE).chmod(0)
    with pytest.raises(InputError, match="cannot read"):
        find_description(f"{folder}/*.tfrecord")


def test_a_vocabulary_of_another_length_is_refused(folder):
    write_vocabulary(folder / "vocabulary.csv", ["cat"], force=True)
    with pytest.raises(InputError, match="1 class names were given for 2"):
        find_description(f"{folder}/*.tfrecord").class_names()


def test_sets_packed_apart_are_told_apart(folder):
    described = find_descriptions(f"{folder}/*.tfrecord")
    check_descriptions(described, SPEC, ("cat", "dog"))
    check_descriptions(described, SPEC, None)
    other = FeatureSpec("frame", (Feature("é", 6, range=(-2.0, 2.0)), Feature("sound", 3, "float32")))
    expected = r"'é' has the range -1.5 to 3.25, but -2 to 2 is expected; .*range={'é': \(-2.0, 2.0\)}"
    with pytest.raises(InputError, match=expected):
        check_descriptions(described, other, None)
    with pytest.raises(InputError, match="its classes are not named as those expected; .*vocabulary"):
        check_descriptions(described, SPEC, ("dog", "cat"))


EXTRACTOR = {
    "name": "default",
    "image": {"net": "lite0", "sha256": "12e34", "filter": "bicubic", "mean": [0.5, 1e-07], "crop": None},
    "sound": {"rate": 16000, "on": True, "odd": "é: #{\n"},
}


def test_the_extractor_comes_back_as_it_was(tmp_path):
    """A hash of digits and one e stays text, a whole number stays whole."""
    described = Description(tmp_path / FILE, SPEC, None, max_frames=7, extractor=EXTRACTOR)
    write_description(described)
    (tmp_path / "train0000.tfrecord").write_bytes(b"")
    found = find_description(f"{tmp_path}/*.tfrecord")
    assert found == described
    assert canonical(found.extractor) == canonical(EXTRACTOR)


@pytest.mark.parametrize("value", ["3", "[a]", "{}", "null", "{when: 2020-01-01}", "{1: a}", "{x: .inf}"])
def test_a_malformed_extractor_is_refused(tmp_path, value):
    (tmp_path / "train0000.tfrecord").write_bytes(b"")
    text = "level: frame\nfeatures:\n  - {name: a, size: 2}\nextractor: " + value
    (tmp_path / FILE).write_text(text + "\n")
    with pytest.raises(InputError, match="dataset.yaml does not describe records: 'extractor' "):
        find_description(f"{tmp_path}/*.tfrecord")
