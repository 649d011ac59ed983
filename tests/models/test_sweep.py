"""What must hold for every registered aggregator and head, and for mixtures; a new one is found here by itself."""

import itertools

import numpy as np
import pytest
import torch

import topgb
from tolerances import assert_same_predictions
from topgb.features import Feature, FeatureSpec
from topgb.modelfile import Header, Member, write_model_file
from topgb.modelfile import packed_linear as packed_module
from topgb.modelfile.member import encode_member
from topgb.models import Tagger, build_tagger, parse_model
from topgb.models.registry import aggregators, heads
from topgb.quantizing.schemes import Scheme, encode
from topgb.training.losses import LOSSES

pytestmark = pytest.mark.numeric

SPEC = FeatureSpec("frame", (Feature("rgb", 24), Feature("audio", 8)))
CLASSES = 7
# Sizes that keep the sweep quick; an architecture without these options keeps its own.
SMALL = {"clusters": 4, "hidden": 16, "width": 16, "cells": 16, "videos": 9, "labels": 20, "most_labels": 5}
MIXTURE = "mixture of "
PAIRS = [
    *itertools.product(aggregators(), heads()),
    *((MIXTURE + aggregator, head) for aggregator, head in (("netvlad", "logistic"), ("nextvlad", "moe"))),
]

TRAINED = [(aggregator, head) for aggregator, head in PAIRS if getattr(heads()[head], "trained", True)]

over_every_pair = pytest.mark.parametrize(("aggregator", "head"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
over_trained_pairs = pytest.mark.parametrize(("aggregator", "head"), TRAINED, ids=["-".join(pair) for pair in TRAINED])


def _section(aggregator: str) -> dict:
    mixture = 3 if aggregator.startswith(MIXTURE) else 1
    return {"aggregator": aggregator.removeprefix(MIXTURE), "mixture": mixture}


def _small(cls) -> dict:
    return {key: value for key, value in SMALL.items() if key in cls.Options.model_fields}


def _head(name: str) -> dict:
    return {"name": name, **_small(heads()[name])}


def _tagger(aggregator: str, head: str) -> Tagger:
    section = _section(aggregator)
    section |= _small(aggregators()[section["aggregator"]])
    section["head"] = _head(head)
    torch.manual_seed(0)
    tagger = build_tagger(SPEC, CLASSES, parse_model(section))
    _make_lively(tagger)
    return tagger.eval()


def _make_lively(tagger: Tagger) -> None:
    """Moving statistics as after training, so that evaluation does not divide by a variance of 1 by luck."""
    for name, buffer in tagger.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.02, 0.1)
        elif name.endswith("label_bounds"):
            # Nine videos of one to five labels.
            buffer.copy_(torch.tensor([0, 1, 3, 4, 9, 11, 13, 14, 18, 20]))
        elif name.endswith("label_classes"):
            buffer.copy_(torch.arange(20) * 3 % CLASSES)
        elif name.endswith("centre"):
            buffer.normal_(std=0.1)


def _videos(counts: list[int], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = torch.randint(0, 256, (len(counts), length, SPEC.width), dtype=torch.uint8, generator=generator)
    return features, torch.tensor(counts, dtype=torch.int32)


@over_every_pair
def test_output_is_a_probability_at_one_frame_and_at_300(aggregator, head):
    tagger = _tagger(aggregator, head)
    for length in (1, 300):
        probabilities = tagger.predict(*_videos([length, 1], length))
        assert probabilities.shape == (2, CLASSES)
        assert probabilities.dtype == torch.float32
        assert bool(((probabilities >= 0) & (probabilities <= 1)).all())


@over_every_pair
def test_padding_and_neighbours_do_not_change_a_video(aggregator, head):
    tagger = _tagger(aggregator, head)
    features, counts = _videos([9, 4, 1], 9)
    together = tagger.predict(features, counts)
    garbage = torch.cat([features, torch.full((3, 5, SPEC.width), 255, dtype=torch.uint8)], dim=1)
    torch.testing.assert_close(tagger.predict(garbage, counts), together, atol=1e-6, rtol=1e-5)
    for index, count in enumerate(counts.tolist()):
        alone = tagger.predict(features[index : index + 1, :count], counts[index : index + 1])
        torch.testing.assert_close(alone, together[index : index + 1], atol=1e-6, rtol=1e-5)


@over_trained_pairs
def test_padding_does_not_change_a_training_step(aggregator, head):
    features, counts = _videos([6, 6, 3, 2], 6)
    padded = torch.cat([features, torch.full((4, 5, SPEC.width), 200, dtype=torch.uint8)], dim=1)
    states = []
    for batch in (features, padded):
        tagger = _tagger(aggregator, head).train()
        torch.manual_seed(2)
        tagger.predict(batch, counts).sum().backward()
        states.append({**tagger.state_dict(), **{n: p.grad for n, p in tagger.named_parameters()}})
    # Gradients are sums in which terms as large as the largest of them cancel, and are rounded like that.
    largest = max(float(value.abs().max()) for value in states[0].values())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, atol=1e-5 * max(1.0, largest), rtol=1e-4, msg=name)


@over_trained_pairs
def test_gradient_reaches_every_parameter(aggregator, head):
    tagger = _tagger(aggregator, head).train()
    probabilities = tagger.predict(*_videos([5, 3, 4, 5], 5))
    (probabilities.square().sum() + tagger.regularization()).backward()
    for name, parameter in tagger.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().sum() > 0), name


@over_every_pair
def test_no_videos_have_no_probabilities(aggregator, head):
    tagger = _tagger(aggregator, head)
    for length in (1, 6):
        probabilities = tagger.predict(*_videos([], length))
        assert (probabilities.shape, probabilities.dtype) == ((0, CLASSES), torch.float32)


@over_trained_pairs
def test_no_videos_have_gradients_of_zero_and_change_no_statistics(aggregator, head):
    tagger = _tagger(aggregator, head).train()
    before = {name: value.clone() for name, value in tagger.state_dict().items()}
    for loss in LOSSES.values():
        probabilities = tagger.predict(*_videos([], 6))
        labels = torch.zeros(0, CLASSES, dtype=torch.bool)
        found, members = loss(probabilities, labels), tagger.distillation_loss(labels, loss)
        total = found if members is None else found + members
        total.backward()
        assert float(total.detach()) == 0.0
    for name, parameter in tagger.named_parameters():
        assert torch.equal(parameter.grad, torch.zeros_like(parameter)), name
    for name, value in tagger.state_dict().items():
        assert torch.equal(value, before[name]), name


@over_every_pair
def test_bfloat16_stays_near_float32(aggregator, head):
    tagger = _tagger(aggregator, head)
    videos = _videos([5, 3], 5)
    exact = tagger.predict(*videos)
    with torch.autocast("cpu", torch.bfloat16):
        rough = tagger.predict(*videos)
    # bfloat16 has 8 bits of mantissa; a few roundings of a logit of size 2 move a probability by up to 0.03.
    torch.testing.assert_close(rough, exact, atol=0.03, rtol=0)


@over_trained_pairs
def test_head_starts_at_the_class_frequencies(aggregator, head):
    tagger = _tagger(aggregator, head)
    frequencies = torch.tensor([0.3, 0.1, 0.05, 0.01, 0.003, 0.001, 0.0005])
    tagger.head.start_at(frequencies)
    with torch.no_grad():
        for parameter in tagger.head.parameters():
            if parameter.ndim > 1:
                parameter.zero_()
        probabilities = tagger.eval().predict(*_videos([4, 2], 4))
    torch.testing.assert_close(probabilities, frequencies.expand(2, -1), rtol=0.02, atol=0)


@over_every_pair
def test_is_built_on_the_meta_device_without_memory(aggregator, head):
    with torch.device("meta"):
        tagger = build_tagger(SPEC, CLASSES, parse_model({**_section(aggregator), "head": _head(head)}))
    assert all(parameter.is_meta for parameter in tagger.parameters())


@over_every_pair
def test_saved_and_loaded_it_has_the_same_weights_and_predictions(aggregator, head, tmp_path):
    tagger = _tagger(aggregator, head)
    features, counts = _videos([5, 3, 1], 5)
    with torch.inference_mode():
        expected = tagger.predict(features, counts)
    entries, tensors = encode_member(0, tagger.state_dict())
    path = tmp_path / "m.safetensors"
    write_model_file(path, Header(SPEC, CLASSES, (Member(1.0, tagger.config),), entries), tensors)
    model = topgb.load(path)
    loaded = model.members[0].state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in tagger.state_dict().items())
    assert_same_predictions(model.predict(features.numpy(), counts.numpy()), expected.numpy())


@pytest.mark.parametrize("resident", ["packed", "half"])
@over_every_pair
def test_packed_it_predicts_what_its_values_do(aggregator, head, resident, tmp_path, monkeypatch):
    # Fails where a module reads the weight of an nn.Linear that is no ReadLinear: a packed layer has none.
    monkeypatch.setattr(packed_module, "LEAST_WEIGHTS", 1)
    tagger = _tagger(aggregator, head)
    entries, tensors = encode_member(0, tagger.state_dict())
    for name in [name for name, entry in entries.items() if len(entry.shape) == 2]:
        entries[name], parts = encode(tensors.pop(name), Scheme("int8"))
        tensors |= {name + suffix: part for suffix, part in parts.items()}
    path = tmp_path / "m.safetensors"
    write_model_file(path, Header(SPEC, CLASSES, (Member(1.0, tagger.config),), entries), tensors)
    features, counts = (tensor.numpy() for tensor in _videos([5, 3, 1], 5))
    model = topgb.load(path, resident=resident)
    assert any(isinstance(module, packed_module.PackedLinear) for module in model.modules())
    expected = topgb.load(path, resident="full").predict(features, counts)
    # The called layers alone round to 8 bits of mantissa; autocast above rounds everything.
    np.testing.assert_allclose(model.predict(features, counts), expected, atol=0.02, rtol=0)
