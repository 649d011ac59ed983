"""Which library multiplies float32 matrices on this machine's CPU: PyTorch's default, MKL, or oneDNN.

On some processors oneDNN is twice as fast as MKL at the same accuracy. PyTorch calls it for float32 matrices where the
process allows products of fewer bits (`torch.set_float32_matmul_precision("medium")`), and oneDNN then computes in
float32 or, on processors with matrix units, in bfloat16. So its accuracy is measured before it is chosen. The setting
is the process's: commands make it for theirs, and the Python API leaves it to the caller. A model that only predicts
can call oneDNN's operator instead, which has no gradient and heeds no setting.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, cast, get_args

from topgb.errors import InputError, TopgbError
from topgb.files import atomic_write, cache_folder
from topgb.json_reading import read_json

if TYPE_CHECKING:
    import torch

MatmulPath = Literal["mkl", "onednn"]
VARIABLE = "TOPGB_MATMUL"
# Products [rows, inner] x [inner, columns] like those of frames and of a hidden layer, and the rounds that time both.
SHAPES = ((1200, 1024, 512), (32, 8192, 512))
ROUNDS, MOST_SECONDS = 4, 0.25
# How many times as fast oneDNN must be: a choice between equals would change from run to run.
LEAST_GAIN = 1.1
# The relative error that counts as float32's; MKL has 3e-7, oneDNN 6e-7, products of bfloat16 2e-3.
MOST_ERROR = 3e-6
# oneDNN, and PyTorch for it, keep the code of so many products, up to 1 MB each, in place of 1,024. A batch has fewer,
# but every length and number of videos has others.
KEPT_PRODUCTS = {"DNNL_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}
# How many frames oneDNN's operator gets at once in a prediction; MKL multiplies the rest.
BLOCKS = 1 << 10, 1 << 8

_used: MatmulPath = "mkl"
_preferred: MatmulPath = "mkl"


class Choice(NamedTuple):
    """The path to use and, in words, why."""

    path: MatmulPath
    reason: str


def in_use() -> MatmulPath:
    """The path that `use` has set for this process."""
    return _used


def use(path: MatmulPath) -> None:
    """Multiply float32 matrices by `path` in this process from now on."""
    global _used
    if path != _used:
        _set(path)
        _used = path


def keep_few_products() -> None:
    """Have oneDNN keep the code of few products here and in child processes; call it before the first product."""
    os.environ.update({**KEPT_PRODUCTS, **os.environ})


def choose() -> Choice:
    """The path for this machine and number of threads.

    The variable TOPGB_MATMUL forces one. Otherwise it is measured once, in a fraction of a second, and kept in the
    cache folder, so that later runs have the same bits. Where that cannot be written, the processor's instructions
    decide. Raises `InputError` where the variable names no path.
    """
    return _choice("", _measured, _by_instructions)


def is_forced() -> bool:
    """Whether TOPGB_MATMUL forces a path, so that nothing is to be timed."""
    return bool(os.environ.get(VARIABLE))


def prefer_faster() -> None:
    """Choose as `choose` does, without touching the process's setting, the path of `linear` in this process."""
    global _preferred
    # To go by the instructions would set the process's path for a moment: where nothing is kept, leave it alone.
    _preferred = _choice("prediction, ", _measured_linear, lambda: "mkl").path


def prefers_onednn() -> bool:
    """Whether `linear` calls oneDNN's operator although the process multiplies by MKL."""
    return _preferred == "onednn" and _used == "mkl"


def linear(values: "torch.Tensor", weight: "torch.Tensor", bias: "torch.Tensor | None") -> "torch.Tensor":
    """`F.linear` of float32 frames on a CPU, in prediction, by the path of `prefer_faster`. It has no gradient.

    oneDNN gets blocks of `BLOCKS` frames, so that it keeps two products a weight. It copies strided frames, but in the
    cache.
    """
    import torch

    rows = values.reshape(-1, values.shape[-1])
    if not prefers_onednn() or len(rows) < min(BLOCKS):
        return torch.nn.functional.linear(values, weight, bias)
    products, first = rows.new_empty(len(rows), len(weight)), 0
    for count in BLOCKS:
        while first + count <= len(rows):
            products[first : first + count] = onednn_linear(rows[first : first + count], weight, bias)
            first += count
    products[first:] = torch.nn.functional.linear(rows[first:], weight, bias)
    return products.view(*values.shape[:-1], len(weight))


def onednn_packed(weight: "torch.Tensor") -> "torch.Tensor":
    """A copy of a float32 weight [out, in] in the order in which oneDNN reads it, for `onednn_linear` alone."""
    import torch

    # The order is that for batches of 32 rows; products with more or fewer rows take it as well.
    return torch.ops.mkldnn._reorder_linear_weight(weight, 32)


def onednn_linear(values: "torch.Tensor", weight: "torch.Tensor", bias: "torch.Tensor | None") -> "torch.Tensor":
    """`linear` by oneDNN's operator, whatever the process's setting is; `weight` may be `onednn_packed`."""
    import torch

    return torch.ops.mkldnn._linear_pointwise(values, weight, bias, "none", [], "")


def _choice(name: str, measured: Callable[[], MatmulPath], unkept: Callable[[], MatmulPath]) -> Choice:
    paths = get_args(MatmulPath)
    forced = os.environ.get(VARIABLE)
    if forced and forced not in paths:
        raise InputError(f"{VARIABLE} is {forced!r}; set it to {' or '.join(paths)}, or unset it")
    if forced:
        return Choice(cast(MatmulPath, forced), f"set by {VARIABLE}")
    return Choice(*cast(tuple[MatmulPath, str], kept_choice(name, paths, measured, unkept)))


def kept_choice(
    name: str, choices: Collection[str], measured: Callable[[], str], unkept: Callable[[], str]
) -> tuple[str, str]:
    """One of `choices` for this machine and number of threads, `measured` once and kept under `name`, and why.

    Where the cache folder cannot be written, it is `unkept`.
    """
    file, key = cache_folder() / "matmul.json", f"{name}{_key()}"
    if (kept := _read(file)).get(key) in choices:
        return kept[key], f"kept in {file}"
    try:
        # Try to write before timing: a choice that cannot be kept might differ the next time.
        _write(file, kept)
    except TopgbError:
        return unkept(), f"by the processor's instructions, as {file} cannot be written"
    found = measured()
    _write(file, {**_read(file), key: found})
    return found, "measured now"


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def instruction_sets() -> list[str]:
    """The processor's instruction sets on which the speed of products depends."""
    flags = set(_cpuinfo().get("flags", "").split())
    return [name for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if name in flags]


def speed(
    path: MatmulPath | None, shape: tuple[int, int, int], dtype: "torch.dtype | None" = None
) -> tuple[float, float]:
    """GFLOP/s of a product [rows, inner] x [inner, columns] by `path`, the best of several, and its relative error.

    `path` None leaves the process's setting alone. `dtype` is float32 unless given; others do not depend on the path.
    """
    import torch

    random = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, generator=random) for size in (shape[:2], shape[1:]))
    own = [tensor.to(dtype or torch.float32) for tensor in (a, b)]
    expected = a[:64].double() @ b.double()
    with nullcontext() if path is None else _by(path):
        error = ((own[0] @ own[1])[:64].double() - expected).norm() / expected.norm()
        seconds = least_seconds([lambda: own[0] @ own[1]])[0]
    return 2 * shape[0] * shape[1] * shape[2] / seconds / 1e9, float(error)


def by_mkl(where: bool = True) -> AbstractContextManager[None]:
    """A block in which MKL multiplies, if `where` holds and this process uses oneDNN; a caller's own setting stays."""
    return _by("mkl") if where and _used != "mkl" else nullcontext()


@contextmanager
def _by(path: MatmulPath) -> Iterator[None]:
    _set(path)
    try:
        yield
    finally:
        _set(_used)


def _set(path: MatmulPath) -> None:
    import torch

    torch.set_float32_matmul_precision("medium" if path == "onednn" else "highest")


def _measured() -> MatmulPath:
    """oneDNN where it is as accurate as float32 and clearly faster than MKL."""
    seconds: dict[MatmulPath, float] = {"mkl": 0.0, "onednn": 0.0}
    began = time.perf_counter()
    for shape in SHAPES:
        for path in seconds:
            rate, error = speed(path, shape)
            if error > MOST_ERROR:
                return "mkl"
            seconds[path] += 1 / rate
        if time.perf_counter() - began > MOST_SECONDS:
            break
    return "onednn" if seconds["mkl"] > LEAST_GAIN * seconds["onednn"] else "mkl"


def _measured_linear() -> MatmulPath:
    """oneDNN where its operator is clearly faster than PyTorch's own with the process's setting."""
    import torch

    if not torch.backends.mkldnn.is_available():
        return "mkl"
    mkl = onednn = 0.0
    with torch.inference_mode():
        for rows, inner, columns in SHAPES:
            factors = torch.ones(rows, inner), torch.ones(columns, inner), None
            taken = least_seconds([partial(call, *factors) for call in (torch.nn.functional.linear, onednn_linear)])
            mkl, onednn = mkl + taken[0], onednn + taken[1]
    return "onednn" if mkl > LEAST_GAIN * onednn else "mkl"


def _by_instructions() -> MatmulPath:
    """MKL is fastest on Intel's processors; on others with AVX-512 it is oneDNN, which computes in float32 there."""
    sets = instruction_sets()
    fit = "Intel" not in _cpuinfo().get("vendor_id", "Intel") and "avx512f" in sets and "amx_bf16" not in sets
    return "onednn" if fit and speed("onednn", SHAPES[1])[1] <= MOST_ERROR else "mkl"


def seconds_of(call: Callable[[], object]) -> float:
    """How long `call` takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def least_seconds(calls: Sequence[Callable[[], object]]) -> list[float]:
    """How long each of `calls` takes at least: all in turns, because a neighbour's work disturbs for a while."""
    rounds = [[seconds_of(call) for call in calls] for _ in range(ROUNDS)]
    return [min(taken) for taken in zip(*rounds, strict=True)]


def _key() -> str:
    import torch

    return f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _cpuinfo() -> dict[str, str]:
    """The values of the first processor in /proc/cpuinfo by name; empty where there is no such file."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except (OSError, UnicodeDecodeError):
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}


def _read(file: Path) -> dict[str, str]:
    """The choices that are kept, by machine; none where the file is absent or broken."""
    try:
        found = read_json(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(file: Path, kept: dict[str, str]) -> None:
    with atomic_write(file) as out:
        out.write(json.dumps(kept, indent=1).encode())
