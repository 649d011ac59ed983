"""The parts of models: frontend, batch norm, options, initial frequencies."""

import math

import numpy as np
import pytest
import torch
from pydantic import model_validator
from torch import nn

from golden.cases import Case, cases
from topgb.errors import InputError
from topgb.features import YOUTUBE8M_FRAMES, Feature, FeatureSpec
from topgb.models import build_tagger, parse_model
from topgb.models.batchnorm import BatchNorm, folded_linear
from topgb.models.config import ModelConfig
from topgb.models.frontend import Frontend
from topgb.models.options import Options, validate

pytestmark = pytest.mark.numeric

SPEC = FeatureSpec("frame", (Feature("rgb", 3), Feature("audio", 2)))


def _config(**options) -> ModelConfig:
    return parse_model({"aggregator": "average", "head": "logistic", **options})


@pytest.mark.parametrize("case", cases("dequantize*"), ids=str)
def test_dequantising_equals_2018(case: Case):
    arrays = case.arrays()
    spec = FeatureSpec("frame", (Feature("rgb", 256),))
    codes = torch.from_numpy(arrays["codes"])[None, None]
    frames, _ = Frontend(spec, _config(normalization="none"))(codes, torch.ones(1, dtype=torch.int32))
    np.testing.assert_allclose(frames[0, 0].numpy(), arrays["tf_float32"], rtol=0, atol=2.5e-7)


def test_frontend_blanks_padding_and_normalises_the_joined_vector():
    features = torch.tensor([[[0, 255, 0, 10, 20], [9, 9, 9, 9, 9]]], dtype=torch.uint8)
    frames, _ = Frontend(SPEC, _config())(features, torch.tensor([1], dtype=torch.int32))
    stored = features[0, 0].double() * 4 / 255 + 4 / 512 - 2
    torch.testing.assert_close(frames[0, 0].double(), stored / stored.norm(), atol=1e-6, rtol=0)
    assert frames[0, 1].tolist() == [0.0] * 5


def test_frontend_takes_named_features_and_the_first_frames():
    features = torch.arange(20, dtype=torch.uint8).view(1, 4, 5)
    frontend = Frontend(SPEC, _config(features=["audio"], normalization="none", max_frames=2))
    frames, counts = frontend(features, torch.tensor([4], dtype=torch.int32))
    assert frames.shape == (1, 2, 2)
    assert counts.tolist() == [2]
    torch.testing.assert_close(frames[0, 1], torch.tensor([8.0, 9.0]) * 4 / 255 + 4 / 512 - 2)


def test_frontend_leaves_floats_as_they_are():
    spec = FeatureSpec("frame", (Feature("mine", 2, "float32"), Feature("rgb", 1, range=(0.0, 1.0))))
    frames, _ = Frontend(spec, _config(normalization="none"))(
        torch.tensor([[[0.25, -3.0, 255.0]]]), torch.ones(1, dtype=torch.int32)
    )
    torch.testing.assert_close(frames[0, 0], torch.tensor([0.25, -3.0, 1.0 + 1 / 512]))


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
    linear, values, affine = nn.Linear(5, 3, bias=bias), torch.randn(2, 4, 5), tuple(torch.randn(2, 5))
    torch.testing.assert_close(folded_linear(values, linear, affine), linear(values * affine[0] + affine[1]))
    assert torch.equal(folded_linear(values, linear, None), linear(values))


def test_batch_norm_momentum_is_the_share_kept():
    tagger = build_tagger(
        YOUTUBE8M_FRAMES, 3, parse_model({"aggregator": "netvlad", "clusters": 2, "head": "logistic"})
    )
    tagger.set_batch_norm_momentum(0.9)
    momenta = [module.momentum for module in tagger.modules() if isinstance(module, BatchNorm)]
    assert momenta == [pytest.approx(0.1)] * 2 + momenta[2:]
    assert len(set(momenta)) == 1


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"aggregator": "netvlad", "clutsers": 3, "head": "moe"}, "unknown key 'model.clutsers'"),
        ({"aggregator": "nextwlad", "head": "moe"}, "no aggregator 'nextwlad'"),
        ({"aggregator": "average", "head": "mo"}, "no head 'mo'"),
        ({"aggregator": "average", "head": {"name": "moe", "mixtures": 0}}, "'model.head.mixtures' is 0"),
        ({"aggregator": "average", "head": {"name": "moe", "mixtures": "two"}}, "'model.head.mixtures' is 'two'"),
        ({"aggregator": "average"}, "'model.head' is missing"),
        ({"aggregator": "average", "head": {}}, "'model.head' names no head"),
        (
            {"aggregator": "netvlad", "clusters": True, "head": "moe"},
            "'model.clusters' is True: input should be a mapping or a valid integer$",
        ),
        ({"aggregator": "netvlad", "clusters": {"rgb": "x"}, "head": "moe"}, "'model.clusters.rgb' is 'x': [^.]*$"),
        ({"aggregator": "netvlad", "clusters": {"rgb": 2**31}, "head": "moe"}, "'model.clusters' .* numbers go up to"),
        ({"aggregator": "average", "head": {"name": "moe", "mixtures": 10**30}}, "'model.head.mixtures' .* go up to"),
        ({"aggregator": "average", "head": {"name": "moe", "l2": float("inf")}}, "'model.head.l2' is inf: .*finite"),
        ({"aggregator": "average", "head": "moe", "max_frames": 10**30}, "'model.max_frames' is 1"),
        ({"aggregator": "average", "head": "moe", "features": []}, "'model.features' is "),
    ],
)
def test_wrong_model_section_names_the_key(section, words):
    with pytest.raises(InputError, match="(?i)" + words.replace("'", "'")):
        parse_model(section)


class Inner(Options):
    size: int


class Outer(Options):
    parts: list[Inner]

    @model_validator(mode="before")
    @classmethod
    def _not_empty(cls, value):
        if value is None:
            raise ValueError("An outer is a mapping")
        return value


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "an outer is a mapping"),
        ({"parts": [3]}, "'parts.0' is 3: input should be a mapping"),
        ({"parts": [{"size": 1, "x": 2}]}, "unknown key 'parts.0.x'; parts.0 knows: size"),
        ({"parts": [{}]}, "'parts.0.size' is missing; state it in the recipe or with overrides=['parts.0.size=…']"),
        ({"parts": ["x" * 10**6]}, f"'parts.0' is '{'x' * 12}...{'x' * 13}': input should be a mapping"),
    ],
)
def test_a_wrong_value_is_one_short_sentence_without_python_in_it(value, sentence):
    with pytest.raises(InputError) as raised:
        validate(Outer, value, "")
    assert str(raised.value) == sentence


@pytest.mark.parametrize(
    ("level", "features", "words"),
    [
        ("foo", [Feature("rgb", 1)], "level 'foo'"),
        ("frame", [Feature("rgb", 1, "int32")], "dtype 'int32'"),
        ("frame", [Feature("rgb", 1, range=(-math.inf, math.inf))], "must be finite"),
        ("frame", [Feature("rgb", 1, range=(math.nan, 1.0))], "must be finite"),
        ("frame", [Feature("rgb", 0)], "size 0"),
        ("frame", [Feature("r.b", 1)], "named 'r.b'"),
        ("frame", [Feature(f"f{index}", 1) for index in range(1001)], "1001 features"),
    ],
)
def test_a_wrong_feature_is_refused(level, features, words):
    with pytest.raises(InputError, match=words):
        FeatureSpec(level, tuple(features))


@pytest.mark.parametrize(
    "options",
    [{"clusters": {"rgb": 4}}, {"clusters": {"rgb": 4, "audio": 2, "depth": 1}}, {"clusters": {"rgb": 4, "audio": 0}}],
)
def test_netvlad_wants_a_number_for_every_feature(options):
    with pytest.raises(InputError, match=r"model\.clusters"):
        build_tagger(SPEC, 3, parse_model({"aggregator": "netvlad", "head": "moe", **options}))


def test_diagonal_removal_needs_a_diagonal_as_long_as_the_classes():
    head = {"name": "moe", "gating": "input", "gating_remove_diagonal": True}
    build_tagger(SPEC, 5, parse_model({"aggregator": "average", "head": head}))
    for wrong, classes in ((head, 6), ({**head, "gating": "none"}, 5)):
        with pytest.raises(InputError, match="gating_remove_diagonal"):
            build_tagger(SPEC, classes, parse_model({"aggregator": "average", "head": wrong}))


def test_netvlad_is_the_sum_of_residuals_to_the_centres():
    """Against the definition, written out frame by frame and cluster by cluster."""
    torch.manual_seed(3)
    section = {"aggregator": "netvlad", "clusters": {"rgb": 3, "audio": 2}, "hidden": 4, "batch_norm": False}
    tagger = build_tagger(SPEC, 3, parse_model({**section, "relu": False, "head": "logistic"})).eval()
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
