"""Models and scores of other classes, though as many: refused or named, as classes are numbers to everything else."""

import json
from pathlib import Path

import pytest

import topgb as api
from cli.program import topgb
from cli.test_label_lists import FRAMES, MODEL, VIDEOS, recipe_for, write_records
from combining.small_models import model_file
from topgb.errors import InputError, TopgbWarning

NAMES = ("cat", "dog", "bird", "fish")
OTHERS = ("cat", "bird", "dog", "fish")
NFD = ("cat", "dog", "cafe\u0301", "fish")
NFC = ("cat", "dog", "caf\u00e9", "fish")


def _model(path: Path, spec, names) -> Path:
    return model_file(path, MODEL, features=spec, classes=4, class_names=names)


def _vocabulary(path: Path, names) -> Path:
    path.write_text("Index,Name\n" + "".join(f"{number},{name}\n" for number, name in enumerate(names)))
    return path


@pytest.mark.parametrize(("name", "spec"), [("a.tfrecord", FRAMES), ("a.tfrecord.gz", VIDEOS)])
def test_models_of_other_classes_are_not_compared(tmp_path, name, spec):
    records = write_records(tmp_path / name, spec, [[number % 4] for number in range(12)])
    one, other, nameless = (_model(tmp_path / str(n), spec, names) for n, names in enumerate((NAMES, OTHERS, None)))
    words = "class 1 is 'dog' in .* and 'bird' in .*; name models of the same classes"
    for call in (
        lambda model: api.compare(one, model, records, progress=False),
        lambda model: api.report([one, model], records, tmp_path / "r.html", force=True, progress=False),
    ):
        with pytest.raises(InputError, match=words):
            call(other)
        call(nameless)
    done = topgb("compare", one, other, records)
    assert (done.returncode, f"'dog' in {one} and 'bird' in {other}" in done.stderr) == (2, True)


@pytest.mark.parametrize("spec", [FRAMES, VIDEOS])
def test_a_teacher_of_other_classes_is_named(tmp_path, spec):
    records = write_records(tmp_path / "a.tfrecord", spec, [[number % 4] for number in range(12)])
    teacher = _model(tmp_path / "t", spec, NAMES)
    assert topgb("distill", teacher, records, "--out", tmp_path / "scores").returncode == 0
    said = f"the scores in {tmp_path}/scores are of a teacher whose classes have other names"
    train = ("train", recipe_for(tmp_path, spec, 4), "--data", records, "--teacher", tmp_path / "scores", "--force")
    for names, expected in ((OTHERS, True), (NAMES, False)):
        done = topgb(*train, "--out", tmp_path / "run", "--vocabulary", _vocabulary(tmp_path / "v.csv", names))
        assert (done.returncode, said in done.stderr) == (0, expected), done.stderr
        student = _model(tmp_path / f"s{expected}", spec, names)
        done = topgb(
            "model", "rerank", student, "--data", records, "--scores", tmp_path / "scores", "--out", tmp_path / "r",
            "--epochs", "1", "--force",
        )  # fmt: skip
        assert (done.returncode, said in done.stderr) == (0, expected), done.stderr
    student = tmp_path / "sTrue"
    options = {"data": records, "scores": tmp_path / "scores", "epochs": 1, "progress": False}
    with pytest.warns(TopgbWarning, match="other names") as caught:
        api.rerank(student, tmp_path / "r2", **options)
    assert caught[0].filename == __file__


def test_forms_of_unicode_are_the_same_names_and_old_folders_have_none(tmp_path):
    records = write_records(tmp_path / "a.tfrecord", VIDEOS, [[number % 4] for number in range(12)])
    api.distill(_model(tmp_path / "t", VIDEOS, NFD), records, tmp_path / "scores", progress=False)
    train = ("train", recipe_for(tmp_path, VIDEOS, 4), "--data", records, "--teacher", tmp_path / "scores", "--force")
    done = topgb(*train, "--out", tmp_path / "run", "--vocabulary", _vocabulary(tmp_path / "v.csv", NFC))
    assert (done.returncode, "other names" in done.stderr) == (0, False), done.stderr
    path = tmp_path / "scores" / "teacher.json"
    described = json.loads(path.read_text())
    assert len(described.pop("names")) == 64
    path.write_text(json.dumps(described))
    done = topgb(*train, "--out", tmp_path / "run", "--vocabulary", _vocabulary(tmp_path / "v.csv", OTHERS))
    assert (done.returncode, "other names" in done.stderr) == (0, False), done.stderr
