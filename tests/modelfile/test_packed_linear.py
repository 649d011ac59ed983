"""Packed layers: what their products may differ by from those of the decoded weights, and what they refuse."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import topgb
from modelfile.packed_files import SCHEMES, write_file
from tolerances import assert_same_predictions
from topgb.errors import InputError
from topgb.modelfile import TensorEncoding, integer_products, write_model_file
from topgb.modelfile import packed_linear as packed_module
from topgb.modelfile.encodings import compress_codes, values
from topgb.modelfile.packed_linear import STREAMED_ROWS, TILE_COLUMNS, TILE_VALUES, PackedLinear, packed_linear
from topgb.modelfile.rows import int8_rows
from topgb.quantizing.schemes import Scheme, encode

pytestmark = pytest.mark.numeric

# These are rounded to int8 once more: by half a step, of which 127 make the row's largest weight. The sums stay exact.
ROUNDED = ("k-means codebook", "groups of 4 bits", "groups of 5 bits")


@pytest.fixture(autouse=True)
def _small_layers_are_packed_too(monkeypatch):
    monkeypatch.setattr(packed_module, "LEAST_WEIGHTS", 1 << 16)


@pytest.fixture(params=[False, True], ids=["floats", "integers"])
def _wide_batches(request, monkeypatch):
    """Larger batches are multiplied in floats, and in integers."""
    if request.param and not integer_products.integers_are_exact():
        pytest.skip("products of int8 saturate on this processor")
    monkeypatch.setattr(packed_module, "integers_are_faster", lambda: request.param)


either_way = pytest.mark.usefixtures("_wide_batches")


def _weights(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    # Rows of unequal scale, not centred on 0.
    scale = torch.logspace(-2, 1, rows)[:, None]
    return (torch.randn(rows, columns, generator=generator) + 0.3) * scale


def _inputs(batch: int, columns: int) -> torch.Tensor:
    return torch.randn(batch, columns, generator=torch.Generator().manual_seed(1)) + 0.5


def _most_error(kind: str, weights: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """What each product [B, out] may differ by from the exact one."""
    rounding, read = 1e-5, inputs.abs()
    if len(inputs) <= STREAMED_ROWS:
        # bfloat16 rounds by 2^-8 of a number at most: each input (with equal steps, less their mean) and each product.
        rounding = 2.0**-7
        if kind == "uniform codebook":
            read = read + 2 * inputs.mean(1, keepdim=True).abs()
    most = rounding * F.linear(read, weights.abs())
    if kind in ROUNDED:
        most += inputs.abs().sum(1, keepdim=True) * weights.abs().amax(1) / 127 / 2
    return most + 1e-6 * weights.abs().max() * inputs.abs().sum(1, keepdim=True)


@either_way
@pytest.mark.parametrize("kind", SCHEMES)
# Rows whose length is no multiple of 16 are those with which the kernel alone gives garbage.
@pytest.mark.parametrize("columns", [1, 15, 16, 17, 31, 1000, 1001, 1016])
@pytest.mark.parametrize("rows", [1, 7, 65])
def test_products_are_those_of_the_values_within_rounding(kind, rows, columns):
    entry, parts = encode(_weights(rows, columns), SCHEMES[kind])
    exact = values(parts, entry)
    bias = torch.linspace(-1, 1, rows)
    layer = packed_linear(nn.Linear(columns, rows), parts, entry, "x", "packed")
    layer.load_state_dict({"bias": bias}, assign=True)
    for batch in (1, 2, STREAMED_ROWS, STREAMED_ROWS + 1):
        inputs = _inputs(batch, columns)
        with torch.no_grad():
            error = layer(inputs) - F.linear(inputs, exact, bias)
        assert bool((error.abs() <= _most_error(kind, exact, inputs)).all()), (batch, error)


@pytest.mark.parametrize("kind", SCHEMES)
def test_on_average_the_error_is_far_below_its_bound(kind):
    entry, parts = encode(_weights(64, 4096), SCHEMES[kind])
    exact = values(parts, entry)
    inputs = torch.randn(8, 4096, generator=torch.Generator().manual_seed(1))
    expected = F.linear(inputs, exact)
    found = packed_linear(nn.Linear(4096, 64, bias=False), parts, entry, "x", "packed")(inputs)
    relative = float((found - expected).norm() / expected.norm())
    assert relative < (0.012 if kind in ROUNDED else 0.003)


@either_way
@torch.no_grad()
@pytest.mark.parametrize("kind", ROUNDED)
@pytest.mark.parametrize("batch", [2, STREAMED_ROWS + 1])
def test_inputs_with_a_large_mean_do_not_add_up_the_rounding_of_weights(kind, batch):
    # Pooled ReLU units are such inputs.
    inputs = torch.randn(batch, 4096, generator=torch.Generator().manual_seed(1)) * 0.1 + 3
    entry, parts = encode(torch.randn(64, 4096, generator=torch.Generator().manual_seed(0)), SCHEMES[kind])
    expected = F.linear(inputs, values(parts, entry))
    found = packed_linear(nn.Linear(4096, 64, bias=False), parts, entry, "x", "packed")(inputs)
    assert float((found - expected).norm() / expected.norm()) < 0.001


@either_way
@torch.no_grad()
def test_more_than_one_tile_and_any_leading_axes(monkeypatch):
    monkeypatch.setattr(integer_products, "COLUMNS", 1 << 10)
    rows, columns = TILE_VALUES // TILE_COLUMNS + 3, TILE_COLUMNS + 5
    entry, parts = encode(_weights(rows, columns), Scheme("int8"))
    layer = packed_linear(nn.Linear(columns, rows, bias=False), parts, entry, "x", "packed")
    inputs = _inputs(40, columns)
    expected = F.linear(inputs, values(parts, entry))
    for shape in ((40,), (5, 8), (2, 4, 5)):
        found = layer(inputs.view(*shape, columns))
        assert found.shape == (*shape, rows)
        torch.testing.assert_close(found.view(40, rows), expected, rtol=1e-4, atol=1e-2)
    assert layer(inputs[:0]).shape == (0, rows)
    assert layer(inputs[0]).shape == (rows,)


def test_without_the_kernel_the_products_are_the_same(monkeypatch):
    entry, parts = encode(_weights(33, 1001), Scheme("int8"))
    layer = packed_linear(nn.Linear(1001, 33, bias=False), parts, entry, "x", "packed")
    monkeypatch.delattr(torch, "_weight_int8pack_mm")
    inputs = _inputs(1, 1001)
    torch.testing.assert_close(layer(inputs), F.linear(inputs, values(parts, entry)), rtol=1e-4, atol=1e-3)


def test_a_codebook_far_from_0_rounds_no_more_than_others():
    weights = torch.randn(65, 1001, generator=torch.Generator().manual_seed(0)).mul(0.1)
    # One outlier moves the middle of the codebook, and inputs that are never negative add it up.
    weights[0, 0] = 10.0
    entry, parts = encode(weights, Scheme("uniform"))
    inputs = _inputs(2, 1001).abs()
    layer = packed_linear(nn.Linear(1001, 65, bias=False), parts, entry, "x", "packed")
    expected = F.linear(inputs, values(parts, entry))
    assert float((layer(inputs) - expected).norm() / expected.norm()) < 0.004


@pytest.mark.parametrize("shift", [1, 2, 8, 13])
def test_codes_may_lie_at_any_address(shift):
    # The kernel alone crashes at addresses that are no multiple of 16.
    entry, parts = encode(_weights(33, 1001), Scheme("int8"))
    memory = torch.zeros(parts[".codes"].numel() + 64, dtype=torch.int8)
    start = -memory.data_ptr() % 64 + shift
    moved = memory[start : start + parts[".codes"].numel()].view_as(parts[".codes"]).copy_(parts[".codes"])
    layers = [
        packed_linear(nn.Linear(1001, 33, bias=False), {**parts, ".codes": codes}, entry, "x", "packed")
        for codes in (parts[".codes"], moved)
    ]
    inputs = _inputs(3, 1001)
    # A sum that begins at another address is rounded in another order, and then to bfloat16.
    torch.testing.assert_close(layers[0](inputs), layers[1](inputs), rtol=2.0**-7, atol=1e-4)
    layers[1].codes = moved
    torch.testing.assert_close(layers[1](inputs), F.linear(inputs, values(parts, entry)), rtol=1e-4, atol=1e-3)


@pytest.mark.usefixtures("one_thread")
def test_what_lies_in_the_padding_does_not_matter():
    entry, parts = encode(_weights(5, 1001), Scheme("int8"))
    layer = packed_linear(nn.Linear(1001, 5, bias=False), parts, entry, "x", "packed")
    before = [layer(_inputs(batch, 1001)) for batch in (1, 40)]
    layer.codes[:, 1001:] = 127
    for batch, products in zip((1, 40), before, strict=True):
        assert torch.equal(layer(_inputs(batch, 1001)), products)


def test_a_broken_video_breaks_no_other():
    entry, parts = encode(_weights(5, 1001), Scheme("int8"))
    layer = packed_linear(nn.Linear(1001, 5, bias=False), parts, entry, "x", "packed")
    inputs = _inputs(3, 1001)
    inputs[1, 7] = float("nan")
    finite = layer(inputs).isfinite().all(1)
    assert finite.tolist() == [True, False, True]


@pytest.mark.parametrize(
    "book",
    [[0.5], [0.0], [1.0, -3.0], [3.0, -1.0, 0.25, 1e-3], [0.0] * 3, range(-100, 156), [1e-42, 2e-42, 9e-42]],
    ids=str,
)
def test_any_codebook_becomes_rows(book):
    book = torch.tensor(list(book), dtype=torch.float32)
    codes = torch.randint(0, len(book), (9, 50), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    rows = int8_rows({".codes": codes, ".codebook": book}, TensorEncoding("codebook", (9, 50)), "x")
    found = rows.codes[:, :50].float() * rows.scales[:, None] + rows.offset
    exact = book[codes.long()]
    assert bool(((found - exact).abs() <= exact.abs().amax(1, keepdim=True) / 127 * 0.501 + 1e-37).all())


def test_the_codes_of_int8_are_not_copied():
    entry, parts = encode(_weights(5, 1001), Scheme("int8"))
    layer = packed_linear(nn.Linear(1001, 5), parts, entry, "x", "packed")
    assert layer.codes.data_ptr() == parts[".codes"].data_ptr()


def test_half_rounds_weights_and_products_to_bfloat16():
    for kind, scheme in SCHEMES.items():
        entry, parts = encode(_weights(65, 1001), scheme)
        layer = packed_linear(nn.Linear(1001, 65, bias=False), parts, entry, "x", "half")
        exact = values(parts, entry)
        assert torch.equal(layer.codes, exact.bfloat16()), kind
        for batch in (2, 40):
            inputs = _inputs(batch, 1001)
            most = F.linear(inputs.abs(), exact.abs()) * 2.0**-7
            assert bool(((layer(inputs) - F.linear(inputs, exact)).abs() <= most).all()), kind


@pytest.mark.parametrize("kind", SCHEMES)
def test_a_file_predicts_packed_what_it_predicts_in_full(kind, tmp_path):
    path = tmp_path / "m.safetensors"
    write_file(path, SCHEMES[kind])
    features = np.random.default_rng(0).normal(size=(40, 1, 300)).astype(np.float32)
    packed, half, full = (topgb.load(path, resident=r) for r in ("packed", "half", "full"))
    exact = full.predict(features)
    for model in (packed, half):
        assert sum(isinstance(module, PackedLinear) for module in model.modules()) == 2
        assert model.weights == full.weights == sum(p.numel() for p in full.parameters())
        for batch in (1, 8, 40):
            np.testing.assert_allclose(model.predict(features[:batch]), exact[:batch], atol=0.005, rtol=0)
    assert not any(isinstance(module, PackedLinear) for module in full.modules())
    assert_same_predictions(topgb.load(path).predict(features), packed.predict(features))


@pytest.mark.parametrize("scheme", [None, Scheme("float16")], ids=["float32", "float16"])
def test_floats_stay_floats_unless_halved(scheme, tmp_path):
    path = tmp_path / "m.safetensors"
    write_file(path, scheme)
    features = np.random.default_rng(0).normal(size=(3, 1, 300)).astype(np.float32)
    exact = topgb.load(path, resident="full").predict(features)
    assert_same_predictions(topgb.load(path, resident="packed").predict(features), exact)
    halved = topgb.load(path, resident="half")
    assert {m.codes.dtype for m in halved.modules() if isinstance(m, PackedLinear)} == {torch.bfloat16}
    np.testing.assert_allclose(halved.predict(features), exact, atol=0.005, rtol=0)


def test_another_word_for_resident_is_refused(tmp_path):
    write_file(tmp_path / "m.safetensors", None)
    with pytest.raises(InputError, match="cannot be resident as 'quarter'; choose packed, half, full"):
        topgb.load(tmp_path / "m.safetensors", resident="quarter")


NAME = "members.0.head.hidden.weight"
DAMAGE = {
    "scales that are not finite": ("int8", ".scales", lambda t: t.fill_(float("inf")), "not finite"),
    "a codebook that is not finite": ("k-means codebook", ".codebook", lambda t: t.fill_(float("nan")), "not finite"),
    "codes beyond the codebook": ("k-means codebook", ".codebook", lambda t: t[:100], "beyond its codebook of 100"),
    "codes cut off": ("int8_zlib", ".codes", lambda t: t[:-1], "cannot be unpacked"),
    "codes of others": ("int8_zlib", ".codes", lambda t: t.flip(0), "cannot be unpacked"),
    "codes and more": ("int8_zlib", ".codes", lambda t: torch.cat([t, t]), "cannot be unpacked"),
    "too few codes": ("int8_zlib", ".codes", lambda t: compress_codes(torch.zeros(513, 299).char()), "be unpacked"),
    "too many codes": ("int8_zlib", ".codes", lambda t: compress_codes(torch.zeros(9999, 300).char()), "be unpacked"),
    "minima that are not finite": ("groups of 4 bits", ".minima", lambda t: t.fill_(float("nan")), "not finite"),
    "rows left out": ("int8", ".codes", lambda t: t[:-1].contiguous(), "the header says int8"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused_in_the_same_words_as_in_full(damage, tmp_path):
    kind, suffix, change, words = DAMAGE[damage]
    path = tmp_path / "m.safetensors"
    header, tensors = write_file(path, SCHEMES[kind])
    write_model_file(path, header, tensors | {NAME + suffix: change(tensors[NAME + suffix].clone())}, force=True)
    sentences = set()
    for resident in ("packed", "half", "full"):
        with pytest.raises(InputError, match=words) as raised:
            topgb.load(path, resident=resident)
        sentences.add(str(raised.value))
    assert len(sentences) == 1
