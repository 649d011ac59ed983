"""Products of float32 rows and int8 codes in integers: as accurate as float32's, and faster where a processor has them.

A row is written as three digits in base 128, each from -64 to 64 but the first, which goes to 126: 21 bits of its
largest value. The digits' products with the codes and their sums are exact in int32.
"""

import math
from functools import cache

import torch

from topgb.matmul_library import LEAST_GAIN, ROUNDS, is_forced, kept_choice, linear, seconds_of

DIGITS, BASE, LARGEST = 3, 128, 126
# Columns at once: a few rows' digits of them stay in the cache, and a sum of 126 · 127 each is far below 2³¹.
COLUMNS = 1 << 13
# Rows and codes [out, in] that are timed: a batch and an output layer.
ROWS, SHAPE = 32, (4096, 1024)
# A row whose largest value is smaller than this counts as zeros.
LEAST = 1e-30


def integers_are_faster() -> bool:
    """Whether integers are clearly faster here than codes that are widened to float32.

    That is measured once for this machine. Where it cannot be kept, or a library is forced, they are not used.
    """
    return hasattr(torch, "_int_mm") and not is_forced() and _integers_are_faster(torch.get_num_threads())


@cache
def _integers_are_faster(threads: int) -> bool:
    choices = ("integers", "floats")
    return kept_choice("batches by bytes, ", choices, _faster, lambda: "floats")[0] == "integers"


@torch.inference_mode()
def _faster() -> str:
    rows, codes = torch.ones(ROWS, SHAPE[1]), torch.ones(SHAPE, dtype=torch.int8)
    memory, best = torch.empty(SHAPE), [math.inf, math.inf]
    for _ in range(ROUNDS):
        taken = (
            seconds_of(lambda: by_integers(rows, codes)),
            seconds_of(lambda: linear(rows, memory.copy_(codes), None)),
        )
        best = list(map(min, best, taken))
    return "integers" if best[1] > LEAST_GAIN * best[0] else "floats"


def by_integers(rows: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """`rows` (float32 [B, in]) times the transpose of `codes` (int8 [out, in]): float32 [B, out].

    A row that is not finite has products that are not.
    """
    products = rows.new_zeros(len(rows), len(codes))
    for left in range(0, rows.shape[1], COLUMNS):
        part = rows[:, left : left + COLUMNS]
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
