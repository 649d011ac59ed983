"""Products of float32 rows and int8 codes in integers: as accurate as float32's, and faster where a processor has them.

A row is written as three digits in base 128, each from -64 to 64 but the first, which goes to 126: 21 bits of its
largest value. The digits' products with the codes and their sums are exact in int32, if the processor has instructions
for them: without these, oneDNN adds two products in 16 bits, which saturate. So it is tried with the largest values.
"""

from functools import cache

import torch

from topgb.matmul_library import LEAST_GAIN, is_forced, kept_choice, least_seconds, linear

DIGITS, BASE, LARGEST = 3, 128, 126
# Columns at once: a few rows' digits of them stay in the cache, and a sum of 126 · 127 each is far below 2³¹.
COLUMNS = 1 << 13
# Rows and codes [out, in] that are timed: a batch and an output layer.
ROWS, SHAPE = 32, (4096, 1024)
# A row whose largest value is smaller than this counts as zeros.
LEAST = 1e-30


def integers_are_faster() -> bool:
    """Whether integers are exact here, and clearly faster than codes that are widened to float32.

    How fast they are is measured once for this machine. Where it cannot be kept, or a library is forced, they are not
    used.
    """
    return not is_forced() and integers_are_exact() and _integers_are_faster(torch.get_num_threads())


@cache
def integers_are_exact() -> bool:
    """Whether this process multiplies the largest digits and codes exactly: an environment may forbid instructions."""
    if not hasattr(torch, "_int_mm"):
        return False
    random = torch.Generator().manual_seed(0)
    for inner, out in ((1024, 256), (1000, 70), (16, 33)):
        for positive in (1.0, 0.5):
            signs = [torch.rand(rows, inner, generator=random) < positive for rows in (DIGITS * ROWS, out)]
            digits, codes = (
                torch.where(sign, value, -value).to(torch.int8)
                for sign, value in zip(signs, (LARGEST, 127), strict=True)
            )
            if not torch.equal(torch._int_mm(digits, codes.T).double(), digits.double() @ codes.double().T):
                return False
    return True


@cache
def _integers_are_faster(threads: int) -> bool:
    choices = ("integers", "floats")
    return kept_choice("batches by bytes, ", choices, _faster, lambda: "floats")[0] == "integers"


@torch.inference_mode()
def _faster() -> str:
    rows, codes = torch.ones(ROWS, SHAPE[1]), torch.ones(SHAPE, dtype=torch.int8)
    memory = torch.empty(SHAPE)
    integers, floats = least_seconds(
        [lambda: by_integers(rows, codes), lambda: linear(rows, memory.copy_(codes), None)]
    )
    return "integers" if floats > LEAST_GAIN * integers else "floats"


def by_integers(rows: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """`rows` (float32 [B, in]) times the transpose of `codes` (int8 [out, in]): float32 [B, out].

    A row that is not finite has products that are not.
    """
    products = rows.new_zeros(len(rows), len(codes))
    for left in range(0, rows.shape[1], COLUMNS):
        part = rows[:, left : left + COLUMNS]
        if part.shape[1] == 1:
            # PyTorch takes the strides of a matrix with one row for those of its transpose.
            products.addmm_(part, codes[:, left : left + 1].float().T)
            continue
        digits, largest = _digits(part)
        exact = torch._int_mm(digits.flatten(0, 1), codes[:, left : left + part.shape[1]].T).unflatten(0, (DIGITS, -1))
        own = exact[0].float()
        for place in range(1, DIGITS):
            own.add_(exact[place], alpha=BASE**-place)
        products.addcmul_(own, largest / LARGEST)
    return products


def _digits(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The digits of `rows` [B, in], int8 [DIGITS, B, in], and each row's largest absolute value, float32 [B, 1]."""
    digits = torch.empty((DIGITS, *rows.shape), dtype=torch.int8)
    largest = rows.abs().amax(1, keepdim=True).clamp_min_(LEAST)
    rest, rounded = rows * (LARGEST / largest), torch.empty_like(rows)
    for place in range(DIGITS):
        digits[place].copy_(torch.round(rest, out=rounded))
        if place + 1 < DIGITS:
            # Exact: what is left of a number after rounding has fewer digits than the number.
            rest.sub_(rounded).mul_(BASE)
    return digits, largest
