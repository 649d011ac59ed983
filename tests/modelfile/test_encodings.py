"""Every encoding: its bytes in the file, its values back, and what is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from topgb.errors import InputError
from topgb.modelfile.encodings import compress_codes, decode, pack_bits, packed_bytes, stored_bytes, unpack_bits
from topgb.modelfile.header import TensorEncoding

pytestmark = pytest.mark.numeric


@given(bits=st.integers(1, 8), runs=st.integers(0, 40), seed=st.integers(0, 99))
def test_packed_bits_are_what_was_packed_in_as_few_bytes(bits, runs, seed):
    codes = torch.randint(0, 1 << bits, (3, 8 * runs), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    packed = pack_bits(codes, bits)
    assert packed.shape == (3, packed_bytes(8 * runs, bits))
    assert packed.nbytes * 8 == codes.numel() * bits
    assert torch.equal(unpack_bits(packed, bits), codes)


def test_the_layout_of_packed_bits_is_the_documented_one():
    codes = torch.tensor([1, 2, 3, 4, 5, 6, 7, 0], dtype=torch.uint8)
    integer = sum(int(code) << (3 * place) for place, code in enumerate(codes))
    assert bytes(pack_bits(codes, 3)) == integer.to_bytes(3, "little")


def _groups(shape=(3, 50), bits=4, group=16):
    """150 values in ten groups, the last of them padded."""
    entry = TensorEncoding("groups", shape, bits, group)
    codes = torch.arange(160).remainder(1 << bits).to(torch.uint8).view(10, 16)
    scales, minima = torch.linspace(0.5, 2, 10).half(), torch.linspace(-3, 1, 10).half()
    stored = {"x.codes": pack_bits(codes, bits), "x.scales": scales, "x.minima": minima}
    expected = (codes.float() * scales.float()[:, None] + minima.float()[:, None]).view(-1)[:150].view(shape)
    return entry, stored, expected


def _int8(encoding, columns=50):
    codes = torch.randint(-127, 128, (3, columns), generator=torch.Generator().manual_seed(1)).char()
    scales = torch.tensor([0.5, 2.0, 1e-3]).bfloat16()
    width = -(-columns // 16) * 16
    stored = {
        "int8": torch.nn.functional.pad(codes, (0, width - columns)),
        "int8_zlib": compress_codes(codes),
    }[encoding]
    entry = TensorEncoding(encoding, (3, columns))
    return entry, {"x.codes": stored, "x.scales": scales}, codes.float() * scales.float()[:, None]


def _codebook():
    book = torch.linspace(-1, 1, 200)
    codes = torch.arange(150).to(torch.uint8).view(3, 50)
    return TensorEncoding("codebook", (3, 50)), {"x.codes": codes, "x.codebook": book}, book[codes.long()]


CASES = {
    "codebook": _codebook,
    "int8": lambda: _int8("int8"),
    "int8_zlib": lambda: _int8("int8_zlib"),
    "groups": _groups,
    "groups, three bits": lambda: _groups((150,), 3),
}


@pytest.mark.parametrize("case", CASES)
def test_values_come_back(case):
    entry, stored, expected = CASES[case]()
    assert torch.equal(decode(stored, entry, "x"), expected)
    assert stored_bytes(stored, entry, "x") == sum(part.nbytes for part in stored.values())


def test_entropy_coded_codes_take_little_more_than_their_entropy():
    codes = torch.randn(1000, 1000, generator=torch.Generator().manual_seed(0)).mul(2).round().char()
    shares = torch.bincount(codes.flatten().long() + 128).float() / codes.numel()
    entropy = -(shares[shares > 0] * shares[shares > 0].log2()).sum() / 8 * codes.numel()
    assert entropy < compress_codes(codes).nbytes < 1.02 * entropy


@pytest.mark.parametrize("case", CASES)
def test_a_part_of_another_shape_or_dtype_is_refused(case):
    entry, stored, _ = CASES[case]()
    for part in stored:
        for wrong in (stored[part].double(), stored[part][None]):
            with pytest.raises(InputError, match=f"tensor '{part}' is torch.* it is not as topgb wrote it"):
                decode({**stored, part: wrong}, entry, "x")


@pytest.mark.parametrize("case", CASES)
def test_values_that_are_not_finite_are_refused(case):
    entry, stored, _ = CASES[case]()
    for part in (part for part, values in stored.items() if values.is_floating_point()):
        broken = stored[part].clone()
        broken[0] = float("nan")
        with pytest.raises(InputError, match=f"tensor '{part}' has values that are not finite"):
            decode({**stored, part: broken}, entry, "x")


def test_codes_beyond_the_codebook_are_refused():
    entry, stored, _ = _codebook()
    with pytest.raises(InputError, match="codes beyond its codebook of 100"):
        decode({**stored, "x.codebook": stored["x.codebook"][:100]}, entry, "x")
    with pytest.raises(InputError, match="codes beyond its codebook of 300"):
        decode({**stored, "x.codebook": torch.zeros(300)}, entry, "x")


@pytest.mark.parametrize("damage", ["cut", "more", "other", "longer", "shorter", "empty"])
def test_damaged_entropy_coded_codes_are_refused(damage):
    entry, stored, _ = _int8("int8_zlib")
    codes = stored["x.codes"]
    stored["x.codes"] = {
        "cut": codes[:-1],
        "more": torch.cat([codes, codes[:3]]),
        "other": codes.flip(0),
        "longer": compress_codes(torch.zeros(3, 51).char()),
        "shorter": compress_codes(torch.zeros(3, 49).char()),
        "empty": codes[:0],
    }[damage]
    with pytest.raises(
        InputError, match=r"'x.codes' is damaged: its codes cannot be unpacked; it is not as topgb wrote it"
    ):
        decode(stored, entry, "x")


@pytest.mark.parametrize(("bits", "group"), [(None, 16), (1, 16), (9, 16), (4, None), (4, 12), (4, 0), (4, -16)])
def test_groups_of_an_impossible_size_are_refused(bits, group):
    _, stored, _ = _groups()
    with pytest.raises(InputError, match="tensor 'x' has groups of"):
        decode(stored, TensorEncoding("groups", (3, 50), bits, group), "x")


def test_an_unknown_encoding_is_refused():
    with pytest.raises(InputError, match="'x' has the encoding 'float4', which this topgb does not know; upgrade"):
        decode({}, TensorEncoding("float4", (3, 50)), "x")


def test_bits_that_mean_nothing_are_refused():
    _, stored, _ = _codebook()
    with pytest.raises(InputError, match="'x' has bits or groups, which codebook has not"):
        decode(stored, TensorEncoding("codebook", (3, 50), 4, 16), "x")
