"""Two trainings in one folder: the second is refused, whatever it was to do; readers are not."""

import os
import signal
from dataclasses import replace
from functools import partial

import pytest
import torch

from topgb.errors import InputError
from topgb.evaluation.opening import open_for
from topgb.evaluation.predict import write_predictions
from topgb.folder_lock import writing_alone
from topgb.training.build import build_model_file
from topgb.training.job import TrainingJob
from topgb.training.loop import _Trainer, train
from topgb.training.opened import open_model
from topgb.training.recipe import load_recipe
from topgb.training.stopping import StoppedError


def test_a_second_training_is_refused(small_records, small_recipe, tmp_path, monkeypatch):
    recipe = load_recipe(str(small_recipe), ["training.epochs=2"])
    job = TrainingJob(recipe, small_records["train"], tmp_path / "run", device="cpu")
    take, tried = _Trainer._take_step, []

    def meanwhile(self, *arguments):
        if self.step == 10:
            for second in (job, replace(job, force=True), replace(job, resume=True)):
                with pytest.raises(InputError, match="run is being written to by another command"):
                    train(second)
                tried.append(second)
            build_model_file(job.out, job.out / "built.safetensors", force=True)
            model = open_model(job.out, torch.device("cpu"))
            records = open_for(model, small_records["unlabelled"], with_labels=False)
            assert write_predictions(model, records, tmp_path / "p.csv", torch.device("cpu")) == 20
        return take(self, *arguments)

    monkeypatch.setattr(_Trainer, "_take_step", meanwhile)
    trained = train(job).model
    assert len(tried) == 3
    monkeypatch.undo()
    assert not list(job.out.glob(".*"))
    again = train(replace(job, out=tmp_path / "again")).model
    assert trained.read_bytes() == again.read_bytes()
    with writing_alone(job.out), pytest.raises(InputError, match="is being written to"):
        train(replace(job, force=True))


def test_it_is_refused_before_its_records_are_opened(small_records, small_recipe, tmp_path, monkeypatch):
    job = TrainingJob(load_recipe(str(small_recipe), []), small_records["train"], tmp_path / "a/run", device="cpu")
    opened = []
    monkeypatch.setattr("topgb.training.loop.prepare", lambda *arguments: opened.append(arguments))
    with writing_alone(job.out), pytest.raises(InputError, match="is being written to"):
        train(job)
    assert not opened
    monkeypatch.undo()
    # Where the records are wrong, nothing is left of the folder that held the lock.
    with pytest.raises(InputError, match="absent"):
        train(replace(job, data=str(tmp_path / "absent*.tfrecord")))
    assert not (tmp_path / "a").exists()
    # A lock file that a killed process left behind is in nobody's way.
    job.out.mkdir(parents=True)
    (job.out / ".in-use").write_text("process 1 on elsewhere\n")
    assert train(replace(job, recipe=load_recipe(str(small_recipe), ["training.epochs=1"]))).model.is_file()
    assert not (job.out / ".in-use").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("place", ["prepare", "settle", "latest_checkpoint"])
def test_a_signal_before_the_first_step_ends_it_at_once(place, number, small_records, small_recipe, tmp_path):
    recipe = load_recipe(str(small_recipe), ["training.epochs=1"])
    job = TrainingJob(recipe, small_records["train"], tmp_path / "run", device="cpu")
    stop = partial(_signalled, number)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StoppedError, match="before the first step") as stopped:
        patch.setattr(f"topgb.training.loop.{place}", stop)
        train(job)
    assert stopped.value.exit_code == 128 + number
    assert not job.out.exists() or place == "latest_checkpoint"
    model = train(replace(job, force=True)).model
    before = model.read_bytes()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(f"topgb.training.loop.{place}", stop)
        train(replace(job, force=True))
    assert model.read_bytes() == before
    assert not list(job.out.glob(".*"))


def _signalled(number: int, *arguments: object) -> None:
    os.kill(os.getpid(), number)
    raise AssertionError("the signal was not heard")
