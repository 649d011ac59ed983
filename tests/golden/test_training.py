"""Three training steps equal the 2018 code's: losses, weights, Adam's moments, batch-norm statistics, EMA shadows.

Adam divides a gradient by its own size, so where a gradient is near its rounding error the step, up to the learning
rate each time, is that of noise. A tensor is therefore held, in the root mean square, to 1e-6 of its size plus 1e-4 of
the sum of the learning rates, and a single value to a hundredth of that sum; a wrong formula is off by the sum itself.
(Seen: 2e-7 in the root mean square and 3e-5 at most, where the rates sum to 0.028.)

Where a gradient is zero in theory (a shift that a batch norm removes again) nothing but rounding error is left of it,
and Adam makes a whole step of that, in a direction that says nothing. Such a value must have no gradient here
either, and goes on from the 2018 value where a case holds it. Predictions in training are held to 5e-5: batch norm over
four videos magnifies what the weights may differ by (seen: 1.2e-5).
"""

import numpy as np
import pytest
import torch

from golden.cases import Case, cases, looked_at, variables
from topgb.evaluation.metrics import cross_entropy
from topgb.features import YOUTUBE8M_FRAMES
from topgb.from2018.flags import config_from_flags, known_models
from topgb.from2018.variables import state_from_variables, variable_name
from topgb.models import Tagger, build_tagger, factored
from topgb.models.factored import FactoredLinear, keep_factors
from topgb.training.ema import Shadows
from topgb.training.optimizer import TF1Adam
from topgb.training.recipe import Ema, Optimizer
from topgb.training.schedule import learning_rate

STEPS = 3
# Gradients are clipped to a norm of 1, and float32 rounds sums at 1e-7: below this a hundredth of a value is noise.
NOISE = 1e-5
SLOTS = {"/Adam": ".exp_avg", "/Adam_1": ".exp_avg_sq"}
CASES = [case for case in cases("train_*") if case.settings["model"] in known_models()]

pytestmark = [
    pytest.mark.numeric,
    pytest.mark.usefixtures("library"),
    pytest.mark.skipif(not CASES, reason="the golden cases (TOPGB_GOLDEN or ../shared/golden) are absent"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("kept", [False, True], ids=["gradients", "factors"])
def test_three_steps_equal_2018(case: Case, kept: bool, monkeypatch):
    # Four videos are few for weights of any size.
    monkeypatch.setattr(factored, "LEAST_VALUES", 1000)
    arrays, settings = case.arrays(), case.settings
    config = config_from_flags(settings["model"], settings["flags_set"])
    labels = torch.from_numpy(arrays["labels"])
    tagger = build_tagger(YOUTUBE8M_FRAMES, labels.shape[1], config)
    tagger.load_state_dict(state_from_variables(tagger, variables(arrays, "step0|")))
    tagger.set_batch_norm_momentum(0.999)
    frames, num_frames = looked_at(case, arrays)
    optimizer = Optimizer(
        learning_rate=settings["base_learning_rate"],
        decay=settings["learning_rate_decay"],
        decay_examples=settings["learning_rate_decay_examples"],
        clip_norm=settings["clip_gradient_norm"],
    )
    layers = keep_factors(tagger) if kept else []
    adam = TF1Adam(tagger.parameters(), optimizer.learning_rate, 0.0, optimizer.clip_norm, layers)
    shadows = Shadows(tagger, Ema(halflife=settings["ema_halflife"], warmup=False))
    tagger.train()
    summed_rates = 0.0
    for step in range(STEPS):
        rate = learning_rate(optimizer, step * settings["batch_size"], STEPS * settings["batch_size"])
        predictions = tagger(frames, num_frames)
        label_loss = cross_entropy(predictions, labels)
        np.testing.assert_allclose([label_loss.item(), rate], arrays["loss_lr_step"][step, :2], rtol=2e-5)
        torch.testing.assert_close(
            predictions, torch.from_numpy(arrays[f"step{step + 1}|predictions"]), atol=5e-5, rtol=0
        )
        (label_loss + settings["regularization_penalty"] * tagger.regularization()).backward()
        noise = _without_gradient(arrays, tagger, _clipped(tagger, layers, optimizer), step + 1)
        adam.set_learning_rate(rate)
        adam.step()
        adam.zero_grad()
        _go_on_from_2018(noise, arrays, tagger, adam, step + 1)
        shadows.update(tagger, step + 1)
        summed_rates += rate
    _assert_near(tagger.state_dict(), _present(arrays, tagger, STEPS, ""), summed_rates)
    _assert_near(shadows.values, _present(arrays, tagger, STEPS, "/ExponentialMovingAverage"), summed_rates)
    moments = adam.moments(dict(tagger.named_parameters()))
    for slot, name in SLOTS.items():
        for tensor, value in _present(arrays, tagger, STEPS, slot).items():
            atol = 1e-6 if slot == "/Adam" else 1e-8
            torch.testing.assert_close(moments[tensor + name], value, rtol=1e-4, atol=atol)


def _present(arrays: dict[str, np.ndarray], tagger: Tagger, step: int, suffix: str) -> dict[str, torch.Tensor]:
    """The values stored under `suffix` after `step`; the cases leave Adam's slots of large variables out."""
    after = variables(arrays, f"step{step}|")
    if not after:  # some cases hold the variables of the first and the last step alone
        return {}
    stored = {name.removesuffix(suffix): value for name, value in after.items() if name.endswith(suffix)}
    names = [name for name in tagger.state_dict() if variable_name(name, tagger.config.aggregator) in stored]
    # Where one is absent the plain value stands in, so that the shapes are complete, and is dropped again.
    values = state_from_variables(tagger, {**after, **stored})
    return {name: values[name] for name in names}


def _clipped(tagger: Tagger, layers: list[FactoredLinear], optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """Each parameter's clipped gradient, by name."""
    gradients = {parameter: parameter.grad for parameter in tagger.parameters()}
    for layer in layers:
        if layer.factors:
            assert layer.weight.grad is None
            gradients[layer.weight] = torch.zeros_like(layer.weight)
            layer.factors.add_to(gradients[layer.weight], layer.weight)
    clipped = {}
    for name, parameter in tagger.named_parameters():
        norm = torch.linalg.vector_norm(gradients[parameter])
        clipped[name] = gradients[parameter] * (optimizer.clip_norm / norm.clamp_min(optimizer.clip_norm))
    return clipped


def _without_gradient(
    arrays: dict[str, np.ndarray], tagger: Tagger, gradients: dict[str, torch.Tensor], step: int
) -> dict[str, torch.Tensor]:
    """By parameter, the values in whose 2018 gradients up to `step` is nothing but noise; ours must be as small."""
    squares = _present(arrays, tagger, step, "/Adam_1")
    noise = {name: (value / (1 - 0.999**step)).sqrt() < NOISE for name, value in squares.items()}
    for name, values in noise.items():
        # One of up to three gradients whose root mean square is below the bound.
        assert bool((gradients[name][values].abs() < STEPS**0.5 * NOISE).all()), name
    return noise


def _go_on_from_2018(
    noise: dict[str, torch.Tensor], arrays: dict[str, np.ndarray], tagger: Tagger, adam: TF1Adam, step: int
) -> None:
    parameters = dict(tagger.named_parameters())
    for suffix in ("", *SLOTS):
        stored = _present(arrays, tagger, step, suffix)
        for name, values in noise.items():
            ours = (
                adam.state[parameters[name]][SLOTS[suffix].removeprefix(".")] if suffix else parameters[name].detach()
            )
            ours[values] = stored[name][values]


def _assert_near(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], summed_rates: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        difference = (found[name] - value).abs()
        assert difference.square().mean().sqrt() <= 1e-6 * value.square().mean().sqrt() + 1e-4 * summed_rates, name
        assert difference.max() <= 1e-2 * summed_rates, name
