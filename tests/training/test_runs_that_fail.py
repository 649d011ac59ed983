"""Training that cannot begin, go on or end: what is said, and what stays."""

from dataclasses import replace
from pathlib import Path

import pytest

from topgb.errors import InputError, TopgbError
from topgb.training.build import load_run
from topgb.training.checkpoint import latest_checkpoint
from topgb.training.curves import read_metrics
from topgb.training.loop import train
from topgb.training.losses import LOSSES
from training.runs import assert_same_bits, changed


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda job: replace(job, recipe=changed(job.recipe, batch_size=16)), "training.batch_size"),
        (lambda job: replace(job, recipe=job.recipe.model_copy(update={"ema": None})), "ema"),
        (lambda job: replace(job, data=job.data.replace("train*", "validate*")), "records"),
    ],
)
def test_changed_settings_on_resume_are_named(job, change, key):
    train(job)
    with pytest.raises(InputError, match=f"was started with {key}"):
        train(replace(change(job), resume=True))


def test_a_run_is_not_overwritten_by_accident(job, tmp_path):
    train(job)
    before = (job.out / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match="resume=True"):
        train(job)
    train(replace(job, resume=True))
    assert (job.out / "model.safetensors").read_bytes() == before
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("ten years of work")
    for force in (True, False):
        with pytest.raises(InputError, match="no run wrote"):
            train(replace(job, out=foreign, force=force))
    assert (foreign / "thesis.txt").exists()


def test_a_diverging_run_says_what_to_lower(job, monkeypatch):
    monkeypatch.setattr("topgb.training.curves.LOG_SECONDS", 0.0)
    monkeypatch.setitem(LOSSES, "cross_entropy", lambda p, y: p.sum() * float("nan"))
    with pytest.raises(TopgbError, match=r"not finite after step 1;.*learning_rate"):
        train(job)


def test_weights_that_are_not_finite_are_never_saved(job, monkeypatch):
    """The loss is looked at now and then only; the weights before every checkpoint."""
    monkeypatch.setattr("topgb.training.curves.LOG_SECONDS", 1e9)
    rates = iter([0.01] * 10 + [float("inf")] * 100)
    monkeypatch.setattr("topgb.training.loop.learning_rate", lambda *_: next(rates))
    with pytest.raises(TopgbError, match="diverged"):
        train(job)
    kept = latest_checkpoint(job.out)
    assert kept.step == 8
    assert all(bool(value.isfinite().all()) for value in kept.weights.values())


@pytest.mark.parametrize("which", ["data", "validate"])
def test_unlabelled_records_are_refused_before_a_run_is_made(job, small_records, which):
    with pytest.raises(InputError, match="no labels"):
        train(replace(job, **{which: small_records["unlabelled"]}))
    assert not job.out.exists()


def test_what_is_wrong_with_the_input_is_found_before_an_old_run_is_cleared(job, small_records):
    model = train(job).model
    before = model.read_bytes()
    for wrong, words in (
        ({"init_from": job.out.with_name("absent.safetensors")}, "there is no file .*absent"),
        ({"init_from": model}, "force=True would clear"),
        ({"recipe": changed(job.recipe, early_stop=2)}, "give validate"),
        ({"recipe": changed(job.recipe, frames="random:500")}, r"model\.max_frames"),
        ({"recipe": changed(job.recipe, frames="often")}, "often"),
        ({"new_head": True}, "new_head=True goes with init_from"),
    ):
        with pytest.raises(InputError, match=words):
            train(replace(job, force=True, **wrong))
        assert model.read_bytes() == before


@pytest.mark.parametrize("damage", ["settings.json", "recipe.yaml", "checkpoints/step-0000000024/progress.json"])
def test_a_broken_run_is_said_to_be_broken(job, damage):
    train(job)
    (job.out / damage).write_bytes(b"\xff{")
    with pytest.raises(InputError, match="not readable|not the (JSON|recipe) that topgb train wrote"):
        load_run(job.out)


def test_a_cut_off_log_line_does_not_hinder_resuming(job):
    train(job)
    with (job.out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    train(replace(job, resume=True))
    assert all("step" in entry for entry in read_metrics(job.out))


def test_damaged_records_stop_the_run_or_are_counted(job, small_records, tmp_path):
    shard = tmp_path / "damaged.tfrecord"
    source = sorted(Path(small_records["train"]).parent.glob("train*.tfrecord"))[0]
    raw = bytearray(source.read_bytes())
    raw[len(raw) // 2] ^= 1
    shard.write_bytes(bytes(raw))
    with pytest.raises(TopgbError, match=rf"{shard}: record \d+ at byte \d+ is damaged.*on_damaged='skip'"):
        train(replace(job, data=str(shard)))
    result = train(replace(job, data=str(shard), out=tmp_path / "skipping", on_damaged="skip", workers=1))
    assert [error.path for error in result.damaged] == [str(shard)]
    again = train(replace(job, data=str(shard), out=tmp_path / "skipping", on_damaged="skip", resume=True))
    assert [error.record for error in again.damaged] == [error.record for error in result.damaged]


def test_a_full_disk_stops_the_run_and_leaves_the_last_checkpoint(job, monkeypatch):
    from topgb.training import checkpoint

    whole = train(replace(job, out=job.out.with_name("whole"))).model
    real, calls = checkpoint.save_tensors, []

    def full_after_one_checkpoint(path, tensors, metadata=None):
        calls.append(path)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")
        real(path, tensors, metadata)

    monkeypatch.setattr(checkpoint, "save_tensors", full_after_one_checkpoint)
    with pytest.raises(TopgbError, match="cannot write .*step-.*No space left on device"):
        train(job)
    assert [p.name for p in (job.out / "checkpoints").iterdir()] == ["step-0000000008"]
    monkeypatch.undo()
    assert_same_bits(train(replace(job, resume=True)).model, whole)
