"""Training from other models: averages, fine-tuning, new heads, mixtures."""

import re
from dataclasses import replace

import pytest
import torch

from conftest import SMALL_CLASSES
from topgb.errors import InputError
from topgb.modelfile import packed_linear as packed
from topgb.modelfile import read_model_file
from topgb.modelfile.describe import describe
from topgb.models.batchnorm import BatchNorm
from topgb.progress import Progress
from topgb.quantizing.quantize import QuantizeOptions, quantize_file
from topgb.records.dataset import open_dataset
from topgb.records.label_statistics import label_counts
from topgb.training.build import build_model_file, load_run
from topgb.training.curves import read_metrics
from topgb.training.ema import Shadows, continued_recipe
from topgb.training.initial_weights import fresh_tagger
from topgb.training.loop import TrainingJob, train
from topgb.training.recipe import Ema
from training.runs import Interrupting, changed, weights_of

CPU = torch.device("cpu")


def test_raw_and_ema_weights_both_stay(job, tmp_path):
    train(job)
    build_model_file(job.out, tmp_path / "raw.safetensors", use_ema=False)
    build_model_file(job.out, tmp_path / "ema.safetensors", use_ema=True)
    raw, ema = weights_of(tmp_path / "raw.safetensors"), weights_of(tmp_path / "ema.safetensors")
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
    before, after = weights_of(source), weights_of(result.model)
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
    recipe = changed(job.recipe.model_copy(update={"data": data}), epochs=1)
    tuned = train(replace(job, recipe=recipe, out=tmp_path / "tuned", init_from=source))
    assert read_model_file(tuned.model)[0].classes == SMALL_CLASSES + 3
    fresh = train(replace(job, recipe=recipe, out=tmp_path / "fresh"))
    name = "members.0.aggregator.hidden.weight"
    distance = [float((weights_of(m.model)[name] - weights_of(source)[name]).norm()) for m in (tuned, fresh)]
    assert distance[0] < distance[1] / 2
    slow = job.recipe.optimizer.model_copy(update={"learning_rate": 1e-4})
    one_epoch = replace(
        job, recipe=changed(job.recipe.model_copy(update={"optimizer": slow}), epochs=1), init_from=source
    )
    head = "members.0.head.experts.weight"
    distance = []
    for new_head in (False, True):
        after = weights_of(train(replace(one_epoch, new_head=new_head, out=tmp_path / f"{new_head}")).model)[head]
        distance.append(float((after - weights_of(source)[head]).norm()))
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
    train(replace(_mixed(job), recipe=changed(_mixed(job).recipe, batch_size=300, epochs=1)))
    alone = replace(job, recipe=changed(job.recipe, batch_size=300, epochs=1), out=job.out.with_name("alone"))
    train(alone)
    first, single = (read_metrics(out)[0]["loss"] for out in (job.out, alone.out))
    assert first == pytest.approx(single, rel=0.1)


def test_a_mixture_starts_from_a_mixture(job, tmp_path):
    job = replace(_mixed(job), recipe=changed(_mixed(job).recipe, epochs=1))
    source = train(job).model
    slow = job.recipe.optimizer.model_copy(update={"learning_rate": 1e-9})
    still = replace(job, recipe=job.recipe.model_copy(update={"optimizer": slow}), init_from=source)
    same = weights_of(train(replace(still, out=tmp_path / "same")).model)
    anew = weights_of(train(replace(still, out=tmp_path / "anew", new_head=True)).model)
    for name, value in weights_of(source).items():
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
