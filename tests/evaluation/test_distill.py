"""Distilling: every video's scores, shard by shard, and going on after a stop."""

import shutil

import numpy as np
import pytest
import torch

import topgb
from combining.small_models import model_file
from conftest import SMALL_CLASSES, SMALL_SPEC
from tolerances import PROBABILITY
from topgb.errors import InputError
from topgb.evaluation.distill import DistillOptions, distill, distill_shard, open_records, open_teacher
from topgb.evaluation.predictions import EVALUATION_BATCH
from topgb.progress import SILENT, Progress
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.labels import Targets
from topgb.records.shards import find_shards
from topgb.records.synth import SynthOptions, write_synthetic
from topgb.records.teacher import Teacher

CPU = torch.device("cpu")
# Half a step of float16 just below 1, and what a batch of other videos may change.
IN_FLOAT16 = 2**-12 + PROBABILITY


@pytest.fixture
def teacher(tmp_path):
    return open_teacher(model_file(tmp_path / "teacher.safetensors"), CPU)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    write_synthetic(folder, SMALL_SPEC, SMALL_CLASSES, 1100, SynthOptions(videos_per_shard=600, frames=(2, 5)))
    return folder


@pytest.fixture
def records(written, tmp_path):
    """A copy of its own for each test: some change it."""
    shutil.copytree(written, tmp_path / "data")
    return f"{tmp_path}/data/*.tfrecord"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run(teacher, records, out, progress=SILENT, **options):
    model, identity = teacher
    data = open_records(model, records, score_format=options.get("score_format", "safetensors"))
    return distill(model, data, out, CPU, identity, DistillOptions(**options), progress)


def test_scores_are_the_models_predictions(teacher, records, tmp_path):
    done = run(teacher, records, tmp_path / "t")
    assert done.videos == 1100
    assert done.bytes == sum(path.stat().st_size for path in (tmp_path / "t").glob("*.safetensors"))
    found = Teacher(tmp_path / "t")
    assert len(found) == 1100
    # In batches of the same videos, so that the same bits were rounded to half precision.
    for batch in evaluation_batches(open_dataset(records, SMALL_SPEC, SMALL_CLASSES, 300), EVALUATION_BATCH):
        assert torch.equal(found.rows(batch.ids), teacher[0].predict_batch(batch).half())


def test_bytes_per_video(teacher, records, tmp_path):
    ids = len("train-0-000000")
    full, best = run(teacher, records, tmp_path / "full"), run(teacher, records, tmp_path / "best", top_k=4)
    # The headers of two files are shared by 1,100 videos.
    assert full.bytes / 1100 == pytest.approx(2 * SMALL_CLASSES + ids + 8, abs=1)
    assert best.bytes / 1100 == pytest.approx(4 * (2 + 2) + 4 + ids + 8, abs=1)


class Interrupting(Progress):
    """Raises `KeyboardInterrupt` after more than 800 videos."""

    def __init__(self):
        self.done = 0

    def advance(self, count, note=""):
        self.done += count
        if self.done > 800:
            raise KeyboardInterrupt


@pytest.mark.parametrize("options", [{}, {"score_format": "tfrecord"}], ids=["safetensors", "tfrecord"])
def test_a_stopped_run_goes_on_and_gives_the_same_bytes(teacher, records, tmp_path, options):
    run(teacher, records, tmp_path / "whole", force=True, **options)
    with pytest.raises(KeyboardInterrupt):
        run(teacher, records, tmp_path / "stopped", progress=Interrupting(), force=True, **options)
    kept = contents(tmp_path / "stopped")
    whole = contents(tmp_path / "whole")
    # Copies are marked as a part of what is to come.
    assert kept.pop(".unfinished", None) == (b"" if options else None)
    assert kept.items() < whole.items()
    assert len(kept) > 1
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "stopped").glob("train0000*")}
    run(teacher, records, tmp_path / "stopped", **options)
    assert contents(tmp_path / "stopped") == whole
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


@pytest.mark.parametrize("options", [{}, {"score_format": "tfrecord"}], ids=["safetensors", "tfrecord"])
def test_scores_are_replaced_once_all_new_ones_are_there(teacher, records, tmp_path, options):
    out = tmp_path / "t"
    run(teacher, records, tmp_path / "whole", **options)
    run(teacher, records, out, top_k=3)
    before = contents(out)
    with pytest.raises(KeyboardInterrupt):
        run(teacher, records, out, progress=Interrupting(), force=True, **options)
    beside = out / ".replacement"
    times = {path: path.stat().st_mtime_ns for path in beside.glob("new/train0000*")}
    assert times
    beside.rename(tmp_path / "aside")
    assert contents(out) == before
    (tmp_path / "aside").rename(beside)
    # The same call goes on with what was finished.
    run(teacher, records, out, force=True, **options)
    assert contents(out) == contents(tmp_path / "whole")
    assert set(times.values()) == {path.stat().st_mtime_ns for path in out.glob("train0000*")}


def test_shards_may_be_done_in_any_order(teacher, records, tmp_path):
    model, _ = teacher
    run(teacher, records, tmp_path / "t")
    whole = contents(tmp_path / "t")
    for path in (tmp_path / "t").glob("*.safetensors"):
        path.unlink()
    for shard in (1, 0):
        distill_shard(model, open_records(model, records), shard, tmp_path / "t", CPU)
    assert contents(tmp_path / "t") == whole


def test_another_teacher_or_changed_records_are_refused(teacher, records, tmp_path):
    run(teacher, records, tmp_path / "t")
    before = contents(tmp_path / "t")
    other = open_teacher(model_file(tmp_path / "other.safetensors", seed=1), CPU)
    with pytest.raises(InputError, match="scores of another teacher.*force=True"):
        run(other, records, tmp_path / "t")
    with pytest.raises(InputError, match="another number of classes"):
        run(teacher, records, tmp_path / "t", top_k=3)
    with pytest.raises(InputError, match="another format"):
        run(teacher, records, tmp_path / "t", score_format="tfrecord")
    # As many records of the same sizes.
    write_synthetic(
        tmp_path / "data",
        SMALL_SPEC,
        SMALL_CLASSES,
        1100,
        SynthOptions(videos_per_shard=600, frames=(2, 5), noise=0.5),
        force=True,
    )
    with pytest.raises(InputError, match="scores of other records"):
        run(teacher, records, tmp_path / "t")
    assert contents(tmp_path / "t") == before
    run(teacher, records, tmp_path / "t", score_format="tfrecord", force=True)
    assert not list((tmp_path / "t").glob("*.safetensors"))


def test_copies_that_are_not_all_there_are_refused(teacher, records, tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("topgb.evaluation.distill.wait_for", stop)
        run(teacher, records, tmp_path / "t", score_format="tfrecord")
    assert list((tmp_path / "t").glob("*.tfrecord"))
    with pytest.raises(InputError, match="only some are in place, as its .unfinished says"):
        find_shards(f"{tmp_path}/t/*.tfrecord")
    run(teacher, records, tmp_path / "t", score_format="tfrecord")
    assert len(find_shards(f"{tmp_path}/t/*.tfrecord")) == 3


def test_foreign_folders_are_refused(teacher, records, tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "notes.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(InputError, match="did not write"):
            run(teacher, records, tmp_path / "t", force=force)
    with pytest.raises(InputError, match="is a file"):
        run(teacher, records, tmp_path / "t" / "notes.txt")


def test_shards_of_one_name_are_refused(teacher, records, tmp_path):
    shutil.copytree(tmp_path / "data", tmp_path / "more")
    with pytest.raises(InputError, match="2 of the shards are named train000"):
        run(teacher, f"{records},{tmp_path}/more/*", tmp_path / "t")
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("top_k", [0, SMALL_CLASSES + 1])
def test_senseless_numbers_of_classes_are_refused(teacher, records, tmp_path, top_k):
    with pytest.raises(InputError, match=f"best {top_k} classes cannot be kept"):
        run(teacher, records, tmp_path / "t", top_k=top_k)


@pytest.mark.parametrize("labelled", [True, False])
def test_records_are_copied_512_per_file(teacher, tmp_path, labelled):
    write_synthetic(
        tmp_path / "d",
        SMALL_SPEC,
        SMALL_CLASSES,
        1100,
        SynthOptions(videos_per_shard=600, frames=(2, 5), labelled=labelled),
    )
    done = run(teacher, f"{tmp_path}/d/*", tmp_path / "t", score_format="tfrecord")
    copies = sorted(path.name for path in (tmp_path / "t").glob("*.tfrecord"))
    assert copies == ["train0000-0000.tfrecord", "train0000-0001.tfrecord", "train0001-0000.tfrecord"]
    assert done.bytes == sum((tmp_path / "t" / name).stat().st_size for name in copies)
    copied = open_dataset(
        f"{tmp_path}/t/*.tfrecord", SMALL_SPEC, SMALL_CLASSES, 300, targets=Targets(teacher="records")
    )
    assert copied.counts.tolist() == [512, 88, 500]
    originals = evaluation_batches(open_dataset(f"{tmp_path}/d/*", SMALL_SPEC, SMALL_CLASSES, 300), 1)
    for copy, original in zip(evaluation_batches(copied, 1), originals, strict=True):
        assert copy.ids == original.ids
        assert torch.equal(copy.features, original.features)
        assert (copy.labels is None) == (not labelled)
        assert copy.labels is None or torch.equal(copy.labels, original.labels)
        torch.testing.assert_close(copy.teacher.float(), teacher[0].predict_batch(original), rtol=0, atol=IN_FLOAT16)
    with pytest.raises(InputError, match="teacher='records'"):
        Teacher(tmp_path / "t")


def test_copies_have_the_format_that_2018_read(teacher, records, tmp_path):
    run(teacher, records, tmp_path / "t", score_format="tfrecord")
    from topgb.records.protobuf_decoding import parse_record
    from topgb.records.shards import open_shard

    opened = open_shard(find_shards(f"{tmp_path}/t/train0001*")[0])
    message = parse_record(opened.data(0), opened.place(0))
    assert sorted(message.context.feature) == ["labels", "predictions", "video_id"]
    assert sorted(message.feature_lists.feature_list) == ["audio", "rgb"]
    assert len(message.context.feature["predictions"].float_list.value) == SMALL_CLASSES


def test_every_frame_is_copied_whatever_the_teacher_looks_at(records, tmp_path):
    section = {"aggregator": "average", "max_frames": 2, "head": "logistic"}
    short = open_teacher(model_file(tmp_path / "short.safetensors", section), CPU)
    run(short, records, tmp_path / "t", score_format="tfrecord")
    lengths = [
        np.concatenate([b.num_frames for b in evaluation_batches(open_dataset(p, SMALL_SPEC, SMALL_CLASSES, 300), 64)])
        for p in (records, f"{tmp_path}/t/*.tfrecord")
    ]
    np.testing.assert_array_equal(*lengths)
    assert lengths[0].max() > 2
    model = topgb.load(tmp_path / "short.safetensors")
    batch = next(evaluation_batches(open_records(model, records), 8))
    taught = open_dataset(
        f"{tmp_path}/t/*.tfrecord", SMALL_SPEC, SMALL_CLASSES, 300, targets=Targets(teacher="records")
    )
    found = next(evaluation_batches(taught, 8)).teacher.float()
    torch.testing.assert_close(found, model.predict_batch(batch), rtol=0, atol=IN_FLOAT16)


def test_files_that_appear_on_another_machine_only_are_reported(teacher, records, tmp_path, monkeypatch):
    monkeypatch.setattr("topgb.evaluation.score_folder._SETTLING_SECONDS", 0.0)
    monkeypatch.setattr("topgb.evaluation.distill.distill_shard", lambda *work: [tmp_path / "t" / "elsewhere"])
    with pytest.raises(InputError, match="elsewhere was written on another node.*not on a file system that every node"):
        run(teacher, records, tmp_path / "t")
