"""A teacher's scores: written, looked up by id, and refused where they are not what they should be."""

import json
import pickle

import numpy as np
import pytest
import torch

from topgb.errors import InputError
from topgb.records.codec import encode_sequence_example
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.framing import frame_record
from topgb.records.label_statistics import check_teacher_knows, teacher_mean
from topgb.records.labels import Targets
from topgb.records.sampling import EVERY_FRAME
from topgb.records.teacher import DESCRIPTION_FILE, Teacher, TeacherDescription, scores_path
from topgb.records.teacher_scores import read_scores, write_scores
from topgb.records.training_batches import TrainingBatches, load_batches
from topgb.tensors import load_tensors, save_tensors

CLASSES = 5


def probabilities(videos: int, seed: int = 0, classes: int = CLASSES) -> torch.Tensor:
    return torch.rand(videos, classes, generator=torch.Generator().manual_seed(seed))


def teacher_of(dataset, folder, top_k=None, ids=None):
    """A folder with scores for the data set's videos, and those scores."""
    everything = []
    for shard in range(len(dataset.shards)):
        batch = next(evaluation_batches(dataset, 1000, [shard]))
        scores = probabilities(len(batch), shard)
        write_scores(scores_path(folder, dataset.shards[shard].name), [(ids or batch.ids, scores)], CLASSES, top_k)
        everything.append(scores)
    TeacherDescription({"sha256": "a"}, dataset.fingerprint(), CLASSES, top_k, "safetensors").write(folder)
    return torch.cat(everything)


@pytest.fixture
def data(shards, spec):
    return open_dataset(shards(4, 3), spec, CLASSES, 300)


def test_scores_come_back_in_float16(tmp_path):
    scores = probabilities(3)
    write_scores(tmp_path / "s", [(["á", ""], scores[:2]), (["c"], scores[2:])], CLASSES)
    found = read_scores(tmp_path / "s", CLASSES, None)
    assert [found.id(row) for row in range(len(found))] == ["á".encode(), b"", b"c"]
    row = np.empty(CLASSES, np.float16)
    found.write_row(1, row)
    np.testing.assert_array_equal(row, scores[1].half().numpy())


@pytest.mark.parametrize("top_k", [1, 3, CLASSES])
def test_the_best_keep_their_scores_and_the_others_share_the_rest(tmp_path, top_k):
    scores = probabilities(2)
    write_scores(tmp_path / "s", [(["a", "b"], scores)], CLASSES, top_k)
    found = read_scores(tmp_path / "s", CLASSES, top_k)
    for number, row in enumerate(scores):
        wanted = row.clone()
        others = row.argsort(descending=True)[top_k:]
        wanted[others] = row[others].sum() / max(1, len(others))
        got = np.empty(CLASSES, np.float16)
        found.write_row(number, got)
        np.testing.assert_allclose(got, wanted, rtol=1e-3)


def test_many_classes(tmp_path):
    scores = torch.zeros(1, 40_000)
    scores[0, 39_999] = 0.5
    write_scores(tmp_path / "s", [(["a"], scores)], 40_000, 1)
    got = np.empty(40_000, np.float16)
    read_scores(tmp_path / "s", 40_000, 1).write_row(0, got)
    assert (got[39_999], got[:39_999].max()) == (0.5, 0.0)


def test_batches_hold_the_scores_of_their_videos(data, tmp_path):
    scores = teacher_of(data, tmp_path / "t")
    teacher = Teacher(tmp_path / "t")
    taught = open_dataset(
        [shard.path for shard in data.shards], data.spec, CLASSES, 300, targets=Targets(teacher=teacher)
    )
    check_teacher_knows(taught)
    seen = 0
    batches = TrainingBatches(taught, 3, 0, EVERY_FRAME)
    for batch, _ in load_batches(batches, range(len(batches)), workers=1):
        for video, row in zip(batch.ids, batch.teacher, strict=True):
            assert torch.equal(row, scores[int(video[1:])].half())
            seen += 1
    assert seen == 7
    np.testing.assert_allclose(teacher_mean(taught, 100), scores.half().double().mean(0), rtol=1e-9)
    assert len(pickle.loads(pickle.dumps(teacher))) == 7


def test_a_video_without_scores_is_named_at_the_start(data, shards, tmp_path):
    teacher_of(data, tmp_path / "t")
    more = open_dataset(shards(4, 4), data.spec, CLASSES, 300, targets=Targets(teacher=Teacher(tmp_path / "t")))
    with pytest.raises(InputError, match=r"no scores for video 'v7'; run topgb distill"):
        check_teacher_knows(more)
    with pytest.raises(InputError, match="no scores for video 'v7'"):
        list(evaluation_batches(more, 8))
    fewer = open_dataset(shards(4, 2), data.spec, CLASSES, 300, targets=Targets(teacher=Teacher(tmp_path / "t")))
    check_teacher_knows(fewer)


def test_an_unfinished_folder_and_equal_ids_are_refused(data, tmp_path):
    teacher_of(data, tmp_path / "t")
    scores_path(tmp_path / "t", "part001.tfrecord").unlink()
    with pytest.raises(InputError, match=r"lacks the scores of 1 of 2 shards \(part001.*goes on"):
        Teacher(tmp_path / "t")
    write_scores(scores_path(tmp_path / "t", "part001.tfrecord"), [(["v2"], probabilities(1))], CLASSES)
    with pytest.raises(InputError, match="two videos of the id 'v2'"):
        Teacher(tmp_path / "t")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not as topgb distill wrote it"),
        ("[]", "not as topgb distill wrote it"),
        ("{}", "not as topgb distill wrote it"),
        ('{"version": 9}', "version"),
        ('{"version": "a\\u007f"}', r"another version of topgb \('a\\x7f'\)"),
        (
            '{"version": 1, "model": {}, "records": [], "classes": "5", "top_k": null, "format": "safetensors"}',
            "not as topgb",
        ),
        (
            '{"version": 1, "model": {}, "records": [["../a"]], "classes": 5, "top_k": null, "format": "tfrecord"}',
            "not as",
        ),
        ("\\xff", "not as topgb distill wrote it"),
    ],
)
def test_descriptions_that_make_no_sense_are_refused(tmp_path, text, words):
    (tmp_path / DESCRIPTION_FILE).write_bytes(text.encode().replace(b"\\xff", b"\xff"))
    with pytest.raises(InputError, match=words):
        Teacher(tmp_path)
    with pytest.raises(InputError, match="holds no teacher.json"):
        Teacher(tmp_path / "absent")


@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize("wrong", ["dtype", "missing", "ends", "length", "width", "classes", "rows"])
def test_foreign_scores_are_refused(tmp_path, top_k, wrong):
    path = tmp_path / "s"
    write_scores(path, [(["a", "b"], probabilities(2))], CLASSES, top_k)
    tensors = {name: tensor.clone() for name, tensor in load_tensors(path)[0].items()}
    main = "probabilities" if top_k is None else "classes"
    if wrong == "dtype":
        tensors[main] = tensors[main].float()
    elif wrong == "missing":
        del tensors["ids"]
    elif wrong == "ends":
        tensors["id_ends"] = torch.tensor([3, 2])
    elif wrong == "length":
        tensors["id_ends"] = torch.tensor([1, 3])
    elif wrong == "width":
        tensors[main] = tensors[main][:, :-1].contiguous()
    elif wrong == "classes":
        if top_k is None:
            tensors["id_ends"] = tensors["id_ends"][None]
        else:
            tensors["classes"][0, 0] = CLASSES
    else:
        tensors[main] = tensors[main][:1].contiguous()
    save_tensors(path, tensors)
    with pytest.raises(InputError, match="does not hold the scores"):
        read_scores(path, CLASSES, top_k)


@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, -0.25, 1.5])
def test_scores_that_are_no_probabilities_are_refused(data, tmp_path, top_k, wrong):
    teacher_of(data, tmp_path / "t", top_k)
    path = sorted((tmp_path / "t").glob("*.safetensors"))[1]
    tensors = {name: tensor.clone() for name, tensor in load_tensors(path)[0].items()}
    sound = {name: tensor.clone() for name, tensor in tensors.items()}
    for name in ("probabilities",) if top_k is None else ("scores", "rest"):
        # The three other classes may share up to 3.
        tensors[name][1] = 3.5 if name == "rest" and wrong == 1.5 else wrong
        save_tensors(path, tensors)
        with pytest.raises(InputError, match=f"{path.name} holds scores that are no probabilities .*distill again"):
            Teacher(tmp_path / "t")
        tensors[name] = sound[name]
    tensors["rest" if top_k else "probabilities"][0] = -0.0
    save_tensors(path, tensors)
    # A worker that receives a teacher does not read all of it again.
    assert pickle.loads(pickle.dumps(Teacher(tmp_path / "t"))).classes == CLASSES


def test_a_teacher_of_other_classes_is_refused(data, tmp_path):
    teacher_of(data, tmp_path / "t")
    with pytest.raises(InputError, match="knows 5 classes, the student 6"):
        open_dataset([s.path for s in data.shards], data.spec, 6, 300, targets=Targets(teacher=Teacher(tmp_path / "t")))


def record(scores, labels=(1,)):
    values = {"rgb": np.ones((2, 6), np.uint8), "audio": np.ones((2, 3), np.uint8)}
    return encode_sequence_example("v", values, None if labels is None else list(labels), "video_id", scores)


def test_records_may_hold_the_scores_themselves(spec, tmp_path):
    scores = probabilities(2)
    (tmp_path / "a").write_bytes(b"".join(frame_record(record(row.numpy())) for row in scores))
    data = open_dataset(str(tmp_path / "a"), spec, CLASSES, 300, targets=Targets(teacher="records"))
    batch = next(evaluation_batches(data, 8))
    assert torch.equal(batch.teacher, scores.half())
    assert batch.labels.any(1).all()
    np.testing.assert_allclose(teacher_mean(data, 2), scores.half().double().mean(0), rtol=1e-9)
    assert next(evaluation_batches(open_dataset(str(tmp_path / "a"), spec, CLASSES, 300), 8)).teacher is None


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (None, "video 'v' holds no 'predictions'"),
        (np.ones(4, np.float32), "4 predictions for 5 classes"),
        (np.ones(5, np.uint8), "hold bytes, not floats"),
        (np.array([0, 0, 0, 0, np.nan], np.float32), "not all from 0 to 1"),
        (np.array([0, 0, 0, 0, 1.5], np.float32), "not all from 0 to 1"),
    ],
)
def test_records_without_sound_scores_are_refused(spec, tmp_path, scores, words):
    (tmp_path / "a").write_bytes(frame_record(record(scores)))
    with pytest.raises(InputError, match=words):
        list(
            evaluation_batches(
                open_dataset(str(tmp_path / "a"), spec, CLASSES, 300, targets=Targets(teacher="records")), 8
            )
        )


def test_descriptions_tell_what_changed(data, tmp_path):
    one = TeacherDescription({"sha256": "a"}, data.fingerprint(), 5, None, "safetensors")
    one.write(tmp_path)
    assert one.differs_from(TeacherDescription.read(tmp_path)) is None
    assert json.loads((tmp_path / DESCRIPTION_FILE).read_text())["version"] == 1
    two = TeacherDescription({"sha256": "b"}, data.fingerprint(), 5, None, "safetensors")
    assert one.differs_from(two) == "another teacher"
