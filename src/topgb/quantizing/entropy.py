"""Entropy-code several tensors so that all of them together take a given number of bits per weight."""

import math
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import torch

from topgb.errors import InputError, option
from topgb.modelfile.encodings import Parts, compress_codes, rows_and_columns
from topgb.modelfile.header import TensorEncoding
from topgb.progress import SILENT, Progress
from topgb.quantizing.calibration import Calibration
from topgb.quantizing.rounding import root_mean_square
from topgb.quantizing.schemes import RowScales, Scheme, encode, rounded_codes

# The largest number of bits per weight that may be requested: codes have 8 bits.
MOST_BITS = 8.0
# The coded tensors may exceed the requested bits per weight by this much.
SLACK = 0.01
# Size of a tensor's sample of weights, from which the bits of all its weights are estimated.
SAMPLE = 1 << 20
# The search for the steps ends when the ratio of its bounds is at most this.
PRECISION = 1.005
# The tensors are coded up to MOST_ATTEMPTS times, each time with greater steps. After attempt number PATIENCE (from 0)
# the growth of the steps doubles with every attempt, up to a factor of 2^MOST_DOUBLINGS.
MOST_ATTEMPTS, PATIENCE, MOST_DOUBLINGS = 16, 3, 32

Encoded: TypeAlias = dict[str, tuple[TensorEncoding, Parts]]


def fewest_bits(shapes: Iterable[tuple[int, ...]]) -> float:
    """The fewest bits per weight that tensors of these shapes can take together: those they take if all codes are 0.

    The scale of a row takes 16 bits and the Huffman code of a weight at least one. A matrix [R, C] therefore takes at
    least 16 / C + 1 bits per weight, and a little for the code table. Without any shape the result is 0.
    """
    bits = weights = 0.0
    for shape in shapes:
        rows, columns = rows_and_columns(shape)
        sample = torch.zeros(1, min(rows * columns, SAMPLE), dtype=torch.int8)
        bits += 16 * rows + _bits_per_code(sample) * rows * columns
        weights += rows * columns
    return bits / max(weights, 1)


def check_reachable(bits: float, shapes: Iterable[tuple[int, ...]]) -> None:
    """Raise `InputError` where tensors of these shapes cannot be coded in `bits` bits per weight."""
    fewest = fewest_bits(shapes)
    if bits + SLACK >= fewest:
        return
    least = math.ceil(100 * fewest) / 100
    remedy = f"ask for {least:.2f} or more" if least <= MOST_BITS else "use another method, such as int4"
    raise InputError(
        f"{option('bits')} is {bits:g}, but these tensors take at least {least:.2f} bits a weight (16 for each row's "
        f"scale, and 1 for each weight); {remedy}"
    )


def entropy_coded(
    tensors: Mapping[str, torch.Tensor],
    bits: float,
    calibration: Calibration | None = None,
    progress: Progress = SILENT,
) -> Encoded:
    """Encode the tensors (float32, by name) so that they take at most `bits` + `SLACK` bits per weight on average.

    Raises `InputError` as `check_reachable` does, and for weights so near the end of float32's range that no step
    rounds them to 0.
    """
    if not tensors:
        return {}
    check_reachable(bits, (tuple(tensor.shape) for tensor in tensors.values()))
    steps = entropy_steps(tensors, bits, None if calibration is None else calibration.sensitivity)
    elements = sum(tensor.numel() for tensor in tensors.values())
    fewest = math.inf
    for attempt in range(MOST_ATTEMPTS):
        encoded = _encoded(tensors, steps, calibration, progress)
        taken = 8 * sum(part.nbytes for _, parts in encoded.values() for part in parts.values()) / elements
        if taken <= bits + SLACK:
            return encoded
        fewest = min(fewest, taken)
        # Error compensation makes weights grow, so they take more bits than the search has seen. A doubled step saves
        # a bit per weight, but ever less as the codes become 0.
        doublings = min((taken - bits) * 2 ** max(0, attempt - PATIENCE), MOST_DOUBLINGS)
        steps = {name: step * 2**doublings for name, step in steps.items()}
    raise InputError(
        f"these tensors cannot be coded in {bits:g} bits a weight, {fewest:.2f} being the fewest found; ask for more, "
        "or use another method, such as kmeans"
    )


def entropy_steps(
    tensors: Mapping[str, torch.Tensor], bits: float, sensitivity: Mapping[str, float] | None = None
) -> dict[str, float]:
    """The step of each tensor (float32) at which all of them together take `bits` per weight, entropy-coded.

    Errors cost sensitivity · step² and a tensor of n values takes n · log2(step) bits less, so at the least cost for
    the bytes step² ∝ n / sensitivity. Without `sensitivity` relative errors are taken to cost the same in every tensor.
    """
    samples: dict[str, tuple[torch.Tensor, RowScales]] = {}
    shares = {}
    for name, tensor in tensors.items():
        matrix = tensor.reshape(rows_and_columns(tuple(tensor.shape)))
        rms = root_mean_square(tensor)
        cost = 1 / max(rms, 1e-30) ** 2 if sensitivity is None else max(sensitivity[name], 1e-30)
        shares[name] = math.sqrt(tensor.numel() / cost)
        sample = matrix[:: max(1, tensor.numel() // SAMPLE)]
        samples[name] = sample, RowScales.of(sample)
    total = sum(tensor.numel() for tensor in tensors.values())

    def bits_at(scale: float) -> float:
        taken = 0.0
        for name, tensor in tensors.items():
            sample, scales = samples[name]
            codes = rounded_codes(sample, scales.at(scale * shares[name]))
            taken += _bits_per_code(codes) * tensor.numel() + 16 * rows_and_columns(tuple(tensor.shape))[0]
        return taken / total

    # Search between steps so large that nearly every code is 0 and steps so small that nothing is lost.
    largest = max(float(tensor.abs().max()) for tensor in tensors.values()) or 1.0
    low, high = 1e-9 * largest / max(shares.values()), 4 * largest / min(shares.values())
    # The search ends, as every round halves the logarithm of the ratio.
    while high / low > PRECISION:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if bits_at(middle) > bits else (low, middle)
    return {name: high * share for name, share in shares.items()}


def _encoded(
    tensors: Mapping[str, torch.Tensor],
    steps: Mapping[str, float],
    calibration: Calibration | None,
    progress: Progress,
) -> Encoded:
    encoded: Encoded = {}
    progress.begin("quantising", len(tensors), "tensors")
    for name, tensor in tensors.items():
        factors = None if calibration is None else calibration.factors.get(name)
        encoded[name] = encode(tensor, Scheme("entropy", step=steps[name]), factors, name)
        progress.advance(1)
    progress.end()
    return encoded


def _bits_per_code(codes: torch.Tensor) -> float:
    return 8 * len(compress_codes(codes)) / codes.numel()
