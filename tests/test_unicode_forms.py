"""Ids and class names compare in Unicode's form NFC, whichever form files hold: a Mac's file names are in NFD."""

from pathlib import Path

import torch

from combining.small_models import model_file
from conftest import SMALL_CLASSES, SMALL_SPEC
from topgb.combining.average import average
from topgb.modelfile import read_model_file
from topgb.records.codec import encode_example
from topgb.records.description import FILE, Description, check_descriptions, find_descriptions, write_description
from topgb.records.framing import Place
from topgb.records.teacher import Teacher, TeacherDescription, scores_path
from topgb.records.teacher_scores import write_scores
from topgb.youtube8m.deviations import deviations_from_csv
from topgb.youtube8m.submission import HEADER, check

NFC, NFD = "caf\u00e9", "cafe\u0301"


def _names(first: str) -> tuple[str, ...]:
    return (first, *map(str, range(1, SMALL_CLASSES)))


def test_class_names_of_models(tmp_path):
    models = [model_file(tmp_path / name, class_names=_names(name)) for name in (NFC, NFD)]
    average(models, tmp_path / "out.safetensors")
    assert read_model_file(tmp_path / "out.safetensors")[0].class_names == _names(NFC)


def test_class_names_of_records(tmp_path):
    (tmp_path / "train0000.tfrecord").write_bytes(b"")
    write_description(Description(tmp_path / FILE, SMALL_SPEC, 2, "vocabulary.csv"))
    (tmp_path / "vocabulary.csv").write_text(f"Index,Name\n0,{NFD}\n1,b\n")
    for name in (NFC, NFD):
        check_descriptions(find_descriptions(f"{tmp_path}/*.tfrecord"), SMALL_SPEC, (name, "b"))


def test_ids_of_a_teacher(tmp_path):
    write_scores(scores_path(tmp_path, "a.tfrecord"), [([NFD, "b\u00eb"], torch.rand(2, 3))], 3)
    TeacherDescription({}, [["a.tfrecord", 2, "x"]], 3, None, "safetensors").write(tmp_path)
    teacher = Teacher(tmp_path)
    assert NFC in teacher
    assert NFD in teacher
    assert "be\u0308" in teacher
    assert "cafe" not in teacher
    assert torch.equal(teacher.rows([NFC]), teacher.rows([NFD]))


def test_ids_of_a_submission(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text(f"{HEADER}\n{NFD},0 0.5\n")
    assert check(path, [NFC]).count == 0
    path.write_text(f"{HEADER}\n{NFD},0 0.5\n{NFC},0 0.5\n")
    assert check(path, [NFC]).count == 1


def test_ids_of_deviations(tmp_path):
    path = tmp_path / "stds.csv"
    path.write_text(f"vids,std\n{NFC},0.5\n")
    measure = deviations_from_csv(path)
    assert measure(memoryview(encode_example(NFD, {}, None)), Place(str(Path("x")), 0, 0))[1] == 0.5
