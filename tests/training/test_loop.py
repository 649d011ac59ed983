"""Training end to end on small records: resuming, averaging, fine-tuning, stopping, learning."""

import json
import math
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import topgb
from cli import program
from conftest import SMALL_CLASSES
from tolerances import FIGURE
from topgb.errors import InputError, TopgbError
from topgb.evaluation.opening import open_for
from topgb.evaluation.score import evaluate
from topgb.modelfile import packed_linear as packed
from topgb.modelfile import read_model_file
from topgb.modelfile.describe import describe
from topgb.models.batchnorm import BatchNorm
from topgb.progress import Progress
from topgb.quantizing.quantize import QuantizeOptions, quantize_file
from topgb.records.dataset import open_dataset
from topgb.records.label_statistics import label_counts
from topgb.training.build import build_model_file, load_run
from topgb.training.checkpoint import latest_checkpoint
from topgb.training.curves import read_metrics
from topgb.training.ema import Shadows, continued_recipe
from topgb.training.initial_weights import fresh_tagger
from topgb.training.loop import TrainingJob, train
from topgb.training.losses import LOSSES
from topgb.training.recipe import Ema, Recipe, load_recipe

CPU = torch.device("cpu")


class Interrupting(Progress):
    """Interrupts training after about `videos` videos."""

    def __init__(self, videos: int):
        self.left = videos

    def advance(self, count, note=""):
        self.left -= count
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.fixture
def job(small_records, small_recipe, tmp_path) -> TrainingJob:
    return TrainingJob(load_recipe(str(small_recipe)), small_records["train"], tmp_path / "run", device="cpu")


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return read_model_file(path)[1]


def _assert_same_bits(one: Path, two: Path) -> None:
    first, second = _weights(one), _weights(two)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def _changed(recipe: Recipe, **training) -> Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=training)})


def test_training_learns_and_the_same_run_gives_the_same_file(job, small_records):
    first = train(job).model
    model = topgb.load(first)
    scores = evaluate(model, open_for(model, small_records["validate"]), CPU).compute()
    assert scores.gap > 0.5
    again = train(replace(job, out=job.out.with_name("again"))).model
    assert first.read_bytes() == again.read_bytes()


def test_workers_do_not_change_the_weights(job):
    one = train(job).model
    two = train(replace(job, out=job.out.with_name("workers"), workers=2)).model
    _assert_same_bits(one, two)


def test_killed_and_resumed_gives_the_weights_of_an_uninterrupted_run(
    job, small_recipe, small_records, zygote, tmp_path
):
    """A real SIGKILL in mid-epoch, from another process, between two checkpoints."""
    settings = ["--set", "training.epochs=12"]
    command = ["train", str(small_recipe), "--data", small_records["train"], *settings]
    command += ["--device", "cpu", "--checkpoint-minutes", "0"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert program.topgb(*command, "--out", str(whole)).returncode == 0
    running = zygote.start([*command, "--out", str(killed)])
    steps_per_epoch = 8
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        steps = [int(p.name.removeprefix("step-")) for p in killed.glob("checkpoints/step-*")]
        if steps and max(steps) > steps_per_epoch and max(steps) % steps_per_epoch == 3:
            break
        time.sleep(0.005)
    running.signal(signal.SIGKILL)
    assert running.wait().code == -signal.SIGKILL
    assert not (killed / "model.safetensors").exists()
    resumed = program.topgb(*command, "--out", str(killed), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after step" in resumed.stderr
    _assert_same_bits(killed / "model.safetensors", whole / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda job: replace(job, recipe=_changed(job.recipe, batch_size=16)), "training.batch_size"),
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


def test_accumulating_gives_the_whole_batchs_gradient(job):
    """Without batch norm and dropout, pieces of a batch add up to it."""
    recipe = load_recipe(
        "demo",
        ["model={aggregator: average, head: logistic}", "training.frames=all", "data.classes=12", "training.epochs=1"],
    )
    features = [{"name": "rgb", "size": 32}, {"name": "audio", "size": 8}]
    recipe = Recipe(**{**recipe.to_json(), "data": {"level": "frame", "features": features, "classes": SMALL_CLASSES}})
    whole = train(replace(job, recipe=recipe)).model
    pieces = train(replace(job, recipe=_changed(recipe, accumulate=3), out=job.out.with_name("pieces"))).model
    for name, value in _weights(whole).items():
        torch.testing.assert_close(_weights(pieces)[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("frames", ["sequence:4", "sample_all", "shuffle"])
def test_every_way_of_sampling_trains(job, frames):
    recipe = _changed(job.recipe, frames=frames, epochs=1)
    job = replace(job, recipe=recipe.model_copy(update={"model": {**recipe.model, "max_frames": 12}}))
    trained = _weights(train(job).model)
    every = replace(job, recipe=_changed(job.recipe, frames="all"), out=job.out.with_name("all"))
    assert any(not torch.equal(value, trained[name]) for name, value in _weights(train(every).model).items())


@pytest.mark.parametrize("name", ["hinge", "softmax"])
def test_the_recipes_loss_is_the_trained_and_the_logged_one(job, small_records, name):
    recipe = _changed(job.recipe, loss=name, epochs=2)
    validation = train(replace(job, recipe=recipe, validate=small_records["validate"])).validation
    logged = read_metrics(job.out)[0]["loss"]
    # Of an untrained model, about: every class near its frequency, 2 of 12, and each video with a label or two.
    assert logged == pytest.approx({"hinge": SMALL_CLASSES, "softmax": math.log(SMALL_CLASSES)}[name], rel=0.15)
    by_cross_entropy = train(replace(job, recipe=_changed(recipe, loss="cross_entropy"), out=job.out.with_name("ce")))
    of_that, of_this = (_weights(m) for m in (by_cross_entropy.model, job.out / "model.safetensors"))
    assert any(not torch.equal(value, of_that[key]) for key, value in of_this.items())
    model = topgb.load(job.out / "model.safetensors")
    scores = evaluate(model, open_for(model, small_records["validate"]), CPU).compute()
    assert scores.loss == pytest.approx(validation.loss, rel=1e-5), "evaluation keeps to cross entropy"


def test_validation_keeps_the_best_checkpoint_and_stops_early(job, small_records):
    recipe = _changed(job.recipe, epochs=30, early_stop=1)
    recipe = recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"learning_rate": 0.3})})
    result = train(replace(job, recipe=recipe, validate=small_records["validate"]))
    validations = [entry for entry in read_metrics(job.out) if "validation" in entry]
    best = max(validations, key=lambda entry: entry["validation"]["gap"])
    assert len(validations) < 30
    assert validations[-1]["step"] > best["step"]
    header = read_model_file(result.model)[0]
    assert header.origin["step"] == best["step"]
    model = topgb.load(result.model)
    scores = evaluate(model, open_for(model, small_records["validate"]), CPU).compute()
    assert scores.gap == pytest.approx(best["validation"]["gap"], abs=FIGURE)


def test_raw_and_ema_weights_both_stay(job, tmp_path):
    train(job)
    build_model_file(job.out, tmp_path / "raw.safetensors", use_ema=False)
    build_model_file(job.out, tmp_path / "ema.safetensors", use_ema=True)
    raw, ema = _weights(tmp_path / "raw.safetensors"), _weights(tmp_path / "ema.safetensors")
    assert any(not torch.equal(raw[name], ema[name]) for name in raw)
    assert (tmp_path / "ema.safetensors").read_bytes() == (job.out / "model.safetensors").read_bytes()
    assert read_model_file(tmp_path / "raw.safetensors")[0].origin["weights"] == "raw"
    assert load_run(job.out, True).header.origin["weights"] == "ema"


def test_a_run_without_ema_says_so(job):
    train(replace(job, recipe=job.recipe.model_copy(update={"ema": None})))
    with pytest.raises(InputError, match="keeps no EMA weights"):
        load_run(job.out, use_ema=True)


def test_shadows_follow_the_2018_formula_over_weights_and_statistics():
    model = BatchNorm(3)
    shadows = Shadows(model, Ema(halflife=5.0, warmup=False))
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for step in range(1, 4):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.add_(step)
        shadows.update(model, step)
        expected = {name: 0.8 * expected[name] + 0.2 * model.state_dict()[name] for name in expected}
    assert set(shadows.values) == {"weight", "bias", "running_mean", "running_var"}
    for name, value in expected.items():
        torch.testing.assert_close(shadows.values[name], value)


def test_continuing_with_ema_follows_the_rule_of_2018(job, small_records):
    recipe = job.recipe
    continued = continued_recipe(recipe, None, set())
    assert continued.ema == Ema(halflife=1500 * 32 / 512, warmup=False)
    assert continued.optimizer.learning_rate == pytest.approx(recipe.optimizer.learning_rate / 5)
    assert continued.training.epochs == 2
    kept = continued_recipe(recipe, 7.0, {"optimizer.learning_rate", "training.epochs"})
    assert (kept.ema.halflife, kept.optimizer, kept.training) == (7.0, recipe.optimizer, recipe.training)
    assert continued_recipe(recipe, None, {"ema.halflife"}).ema.halflife == recipe.ema.halflife
    with pytest.raises(InputError, match="more than 1"):
        continued_recipe(recipe, float("nan"), set())
    source = train(job).model
    ema_job = replace(
        job, recipe=continued_recipe(recipe, 50.0, set()), out=job.out.with_name("ema"), ema_source=source
    )
    result = train(ema_job)
    header = read_model_file(result.model)[0]
    assert header.origin["weights"] == "ema"
    assert len(header.origin["parents"]) == 1
    before, after = _weights(source), _weights(result.model)
    moved = [float((after[n] - before[n]).norm() / before[n].norm().clamp_min(1e-9)) for n in before]
    assert 0 < max(moved) < 1, "the average starts from the source and moves away from it slowly"
    train(replace(ema_job, resume=True))
    with pytest.raises(InputError, match="ema_source"):
        train(replace(ema_job, resume=True, ema_source=None))


def test_a_quantised_model_can_be_trained_further(job, tmp_path, monkeypatch):
    quantised = tmp_path / "int8.safetensors"
    quantize_file(train(job).model, quantised, QuantizeOptions("int8", min_elements=100))
    # Loaded to predict, it would keep its matrices as codes.
    monkeypatch.setattr(packed, "LEAST_WEIGHTS", 1)
    for parent in ({"init_from": quantised}, {"ema_source": quantised}):
        assert train(replace(job, out=tmp_path / next(iter(parent)), **parent)).model.exists()


def test_init_from_takes_the_aggregator_and_starts_another_head(job, tmp_path):
    source = train(job).model
    data = job.recipe.data.model_copy(update={"classes": SMALL_CLASSES + 3})
    recipe = _changed(job.recipe.model_copy(update={"data": data}), epochs=1)
    tuned = train(replace(job, recipe=recipe, out=tmp_path / "tuned", init_from=source))
    assert read_model_file(tuned.model)[0].classes == SMALL_CLASSES + 3
    fresh = train(replace(job, recipe=recipe, out=tmp_path / "fresh"))
    name = "members.0.aggregator.hidden.weight"
    distance = [float((_weights(m.model)[name] - _weights(source)[name]).norm()) for m in (tuned, fresh)]
    assert distance[0] < distance[1] / 2
    slow = job.recipe.optimizer.model_copy(update={"learning_rate": 1e-4})
    one_epoch = replace(
        job, recipe=_changed(job.recipe.model_copy(update={"optimizer": slow}), epochs=1), init_from=source
    )
    head = "members.0.head.experts.weight"
    distance = []
    for new_head in (False, True):
        after = _weights(train(replace(one_epoch, new_head=new_head, out=tmp_path / f"{new_head}")).model)[head]
        distance.append(float((after - _weights(source)[head]).norm()))
    assert distance[0] < distance[1] / 2
    other = recipe.model_copy(update={"model": {**recipe.model, "hidden": 8}})
    with pytest.raises(InputError, match=r"another architecture.*aggregator\.gating"):
        train(replace(job, recipe=other, out=tmp_path / "other", init_from=source))
    with pytest.raises(InputError, match="there is no file .*absent"):
        train(replace(job, out=tmp_path / "absent", init_from=tmp_path / "absent.safetensors"))


def _mixed(job: TrainingJob, **model) -> TrainingJob:
    recipe = job.recipe
    return replace(job, recipe=recipe.model_copy(update={"model": {**recipe.model, "mixture": 3, **model}}))


def test_a_mixture_trains_and_resumes_in_the_same_file(job, small_records):
    job = replace(_mixed(job), checkpoint_minutes=0.0, validate=small_records["validate"])
    whole = train(job)
    assert whole.validation.gap > 0.5
    header, weights = read_model_file(whole.model)
    assert header.members[0].model.mixture == 3
    shown = describe(header, weights, whole.model.stat().st_size)
    assert "mixture: 3" in shown
    assert re.search(r"head\.members\.2\.experts\.weight +24 × 16 ", shown)
    assert float(weights["members.0.head.gate.weight"].abs().max()) > 0.01, "the gate has learnt"
    broken = replace(job, out=job.out.with_name("broken"))
    with pytest.raises(KeyboardInterrupt):
        train(broken, Interrupting(300))
    assert train(replace(broken, resume=True)).model.read_bytes() == whole.model.read_bytes()


def test_the_log_has_a_mixtures_own_loss(job, small_records):
    """Without its members' share, so that runs can be compared."""
    train(replace(_mixed(job), recipe=_changed(_mixed(job).recipe, batch_size=300, epochs=1)))
    alone = replace(job, recipe=_changed(job.recipe, batch_size=300, epochs=1), out=job.out.with_name("alone"))
    train(alone)
    first, single = (read_metrics(out)[0]["loss"] for out in (job.out, alone.out))
    assert first == pytest.approx(single, rel=0.1)


def test_a_mixture_starts_from_a_mixture(job, tmp_path):
    job = replace(_mixed(job), recipe=_changed(_mixed(job).recipe, epochs=1))
    source = train(job).model
    slow = job.recipe.optimizer.model_copy(update={"learning_rate": 1e-9})
    still = replace(job, recipe=job.recipe.model_copy(update={"optimizer": slow}), init_from=source)
    same = _weights(train(replace(still, out=tmp_path / "same")).model)
    anew = _weights(train(replace(still, out=tmp_path / "anew", new_head=True)).model)
    for name, value in _weights(source).items():
        if "running" not in name:
            torch.testing.assert_close(same[name], value, atol=1e-5, rtol=0)
        if name.endswith("experts.weight"):
            assert not torch.allclose(anew[name], value, atol=1e-3)
    with pytest.raises(InputError, match=r"another architecture.*aggregator\."):
        train(replace(_mixed(still, mixture=2), out=tmp_path / "two"))


def test_a_mixture_starts_at_the_class_frequencies(job, small_records):
    job = _mixed(job, head={"name": "logistic"})
    assert job.recipe.training.start_at_class_frequencies
    data = open_dataset(job.data, job.recipe.data.spec(), SMALL_CLASSES, 300)
    counts, videos = label_counts(data)
    tagger = fresh_tagger(job.recipe, data, Progress())
    expected = torch.logit((torch.from_numpy(counts) + 0.5) / (videos + 1)).float()
    for member in tagger.head.members:
        torch.testing.assert_close(member.output.bias.detach(), expected, atol=1e-4, rtol=1e-4)


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
        ({"recipe": _changed(job.recipe, early_stop=2)}, "give validate"),
        ({"recipe": _changed(job.recipe, frames="random:500")}, r"model\.max_frames"),
        ({"recipe": _changed(job.recipe, frames="often")}, "often"),
        ({"new_head": True}, "new_head=True goes with init_from"),
    ):
        with pytest.raises(InputError, match=words):
            train(replace(job, force=True, **wrong))
        assert model.read_bytes() == before


def test_batches_of_one_video_can_be_trained_on_without_batch_norm(job):
    recipe = _changed(job.recipe, batch_size=1, epochs=1)
    with pytest.raises(InputError, match="batch norm would normalise one video by itself"):
        train(replace(job, recipe=recipe))
    recipe = recipe.model_copy(update={"model": {"aggregator": "average", "head": {"name": "moe"}}})
    assert train(replace(job, recipe=recipe)).model.exists()


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


def test_resuming_over_validation_workers_and_early_stopping(job, small_records):
    """Interrupted in the middle and resumed with other workers: the same file, the same best epoch."""
    recipe = _changed(job.recipe, epochs=8, early_stop=2)
    recipe = recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"learning_rate": 0.2})})
    job = replace(job, recipe=recipe, validate=small_records["validate"], checkpoint_minutes=0.0)
    whole = train(job)
    broken = replace(job, out=job.out.with_name("broken"))
    with pytest.raises(KeyboardInterrupt):
        train(broken, Interrupting(500))
    resumed = train(replace(broken, resume=True, workers=2))
    assert resumed.validation == whole.validation
    assert resumed.model.read_bytes() == whole.model.read_bytes()


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
    _assert_same_bits(train(replace(job, resume=True)).model, whole)


def test_the_log_holds_the_curves(job):
    train(job)
    entries = read_metrics(job.out)
    assert entries[-1]["step"] == 24
    assert set(entries[-1]) == {"step", "examples", "loss", "gap", "learning_rate"}
    assert list((job.out / "tensorboard").iterdir())
    assert json.loads((job.out / "settings.json").read_text())["arithmetic"] == "32-true"
