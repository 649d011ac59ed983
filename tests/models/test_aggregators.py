"""Each aggregator against its definition, written out frame by frame; and the options that only some of them have."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec
from topgb.models import Tagger, build_tagger, parse_model
from topgb.models.registry import aggregators

pytestmark = pytest.mark.numeric

SPEC = FeatureSpec("frame", (Feature("rgb", 4), Feature("audio", 2)))
COLUMNS = {"rgb": slice(0, 4), "audio": slice(4, 6)}
COUNTS = torch.tensor([5, 1, 3], dtype=torch.int32)
SMALL = {"clusters": 4, "hidden": 6, "cells": 4, "groups": 2}
CLOSE = {"atol": 1e-5, "rtol": 1e-4}


def _tagger(aggregator: str, **options) -> Tagger:
    torch.manual_seed(0)
    tagger = build_tagger(SPEC, 3, parse_model({"aggregator": aggregator, "head": "logistic", **options}))
    for name, tensor in tagger.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.3, 1.5)
        elif "norm" in name or name.endswith("bias"):
            tensor.normal_()
    return tagger.eval()


def _frames() -> torch.Tensor:
    """Float [3, 5, 6]; what lies past `COUNTS` is large, so that a glance at it shows."""
    frames = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(1))
    for video, count in zip(frames, COUNTS.tolist(), strict=True):
        video[count:] = 50.0
    return frames


def _compare(tagger: Tagger, slowly) -> None:
    """`slowly` takes one video's own frames [n, 6] to its vector."""
    frames = _frames()
    with torch.inference_mode():
        expected = [slowly(video[:count]) for video, count in zip(frames, COUNTS.tolist(), strict=True)]
        torch.testing.assert_close(tagger.aggregator(frames, COUNTS), torch.stack(expected), **CLOSE)


def _unit(values: torch.Tensor) -> torch.Tensor:
    return values / values.norm().clamp_min(1e-6)


def _assigned(pool, x: torch.Tensor) -> list[torch.Tensor]:
    return [pool.assign(frame).softmax(0) for frame in x]


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_dbof_pools_the_units_of_a_videos_own_frames(pooling):
    tagger = _tagger("dbof", clusters=5, hidden=4, pooling=pooling)
    own = tagger.aggregator

    def slowly(video):
        units = [F.relu6(own.project_norm(own.project(own.input_norm(frame[None])))) for frame in video]
        pooled = torch.cat(units).amax(0) if pooling == "max" else sum(units)[0] / len(units)
        return F.relu6(own.hidden_norm(own.hidden(pooled[None])))[0]

    _compare(tagger, slowly)


@pytest.mark.parametrize("max_pool", [False, True])
def test_soft_dbof_joins_sums_and_greatest_assignments(max_pool):
    tagger = _tagger("soft_dbof", clusters={"rgb": 3, "audio": 2}, hidden=None, batch_norm=False, max_pool=max_pool)

    def slowly(video):
        parts = []
        for name, where in COLUMNS.items():
            assigned = _assigned(tagger.aggregator.pools[name], video[:, where])
            parts += [_unit(sum(assigned))] + [_unit(torch.stack(assigned).amax(0))] * max_pool
        return torch.cat(parts)

    assert tagger.aggregator.out_features == (10 if max_pool else 5)
    _compare(tagger, slowly)


def test_gated_dbof_gates_the_named_features_only():
    options = {"clusters": {"rgb": 3, "audio": 2}, "hidden": None, "batch_norm": False, "max_pool": True}
    tagger = _tagger("gated_dbof", gated=["rgb"], **options)

    def slowly(video):
        pool = tagger.aggregator.pools["rgb"]
        assigned = _assigned(pool, video[:, COLUMNS["rgb"]])
        gate = torch.sigmoid(pool.expand(pool.reduce(_unit(torch.stack(assigned).amax(0)))))
        soft = _assigned(tagger.aggregator.pools["audio"], video[:, COLUMNS["audio"]])
        return torch.cat([_unit(sum(assigned) * gate), _unit(sum(soft)), _unit(torch.stack(soft).amax(0))])

    _compare(tagger, slowly)


def test_netvlad_is_the_sum_of_residuals_to_the_centres():
    """Against the definition, written out frame by frame and cluster by cluster."""
    torch.manual_seed(3)
    spec = FeatureSpec("frame", (Feature("rgb", 3), Feature("audio", 2)))
    section = {"aggregator": "netvlad", "clusters": {"rgb": 3, "audio": 2}, "hidden": 4, "batch_norm": False}
    tagger = build_tagger(spec, 3, parse_model({**section, "relu": False, "head": "logistic"})).eval()
    frames = torch.randn(1, 4, 5)
    parts = []
    for name, columns in (("rgb", slice(0, 3)), ("audio", slice(3, 5))):
        vlad = tagger.aggregator.pools[name]
        x = frames[0, :, columns]
        assign = (x @ vlad.assign.weight.T + vlad.assign.bias).softmax(1)
        descriptor = torch.zeros(x.shape[1], assign.shape[1])
        for t, k in np.ndindex(*assign.shape):
            descriptor[:, k] += assign[t, k] * (x[t] - vlad.centres[:, k])
        descriptor = descriptor / descriptor.norm(dim=0)
        parts.append((descriptor / math.sqrt(assign.shape[1])).flatten())
    expected = torch.cat(parts) @ tagger.aggregator.hidden.weight.T + tagger.aggregator.hidden.bias
    torch.testing.assert_close(tagger.aggregator(frames, torch.tensor([4]))[0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("coupling", [None, 0.5])
def test_netfv_sums_deviations_of_first_and_second_order(coupling):
    options = {"clusters": {"rgb": 3, "audio": 2}, "hidden": None, "batch_norm": False}
    tagger = _tagger("netfv", coupling=coupling, **options)

    def slowly(video):
        parts = []
        for name, where in COLUMNS.items():
            pool = tagger.aggregator.pools[name]
            centres = pool.centres if coupling is None else coupling * pool.assign.weight.T
            deviations = pool.deviations**2 + 1e-6
            first, second = torch.zeros_like(deviations), torch.zeros_like(deviations)
            for frame, assigned in zip(video[:, where], _assigned(pool, video[:, where]), strict=True):
                for k in range(deviations.shape[1]):
                    distance = (frame - centres[:, k]) / deviations[:, k]
                    first[:, k] += assigned[k] * distance
                    second[:, k] += assigned[k] * (distance**2 - 1)
            first = torch.stack([_unit(column) for column in first.T], dim=1)
            parts += [_unit(first.flatten()), _unit(second.flatten())]
        return torch.cat(parts)

    _compare(tagger, slowly)


@pytest.mark.parametrize("reduction", [None, 2, 8])
def test_nextvlad_sums_residuals_of_each_group_under_its_attention(reduction):
    options = {"clusters": {"rgb": 3, "audio": 2}, "groups": {"rgb": 4, "audio": 2}, "expansion": 2, "hidden": 5}
    tagger = _tagger("nextvlad", reduction=reduction, **options)
    own = tagger.aggregator

    def slowly(video):
        parts = []
        for name, where in COLUMNS.items():
            pool, groups = own.pools[name], options["groups"][name]
            total = torch.zeros_like(pool.centres)
            for frame in video[:, where]:
                expanded = pool.expand(frame)
                attention = torch.sigmoid(pool.attend(expanded))
                scores = pool.assign_norm(pool.assign(expanded)[None])[0].chunk(groups)
                for group, part in enumerate(expanded.chunk(groups)):
                    assigned = attention[group] * scores[group].softmax(0)
                    for k in range(len(total)):
                        total[k] += assigned[k] * (part - pool.centres[k])
            parts.append(pool.norm(torch.cat([_unit(row) for row in total])[None])[0])
        hidden = own.hidden_norm(own.hidden(torch.cat(parts)[None]))
        if reduction is None:
            return hidden[0]
        narrow = own.gating.reduce_norm(own.gating.reduce(hidden)).relu()
        assert narrow.shape == (1, 2 if reduction == 2 else 1)
        return (hidden * torch.sigmoid(own.gating.expand(narrow)))[0]

    assert own.pools["rgb"].centres.shape == (3, 2)
    _compare(tagger, slowly)


def _attention(pool, rows: torch.Tensor) -> torch.Tensor:
    rows = [pool.input_norm(row[None]) for row in rows]
    shares = torch.cat([pool.gate(row)[0] for row in rows]).softmax(0)
    return sum(share * F.relu6(pool.norm(pool.project(row)))[0] for share, row in zip(shares, rows, strict=True))


def test_attention_is_a_mean_weighted_over_a_videos_own_frames():
    tagger = _tagger("attention", hidden={"rgb": 5, "audio": 3})
    pools = tagger.aggregator.pools
    _compare(tagger, lambda video: torch.cat([_attention(pools[n], video[:, w]) for n, w in COLUMNS.items()]))


def test_attention_to_padding_attends_to_rows_of_zeros():
    tagger = _tagger("attention", hidden=5, attend_to_padding=True, max_frames=7)
    codes = torch.randint(0, 256, (3, 5, 6), dtype=torch.uint8)
    frames, counts = tagger.frontend(codes, COUNTS)
    assert frames.shape == (3, 7, 6)
    found = tagger.aggregator(frames, counts)
    for video, count, vector in zip(frames, COUNTS.tolist(), found, strict=True):
        rows = torch.cat([video[:count], torch.zeros(7 - count, 6)])
        expected = [_attention(tagger.aggregator.pools[n], rows[:, w]) for n, w in COLUMNS.items()]
        torch.testing.assert_close(vector, torch.cat(expected), **CLOSE)


def _predictions(max_frames: int, aggregator: str, options: dict) -> torch.Tensor:
    codes = torch.randint(0, 256, (3, 5, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    small = {key: value for key, value in SMALL.items() if key in aggregators()[aggregator].Options.model_fields}
    with torch.inference_mode():
        return _tagger(aggregator, max_frames=max_frames, **{**small, **options}).predict(codes, COUNTS)


@pytest.mark.parametrize(
    ("aggregator", "options"),
    [(name, {}) for name in aggregators()] + [("branched_gru", {"count_padding": True})],
    ids=str,
)
def test_predictions_do_not_depend_on_how_long_a_video_might_be(aggregator, options):
    short, long = (_predictions(most, aggregator, options) for most in (5, 9))
    torch.testing.assert_close(short, long, atol=1e-6, rtol=1e-5)


def test_but_attention_to_padding_does():
    short, long = (_predictions(most, "attention", {"attend_to_padding": True}) for most in (5, 9))
    assert bool(((short - long).abs() > 1e-4).any(1).all())


@pytest.mark.parametrize("name", [n for n, cls in aggregators().items() if "dropout" in cls.Options.model_fields])
def test_dropout_acts_in_training_only(name):
    torch.testing.assert_close(_predictions(5, name, {"dropout": 0.9}), _predictions(5, name, {"dropout": 0.0}))


@pytest.mark.parametrize("count_padding", [False, True])
def test_count_padding_lets_padding_into_the_statistics(count_padding):
    tagger = _tagger("branched_gru", cells=4, count_padding=count_padding, max_frames=8, normalization="none").train()
    tagger.set_batch_norm_momentum(0.0)
    frames, counts = tagger.frontend(torch.randint(1, 256, (3, 5, 6), dtype=torch.uint8), COUNTS)
    tagger.aggregator(frames, counts)
    own = torch.cat([video[:count, :4] for video, count in zip(frames, COUNTS.tolist(), strict=True)])
    rows = torch.cat([own, torch.zeros(3 * 8 - len(own), 4)]) if count_padding else own
    norm = tagger.aggregator.branches["rgb"].input_norm
    torch.testing.assert_close(norm.running_mean, rows.mean(0), **CLOSE)
    torch.testing.assert_close(norm.running_var, rows.var(0, correction=0), **CLOSE)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"aggregator": "soft_dbof", "hidden": None, "gating": True}, r"'model\.gating' needs a hidden layer"),
        ({"aggregator": "netfv", "hidden": None, "gating": True}, r"'model\.gating' needs a hidden layer"),
        ({"aggregator": "netfv", "clusters": {"rgb": 2}}, r"'model\.clusters' names rgb; .* rgb, audio"),
        ({"aggregator": "soft_dbof", "clusters": {"rgb": 2, "depth": 2}}, r"'model\.clusters' names rgb, depth"),
        ({"aggregator": "gated_dbof", "clusters": 0}, r"'model\.clusters' .* at least 1"),
        ({"aggregator": "gated_dbof", "gated": ["depth"]}, r"'model\.gated' names depth; .* are rgb, audio"),
        ({"aggregator": "netvlad", "gating_remove_diagonal": True}, r"'model\.gating_remove_diagonal' needs"),
        ({"aggregator": "attention", "hidden": {"audio": 3}}, r"'model\.hidden' names audio"),
        ({"aggregator": "dbof", "pooling": "median"}, r"'model\.pooling' is 'median'"),
        ({"aggregator": "netfv", "coupling": "none"}, r"'model\.coupling' is 'none'"),
        ({"aggregator": "bilstm", "cells": 5}, r"'model\.cells' is 5: .*multiple of 2"),
        ({"aggregator": "bigru", "cells": 7}, r"'model\.cells' is 7: .*multiple of 2"),
        ({"aggregator": "bigru", "reset": "never"}, r"'model\.reset' is 'never'"),
        ({"aggregator": "branched_gru", "cells": 5}, r"'model\.cells' is .*multiple of 2"),
        ({"aggregator": "branched_gru", "cells": {"rgb": 4}}, r"'model\.cells' names rgb"),
        ({"aggregator": "lstm", "layers": 0}, r"'model\.layers' is 0"),
        ({"aggregator": "nextvlad", "groups": {"rgb": 8, "audio": 3}}, r"'model\.groups' is 3 for audio, .* its 2 · 2"),
        ({"aggregator": "nextvlad", "groups": 4, "expansion": 1}, r"'model\.groups' is 4 for audio, .* its 2 · 1"),
        ({"aggregator": "nextvlad", "groups": {"rgb": 8}}, r"'model\.groups' names rgb; .* rgb, audio"),
        ({"aggregator": "nextvlad", "groups": 0}, r"'model\.groups' .* at least 1"),
        ({"aggregator": "nextvlad", "groups": 1, "reduction": 0}, r"'model\.reduction' is 0"),
    ],
    ids=lambda value: value["aggregator"] if isinstance(value, dict) else "",
)
def test_a_wrong_option_is_named(section, words):
    with pytest.raises(InputError, match=words):
        build_tagger(SPEC, 3, parse_model({**section, "head": "logistic"}))
