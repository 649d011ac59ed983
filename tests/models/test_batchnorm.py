"""Batch norm: PyTorch's own, over valid frames only, and folded into the matrix behind it."""

import pytest
import torch
from torch import nn

from topgb.features import YOUTUBE8M_FRAMES
from topgb.models import build_tagger, parse_model
from topgb.models.batchnorm import BatchNorm, folded_linear
from topgb.models.readlinear import ReadLinear, fix_weights

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_is_that_of_pytorch_without_its_counter(training):
    torch.manual_seed(0)
    ours, theirs = BatchNorm(5).train(training), torch.nn.BatchNorm1d(5, eps=1e-3, momentum=1e-3).train(training)
    state = {name: torch.rand(5) for name in ("weight", "bias", "running_mean", "running_var")}
    ours.load_state_dict(state)
    theirs.load_state_dict(state, strict=False)
    rows = torch.randn(7, 5)
    assert torch.equal(ours(rows), theirs(rows))
    assert list(ours.state_dict()) == list(state)
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name])


def test_masked_batch_norm_sees_the_valid_frames_only():
    torch.manual_seed(0)
    values = torch.randn(3, 4, 5) * 2 + 1
    valid = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]], dtype=torch.bool)
    masked, plain = BatchNorm(5).train(), BatchNorm(5).train()
    found = masked(values, valid)[valid]
    torch.testing.assert_close(found, plain(values[valid]))
    torch.testing.assert_close(masked.running_mean, plain.running_mean)
    torch.testing.assert_close(masked.running_var, plain.running_var)


@pytest.mark.parametrize("population", [False, True], ids=["sample", "population"])
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "training"])
def test_a_folded_batch_norm_is_the_batch_norm(training, padded, population):
    torch.manual_seed(0)
    norms = [BatchNorm(5, population).train(training) for _ in range(2)]
    weight, bias, mean = torch.randn(3, 5)
    variance, out = torch.rand(5) + 0.5, torch.randn(3, 4, 5)
    for norm in norms:
        norm.load_state_dict({"weight": weight, "bias": bias, "running_mean": mean, "running_var": variance})
    values = torch.randn(3, 4, 5) * 2 + 1
    valid = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]], dtype=torch.bool) if padded else None
    counted = slice(None) if valid is None else valid
    scale, shift = norms[0].fold(values, valid)
    folded, plain = (values * scale + shift)[counted], norms[1](values, valid)[counted]
    torch.testing.assert_close(folded, plain, atol=1e-5, rtol=1e-5)
    for found in (folded, plain):
        (found * out[counted]).sum().backward()
    for name in ("weight", "bias"):
        torch.testing.assert_close(getattr(norms[0], name).grad, getattr(norms[1], name).grad, atol=1e-5, rtol=1e-4)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(norms[0], name), getattr(norms[1], name), atol=1e-6, rtol=1e-5)
        assert torch.equal(getattr(norms[0], name), {"running_mean": mean, "running_var": variance}[name]) != training


@pytest.mark.parametrize("bias", [False, True])
def test_a_folded_linear_layer_is_the_layer_of_the_normalised_values(bias):
    torch.manual_seed(0)
    linear, values, affine = ReadLinear(5, 3, bias=bias), torch.randn(2, 4, 5), tuple(torch.randn(2, 5))
    torch.testing.assert_close(folded_linear(values, linear, affine), linear(values * affine[0] + affine[1]))
    torch.testing.assert_close(folded_linear(values, linear, None), linear(values))


FOLDING = {
    "netvlad": {"clusters": 2, "gating": True},
    "gated_dbof": {"clusters": 4},
    "dbof": {"clusters": 4, "hidden": 3},
    "attention": {},
    "nextvlad": {},
}


@pytest.mark.parametrize("name", FOLDING)
def test_fixed_norms_change_nothing_until_the_model_trains_or_loads_a_state(name):
    torch.manual_seed(0)
    tagger = build_tagger(YOUTUBE8M_FRAMES, 3, parse_model({"aggregator": name, **FOLDING[name], "head": "mlp"})).eval()
    other = build_tagger(YOUTUBE8M_FRAMES, 3, tagger.config).eval()
    for module in (*tagger.modules(), *other.modules()):
        if isinstance(module, BatchNorm):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
    features, counts = torch.randint(0, 256, (3, 6, 1152), dtype=torch.uint8), torch.tensor([6, 2, 5])

    def predicted(model):
        with torch.inference_mode():
            return model.predict(features, counts)

    plain, of_other, names = predicted(tagger), predicted(other), list(tagger.state_dict())
    fix_weights(tagger)
    # Twice: the first call folds.
    for _ in range(2):
        torch.testing.assert_close(predicted(tagger), plain, rtol=1e-4, atol=1e-5)
    assert list(tagger.state_dict()) == names
    tagger.load_state_dict(other.state_dict())
    assert torch.equal(predicted(tagger), of_other)
    fix_weights(tagger)
    predicted(tagger)
    tagger.train()(torch.randn(3, 6, 1152), counts).sum().backward()
    assert all(parameter.grad is not None for parameter in tagger.parameters())
    other.load_state_dict(tagger.state_dict())
    assert torch.equal(predicted(tagger.eval()), predicted(other))


def test_batch_norm_momentum_is_the_share_kept():
    tagger = build_tagger(
        YOUTUBE8M_FRAMES, 3, parse_model({"aggregator": "netvlad", "clusters": 2, "head": "logistic"})
    )
    tagger.set_batch_norm_momentum(0.9)
    momenta = [module.momentum for module in tagger.modules() if isinstance(module, BatchNorm)]
    assert momenta == [pytest.approx(0.1)] * 2 + momenta[2:]
    assert len(set(momenta)) == 1
