"""Mixtures: what they predict, what their members learn, and that each learns for itself."""

import pytest
import torch

from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec
from topgb.models import Tagger, build_tagger, parse_model
from topgb.training.losses import LOSSES

pytestmark = pytest.mark.numeric

SPEC = FeatureSpec("frame", (Feature("rgb", 6), Feature("audio", 2)))
CLASSES = 5
TEMPERATURE = 3.0
COUNTS = torch.tensor([4, 1, 3], dtype=torch.int32)
LABELS = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0]], dtype=torch.bool)
LOSS = LOSSES["cross_entropy"]


def _tagger(mixture: int = 3, **options) -> Tagger:
    torch.manual_seed(0)
    section = {"aggregator": "netvlad", "clusters": 2, "hidden": 4, "head": "logistic", **options}
    tagger = build_tagger(SPEC, CLASSES, parse_model({**section, "mixture": mixture}))
    with torch.no_grad():
        for name, tensor in tagger.state_dict().items():
            if name.startswith("head.") and "running" not in name:
                tensor.normal_()
    return tagger


def _codes() -> torch.Tensor:
    return torch.randint(0, 256, (3, 4, SPEC.width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def _parts(tagger: Tagger) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The members' logits on `_codes`, each [B, V], and the gate's shares [B, N]."""
    frames, counts = tagger.frontend(_codes(), COUNTS)
    pairs = zip(tagger.aggregator.members, tagger.head.members, strict=True)
    logits = [torch.logit(head(aggregator(frames, counts))) for aggregator, head in pairs]
    means = torch.stack([video[:count].mean(0) for video, count in zip(frames, COUNTS.tolist(), strict=True)])
    return logits, tagger.head.gate(tagger.head.gate_norm(means)).softmax(1)


def test_the_prediction_is_the_gated_mean_of_the_members_logits():
    tagger = _tagger().eval()
    logits, shares = _parts(tagger)
    expected = torch.sigmoid(sum(shares[:, j, None] * logits[j] for j in range(3)))
    torch.testing.assert_close(tagger.predict(_codes(), COUNTS), expected)
    assert float(shares.detach().std(0).min()) > 0.01, "the gate looks at the video"


def test_members_learn_from_the_labels_and_from_the_mixture():
    tagger = _tagger().train()
    mixed = tagger.predict(_codes(), COUNTS)
    found = tagger.distillation_loss(LABELS, LOSS)
    logits, _ = _parts(tagger)
    target = torch.softmax(torch.logit(mixed) / TEMPERATURE, dim=1)
    expected = torch.zeros(())
    for member in logits:
        soft = torch.softmax(member / TEMPERATURE, dim=1)
        divergence = sum(p * torch.log(p / q) for p, q in zip(target.T, soft.T, strict=True)).mean()
        expected = expected + LOSS(torch.sigmoid(member), LABELS) + TEMPERATURE**2 * divergence
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_the_mixture_itself_learns_nothing_from_its_members():
    tagger = _tagger().train()
    tagger.predict(_codes(), COUNTS)
    tagger.distillation_loss(LABELS, LOSS).backward()
    for name, parameter in tagger.named_parameters():
        if name.startswith("head.gate"):
            assert parameter.grad is None, name
        else:
            assert bool(parameter.grad.abs().sum() > 0), name


def test_distillation_reaches_the_members_through_the_divergence_too():
    tagger = _tagger().train()
    tagger.predict(_codes(), COUNTS)
    tagger.distillation_loss(LABELS, lambda p, _: 0.0 * p.sum()).backward()
    for member in tagger.head.members:
        assert bool(member.output.weight.grad.abs().sum() > 0)


def test_members_that_are_sure_have_finite_gradients():
    tagger = _tagger().train()
    with torch.no_grad():
        for member, bias in zip(tagger.head.members, (-200.0, 200.0, 0.0), strict=True):
            member.output.bias.fill_(bias)
    mixed = tagger.predict(_codes(), COUNTS)
    (LOSS(mixed, LABELS) + tagger.distillation_loss(LABELS, LOSS)).backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in tagger.parameters())


def test_members_start_from_different_weights():
    torch.manual_seed(0)
    tagger = build_tagger(SPEC, CLASSES, parse_model({"aggregator": "netvlad", "head": "logistic", "mixture": 3}))
    for members in (tagger.aggregator.members, tagger.head.members):
        for one, other in ((0, 1), (0, 2), (1, 2)):
            pairs = zip(members[one].parameters(), members[other].parameters(), strict=True)
            assert any(not torch.equal(a, b) for a, b in pairs)


def test_the_penalty_is_that_of_all_members():
    tagger = _tagger(head={"name": "logistic", "l2": 0.1})
    expected = sum(0.1 * member.output.weight.square().sum() / 2 for member in tagger.head.members)
    torch.testing.assert_close(tagger.regularization(), expected)


def test_a_single_model_learns_from_the_labels_alone():
    tagger = _tagger(mixture=1).train()
    tagger.predict(_codes(), COUNTS)
    assert tagger.distillation_loss(LABELS, LOSS) is None
    section = tagger.config.to_json()
    assert section.pop("mixture") == 1
    assert parse_model(section) == tagger.config


def test_members_that_attend_to_padding_get_it():
    section = {"aggregator": "attention", "hidden": 4, "attend_to_padding": True, "max_frames": 6}
    torch.manual_seed(0)
    tagger = build_tagger(SPEC, CLASSES, parse_model({**section, "head": "logistic", "mixture": 2})).eval()
    frames, counts = tagger.frontend(_codes(), COUNTS)
    assert frames.shape[1] == 6
    mean = tagger.aggregator(frames, counts)[:, -SPEC.width :]
    for row, video, count in zip(mean, frames, COUNTS.tolist(), strict=True):
        torch.testing.assert_close(row, video[:count].mean(0))


@pytest.mark.parametrize("mixture", [0, 101, "three"])
def test_a_wrong_number_of_members_is_named(mixture):
    with pytest.raises(InputError, match=r"'model\.mixture' is"):
        parse_model({"aggregator": "average", "head": "logistic", "mixture": mixture})
