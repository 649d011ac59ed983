"""--vocabulary and --names: class names beside numbers, wherever classes are printed."""

import csv
import json

import pytest

from cli.program import topgb
from conftest import SMALL_CLASSES
from topgb.modelfile import read_model_file
from topgb.vocabulary import write_vocabulary

NAMES = ["Game", "Tank, the", 'the "best"', "a; b", *(f"class {index}" for index in range(4, SMALL_CLASSES))]
OTHERS = [name.upper() for name in NAMES]


@pytest.fixture(scope="module")
def files(tmp_path_factory, small_recipe, small_records):
    """A run and its model with names, one model without, and vocabularies."""
    folder = tmp_path_factory.mktemp("vocabulary")
    write_vocabulary(folder / "names.csv", NAMES)
    write_vocabulary(folder / "others.csv", OTHERS, [7] * SMALL_CLASSES)
    write_vocabulary(folder / "few.csv", NAMES[:3])
    for name, more in (("named", ["--vocabulary", folder / "names.csv"]), ("plain", [])):
        done = topgb(
            "train",
            small_recipe,
            "--data",
            small_records["train"],
            "--out",
            folder / name,
            "--device",
            "cpu",
            "--set",
            "training.epochs=1",
            *more,
        )
        assert done.returncode == 0, done.stderr
    return folder


def _rows(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_names_go_into_the_run_and_its_model_files(files, tmp_path):
    assert read_model_file(files / "named/model.safetensors")[0].class_names == tuple(NAMES)
    assert topgb("build", files / "named", "--out", tmp_path / "a").returncode == 0
    assert read_model_file(tmp_path / "a")[0].class_names == tuple(NAMES)
    assert (
        topgb("build", files / "plain", "--out", tmp_path / "b", "--vocabulary", files / "others.csv").returncode == 0
    )
    assert read_model_file(tmp_path / "b")[0].class_names == tuple(OTHERS)


def test_show_prints_index_and_name(files):
    model = files / "named/model.safetensors"
    assert 'classes: 0 Game, 1 Tank, the, 2 the "best", 3 a; b, 4 class 4,' in topgb("model", "show", model).stdout
    shown = topgb("model", "show", model, "--vocabulary", files / "others.csv")
    assert 'classes: 0 GAME, 1 TANK, THE, 2 THE "BEST", 3 A; B, 4 CLASS 4,' in shown.stdout
    plain = topgb("model", "show", files / "plain/model.safetensors", "--json", "--vocabulary", files / "names.csv")
    assert json.loads(plain.stdout)["class_names"] == NAMES


@pytest.mark.parametrize(
    ("model", "more", "names"),
    [
        ("named", [], NAMES),
        ("named", ["--vocabulary", "{files}/others.csv"], OTHERS),
        ("plain/model.safetensors", ["--vocabulary", "{files}/names.csv"], NAMES),
        ("plain", [], [str(index) for index in range(SMALL_CLASSES)]),
    ],
)
def test_the_per_class_csv_has_names(files, small_records, tmp_path, model, more, names):
    out = ["--per-class", tmp_path / "c.csv", "--device", "cpu"]
    done = topgb("eval", files / model, small_records["validate"], *out, *[text.format(files=files) for text in more])
    assert done.returncode == 0, done.stderr
    rows = _rows(tmp_path / "c.csv")
    assert rows[0][:4] == ["class", "name", "positives", "average_precision"]
    assert [row[:2] for row in rows[1:]] == [[str(index), name] for index, name in enumerate(names)]


@pytest.mark.parametrize(
    ("model", "more", "names"),
    [
        ("named", ["--names"], NAMES),
        ("named", ["--names", "--vocabulary", "{files}/others.csv"], OTHERS),
        ("plain", ["--vocabulary", "{files}/others.csv"], OTHERS),
    ],
)
def test_predictions_with_names(files, small_records, tmp_path, model, more, names):
    arguments = [files / model, small_records["unlabelled"], "--device", "cpu", "--out"]
    assert topgb("predict", *arguments, tmp_path / "two.csv").returncode == 0
    done = topgb("predict", *arguments, tmp_path / "three.csv", *[text.format(files=files) for text in more])
    assert done.returncode == 0, done.stderr
    two, three = _rows(tmp_path / "two.csv"), _rows(tmp_path / "three.csv")
    assert two[0] == ["VideoId", "LabelConfidencePairs"]
    assert three[0] == ["VideoId", "LabelConfidencePairs", "ClassNames"]
    assert [row[:2] for row in three] == two
    for row in three[1:]:
        classes = [int(number) for number in row[1].split(" ")[::2]]
        assert row[2] == "; ".join(names[index] for index in classes)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "{files}/plain", "{unlabelled}", "--out", "{tmp}/p", "--names"], "names no classes; give their"),
        (
            ["predict", "{files}/plain", "{unlabelled}", "--out", "{tmp}/p", "--vocabulary", "{files}/few.csv"],
            "3 class names were given for 12 classes",
        ),
        (["eval", "{files}/plain", "{validate}", "--vocabulary", "{files}/names.csv"], "the CSV of --per-class"),
        (
            ["eval", "{files}/plain", "{validate}", "--per-class", "{tmp}/c", "--vocabulary", "{files}/few.csv"],
            "3 class names were given for 12 classes",
        ),
        (
            ["model", "show", "{files}/plain/model.safetensors", "--vocabulary", "{files}/few.csv"],
            "3 class names were given for 12 classes",
        ),
        (
            ["model", "show", "{files}/plain/model.safetensors", "--vocabulary", "{files}/absent.csv"],
            "cannot read {files}/absent.csv",
        ),
        (
            ["build", "{files}/plain", "--out", "{tmp}/m", "--vocabulary", "{files}/few.csv"],
            "3 class names were given for 12 classes",
        ),
        (
            ["build", "{files}/plain", "--out", "{tmp}/m", "--vocabulary", "{files}/plain/model.safetensors"],
            "model.safetensors",
        ),
        (
            ["train", "{recipe}", "--data", "{train}", "--out", "{tmp}/run", "--vocabulary", "{files}/few.csv"],
            "3 class names were given for 12 classes",
        ),
        (
            ["train", "{recipe}", "--data", "{train}", "--out", "{tmp}/run", "--vocabulary", "{recipe}"],
            "no column Index",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(files, small_records, small_recipe, tmp_path, arguments, words):
    fill = {"files": files, "tmp": tmp_path, "recipe": small_recipe, **small_records}
    done = topgb(*[text.format(**fill) for text in arguments])
    assert done.returncode == 2
    assert words.format(**fill) in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
