"""Recurrent layers against their cells in plain loops, each video alone; gradients against automatic ones."""

import pytest
import torch
from torch import nn

from topgb.features import Feature, FeatureSpec
from topgb.models import build_tagger, parse_model
from topgb.models.padding import valid_frames
from topgb.models.recurrent import GRU, LSTM, ResetAfterGRU

pytestmark = pytest.mark.numeric

SPEC = FeatureSpec("frame", (Feature("rgb", 3), Feature("audio", 2)))
COUNTS = torch.tensor([6, 1, 4, 2])
CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def _lively(module: nn.Module) -> nn.Module:
    """Weights at which the gates neither stand open nor shut, and biases that would be missed."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.6)
    return module


def _frames() -> torch.Tensor:
    return torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(1))


def _lstm_step(layer: LSTM, direction: int, x: torch.Tensor, state: tuple) -> tuple:
    output, cell = state
    new_input, forget, candidate, out = layer.cells[direction](torch.cat([x, output])).chunk(4)
    cell = cell * torch.sigmoid(forget + 1.0) + torch.sigmoid(new_input) * torch.tanh(candidate)
    return torch.sigmoid(out) * torch.tanh(cell), cell


def _gru_step(layer: GRU, direction: int, x: torch.Tensor, state: tuple) -> tuple:
    (old,) = state
    reset, update = torch.sigmoid(layer.gates[direction](torch.cat([x, old]))).chunk(2)
    new = torch.tanh(layer.candidates[direction](torch.cat([x, reset * old])))
    return (update * old + (1 - update) * new,)


def _reset_after_step(layer: ResetAfterGRU, direction: int, x: torch.Tensor, state: tuple) -> tuple:
    (old,) = state
    own, recurrent = layer.inputs[direction](x).chunk(3), layer.recurrents[direction](old).chunk(3)
    reset, update = torch.sigmoid(own[0] + recurrent[0]), torch.sigmoid(own[1] + recurrent[1])
    new = torch.tanh(own[2] + reset * recurrent[2])
    return (update * old + (1 - update) * new,)


STEPS = {LSTM: _lstm_step, GRU: _gru_step, ResetAfterGRU: _reset_after_step}


def _run(layer: nn.Module, video: torch.Tensor, direction: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs [n, cells], in the video's order, and last state [cells] of one video's own frames [n, D]."""
    state = (torch.zeros(layer.size),) * (2 if isinstance(layer, LSTM) else 1)
    outputs = []
    for frame in video.flip(0) if direction else video:
        state = STEPS[type(layer)](layer, direction, frame, state)
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if direction else outputs), state[-1]


def _outputs(layer: nn.Module, frames: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    found = layer(frames, valid)
    return found[0] if isinstance(layer, LSTM) else found


def _gradients(layer: nn.Module, frames: torch.Tensor, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Of a scalar in which every output counts differently."""
    generator = torch.Generator().manual_seed(3)
    total = sum((part * torch.randn(part.shape, generator=generator)).sum() for part in outputs)
    return list(torch.autograd.grad(total, [frames, *layer.parameters()]))


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("kind", STEPS, ids=lambda kind: kind.__name__)
def test_outputs_and_gradients_are_those_of_each_video_alone(kind, bidirectional, padded):
    layer = _lively(kind(5, 3, bidirectional)).train()
    counts = COUNTS if padded else torch.full((4,), 6)
    frames = _frames().requires_grad_()
    found = _outputs(layer, frames, valid_frames(counts, 6) if padded else None)
    found = [outputs[:count] for outputs, count in zip(found, counts.tolist(), strict=True)]
    expected = []
    for video, count in zip(frames, counts.tolist(), strict=True):
        expected.append(torch.cat([_run(layer, video[:count], way)[0] for way in range(1 + bidirectional)], dim=1))
    torch.testing.assert_close(found, expected, **CLOSE)
    torch.testing.assert_close(_gradients(layer, frames, found), _gradients(layer, frames, expected), **CLOSE)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", STEPS, ids=lambda kind: kind.__name__)
def test_padding_changes_nothing_whatever_lies_there(kind):
    layer = _lively(kind(5, 3, bidirectional=True))
    valid = valid_frames(COUNTS, 6)
    zeros = _frames().masked_fill(~valid[:, :, None], 0.0)
    noise = _frames().masked_fill(~valid[:, :, None], 30.0)
    assert torch.equal(_outputs(layer, zeros, valid)[valid], _outputs(layer, noise, valid)[valid])


@pytest.mark.parametrize("kind", [GRU, ResetAfterGRU], ids=lambda kind: kind.__name__)
def test_a_grus_outputs_are_held_past_a_videos_end(kind):
    outputs = _lively(kind(5, 3))(_frames(), valid_frames(COUNTS, 6))
    for video, count in zip(outputs, COUNTS.tolist(), strict=True):
        # PyTorch's own steps subtract the candidate and add it again.
        torch.testing.assert_close(video[count:], video[count - 1].expand(6 - count, -1), atol=1e-6, rtol=0)


def _slowly(layers: list[tuple[nn.Module, bool]], video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Last output and last state of a stack of (layer, whether it is bidirectional)."""
    for layer, bidirectional in layers:
        runs = [_run(layer, video, way) for way in range(1 + bidirectional)]
        video = torch.cat([outputs for outputs, _ in runs], dim=1)
    return video[-1], runs[-1][1]


def _stack(aggregator: nn.Module, name: str) -> list[tuple[nn.Module, bool]]:
    if name == "lstm":
        return [(layer, False) for layer in aggregator.layers]
    two = aggregator if name == "bilstm" else aggregator.layers
    return [(two.both, True), (two.top, False)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lstm", {"layers": 1}),
        ("lstm", {"layers": 3}),
        ("bilstm", {}),
        ("bigru", {"reset": "before"}),
        ("bigru", {"reset": "after"}),
        ("bigru", {"gating": True}),
    ],
    ids=str,
)
def test_the_result_is_the_last_layers_at_a_videos_last_frame(name, options):
    section = {"aggregator": name, "cells": 4, "head": "logistic", **options}
    aggregator = _lively(build_tagger(SPEC, 3, parse_model(section)).aggregator)
    found = aggregator(_frames(), COUNTS.int())
    for video, count, vector in zip(_frames(), COUNTS.tolist(), found, strict=True):
        output, cell = _slowly(_stack(aggregator, name), video[:count])
        expected = cell if name == "bilstm" else output
        if options.get("gating"):
            expected = expected * torch.sigmoid(aggregator.gating.gate(expected))
        torch.testing.assert_close(vector, expected, **CLOSE)


def test_branched_gru_is_a_projection_and_two_layers_for_each_feature():
    section = {"aggregator": "branched_gru", "cells": {"rgb": 4, "audio": 2}, "head": "logistic"}
    aggregator = _lively(build_tagger(SPEC, 3, parse_model(section)).aggregator).eval()
    found = aggregator(_frames(), COUNTS.int())
    for video, count, vector in zip(_frames(), COUNTS.tolist(), found, strict=True):
        parts = []
        for branch, where in zip(aggregator.branches.values(), (slice(0, 3), slice(3, 5)), strict=True):
            rows = [branch.norm(branch.project(branch.input_norm(frame[None]))) for frame in video[:count, where]]
            layers = [(branch.layers.both, True), (branch.layers.top, False)]
            parts.append(_slowly(layers, torch.cat(rows).clamp(0, 6))[0])
        torch.testing.assert_close(vector, torch.cat(parts), **CLOSE)
