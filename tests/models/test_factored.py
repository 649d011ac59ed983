"""Layers whose gradients stay factors train as plain ones do: norms, clipping, penalties, pieces, both dtypes."""

import copy
from contextlib import nullcontext
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from topgb.models import factored
from topgb.models.factored import FactoredLinear, Factors, keep_factors
from topgb.models.penalty import l2_penalty
from topgb.models.readlinear import ReadLinear
from topgb.training.optimizer import TF1Adam

pytestmark = pytest.mark.numeric

VIDEOS, WIDTH, HIDDEN, CLASSES = 4, 40, 30, 50
# Products in another order round otherwise, and Adam makes as long a step of a gradient that is hardly more than its
# rounding as of any other: allow a thousandth of a step.
RATE = 0.01
STEP = 1e-3 * RATE


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(factored, "LEAST_VALUES", 1)
    # Three blocks of the hidden layer, the last one short.
    monkeypatch.setattr(factored, "BLOCK", 13 * WIDTH)


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, HIDDEN, bias=False), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))


def _videos(step: int, count: int = VIDEOS) -> torch.Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(step))


def _train(
    network: nn.Sequential, layers: list[FactoredLinear], clip: float | None, l2: float = 0.0, half: bool = False,
    batches=((VIDEOS,),) * 3,
) -> TF1Adam:  # fmt: skip
    """Three steps, each in as many pieces as it has numbers of videos."""
    adam = TF1Adam(network.parameters(), RATE, 0.1, clip, layers)
    for step, pieces in enumerate(batches):
        for number, count in enumerate(pieces):
            with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
                outputs = network(_videos(10 * step + number, count))
            (outputs.float().sigmoid().square().sum() + l2_penalty(l2, network[0], network[2])).backward()
        adam.step()
        adam.zero_grad()
    return adam


@pytest.mark.parametrize("clip", [None, 0.1, 1e6])
@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("batches", [((VIDEOS,),) * 3, ((2, 1, 1), (VIDEOS,), (3, 1))], ids=["whole", "pieces"])
def test_training_is_that_of_plain_layers(clip, l2, batches):
    plain, other = _network(), _network()
    layers = keep_factors(other)
    expected = _train(plain, [], clip, l2, batches=batches)
    found = _train(other, layers, clip, l2, batches=batches)
    assert len(layers) == 2
    assert not any(layer.weight.grad is not None or layer.factors for layer in layers)
    torch.testing.assert_close(dict(other.state_dict()), dict(plain.state_dict()), rtol=1e-5, atol=STEP)
    moments = [adam.moments(dict(net.named_parameters())) for adam, net in ((found, other), (expected, plain))]
    torch.testing.assert_close(*moments, rtol=1e-4, atol=1e-7)


def test_products_have_no_factor_that_changes():
    """oneDNN compiles, and keeps, a product for every value of its factors: memory would grow with every step."""

    class Scalars(TorchDispatchMode):
        found: ClassVar[set] = set()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket in (torch.ops.aten.addmm, torch.ops.aten.addmm_, torch.ops.aten.baddbmm):
                self.found.update((kwargs or {}).get(name, 1) for name in ("alpha", "beta"))
            return func(*args, **(kwargs or {}))

    network = _network()
    layers = keep_factors(network)
    with Scalars() as scalars:
        _train(network, layers, 0.1, 0.3)
    assert scalars.found <= {0, 1}


def test_a_call_with_many_rows_gives_whole_gradients():
    plain, other = _network(), _network()
    layers = keep_factors(other)
    batches = ((2, 40), (40,), (2,))
    for net, own in ((plain, []), (other, layers)):
        _train(net, own, 0.1, 0.3, batches=batches)
    torch.testing.assert_close(dict(other.state_dict()), dict(plain.state_dict()), rtol=1e-5, atol=STEP)


def test_the_norm_does_not_cancel():
    # Inputs alike, and gradients that sum to almost nothing, as behind a batch norm.
    inputs = 1 + 1e-4 * torch.randn(8, 200, generator=torch.Generator().manual_seed(0))
    gradients = torch.randn(8, 30, generator=torch.Generator().manual_seed(1))
    gradients -= gradients.mean(0)
    factors = Factors()
    factors.add(inputs, gradients, torch.zeros(8, 30))
    expected = torch.linalg.matrix_norm(gradients.double().T @ inputs.double())
    assert factors.norm() == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_rounded_weights_follow_every_change(clip, l2):
    plain, other = _network(), _network()
    layers = keep_factors(other)
    for net, own in ((plain, []), (other, layers)):
        _train(net, own, clip, l2, half=True)
    # bfloat16 rounds the plain layer's gradients, and Adam's steps are as long as its rate whatever their size.
    for name, value in plain.state_dict().items():
        assert (other.state_dict()[name] - value).abs().mean() < 2e-3, name
    assert torch.equal(layers[0].rounded(torch.bfloat16), layers[0].weight.bfloat16())
    before = layers[0].rounded(torch.bfloat16)
    other.load_state_dict({name: value + 1 for name, value in other.state_dict().items()})
    assert torch.equal(layers[0].rounded(torch.bfloat16), layers[0].weight.bfloat16())
    assert layers[0].rounded(torch.bfloat16) is before


def test_only_plain_layers_are_replaced_and_names_stay():
    network = nn.Sequential(nn.Linear(8, 9), ReadLinear(9, 8), nn.ModuleDict({"reduce": nn.Linear(8, 3)}))
    before = copy.deepcopy(network.state_dict())
    assert len(keep_factors(network)) == 2
    assert [type(layer) for layer in network[:2]] == [FactoredLinear, ReadLinear]
    torch.testing.assert_close(dict(network.state_dict()), dict(before), rtol=0, atol=0)
    with torch.no_grad():
        assert network[0](torch.zeros(2, 8)).shape == (2, 9)
