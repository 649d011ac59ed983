"""Where and how to compute, how much memory is free there, and what weights take of it."""

import ctypes
import os
import sys
from pathlib import Path
from typing import Literal, get_args

import torch

from topgb.errors import InputError, option
from topgb.matmul_library import SHAPES, in_use, instruction_sets, kept_choice, speed

# malloc.h: the most allocations that get pages of their own, and the free memory above which pages are returned.
_M_MMAP_MAX, _M_TRIM_THRESHOLD = -4, -1
# The arithmetic that a user may choose, and that which computes.
PrecisionChoice = Literal["auto", "float32", "bfloat16"]
Precision = Literal["float32", "bfloat16"]
# The memory that the large matrices of linear layers take (see `modelfile.loaded.load`).
Resident = Literal["packed", "half", "full"]
USABLE = ("cpu", "cuda", "mps")
# How many times as fast bfloat16 must be for `auto`: casts take time, too.
LEAST_GAIN_IN_BFLOAT16 = 1.3


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` is CUDA if there is a GPU, else the CPU. Raises `InputError` if it is absent."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.empty(0, device=name).device
        if device.type in USABLE:
            return device
    except (RuntimeError, AssertionError):
        pass
    raise InputError(f"there is no device {name!r} here; use {option('device', 'cpu')}")


def resolved_precision(precision: PrecisionChoice, device: torch.device) -> Precision:
    """The arithmetic of matrix products on `device`.

    `bfloat16` needs a device that computes in it natively; others compute in float32. `auto` takes bfloat16 on such a
    GPU, and on such a CPU if products were measured to be at least 1.3 times as fast (see `topgb.matmul_library`).
    """
    if precision == "float32" or not computes_in_bfloat16(device):
        return "float32"
    if precision == "bfloat16" or device.type != "cpu" or faster_in_bfloat16():
        return "bfloat16"
    return "float32"


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 natively, without emulation."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def faster_in_bfloat16() -> bool:
    """Whether products of bfloat16 are clearly faster on this CPU than those of float32 as this process makes them.

    It is measured once and kept as the library is; where it cannot be kept, the processor's instructions decide.
    """
    capable = {"avx512_bf16", "amx_bf16"}
    found, _ = kept_choice(
        f"bfloat16 beside {in_use()}, ",
        ("bfloat16", "float32"),
        _faster_dtype,
        lambda: "float32" if capable.isdisjoint(instruction_sets()) else "bfloat16",
    )
    return found == "bfloat16"


def _faster_dtype() -> str:
    seconds = [sum(1 / speed(None, shape, dtype)[0] for shape in SHAPES) for dtype in (None, torch.bfloat16)]
    return "bfloat16" if seconds[0] > LEAST_GAIN_IN_BFLOAT16 * seconds[1] else "float32"


def checked_resident(name: str) -> Resident:
    """`name` if it is one of `packed`, `half`, `full`. Raises `InputError` otherwise."""
    for known in get_args(Resident):
        if name == known:
            return known
    raise InputError(f"weights cannot be resident as {name!r}; choose {', '.join(get_args(Resident))}")


def keep_freed_memory() -> None:
    """Let this process keep freed memory for its next tensors (Linux with glibc; elsewhere this does nothing).

    By default the memory of large tensors goes back to the system at once, and clearing fresh pages for the next ones
    takes a quarter or more of a training step on a CPU (docs/benchmarks.md).
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def flush_subnormals() -> None:
    """Let this process's CPU treat floats below 1e-38 as zero, as TensorFlow does.

    Gradients that vanish over hundreds of frames pass through that range, where arithmetic is tens of times slower
    (docs/benchmarks.md). Threads inherit the setting, so call this before the first tensor is computed.
    """
    torch.set_flush_denormal(True)


def cores() -> int:
    """The number of cores that this process may use, which a scheduler may have bounded."""
    # Only Linux has it.
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def free_memory(device: torch.device, system: Path = Path("/")) -> int | None:
    """Bytes that can still be allocated on `device`; None if that cannot be known (MPS, CPUs outside Linux).

    On a CPU this is the least that the machine or any control group of this process has left. Page cache counts as
    free, because the kernel gives it up. `system` is the folder that holds `proc` and `sys`.
    """
    if device.type == "cuda":
        # CUDA counts freed memory that PyTorch keeps as taken.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    if device.type != "cpu":
        return None
    try:
        available = 1024 * _numbers_by_word(system / "proc/meminfo")["MemAvailable:"]
    except (OSError, KeyError):
        return None
    return max(0, min([available, *_left_in_groups(system)]))


def _left_in_groups(system: Path) -> list[int]:
    """Bytes left in each control group (version 1 or 2) with a limit, from this process's own up to the root."""
    left = []
    path = system / "proc/self/cgroup"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            root, limit, usage, cached = "", "memory.max", "memory.current", ("active_file", "inactive_file")
        elif "memory" in controllers.split(","):
            root, limit, usage = "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached = ("total_active_file", "total_inactive_file")
        else:
            continue
        # In a container the group's own folder may be invisible; the root folder is then the container's group.
        for name in (Path(group), *Path(group).parents):
            folder = system / "sys/fs/cgroup" / root / name.relative_to("/")
            try:
                most, used = (
                    int((folder / limit).read_text(encoding="utf-8")),
                    int((folder / usage).read_text(encoding="utf-8")),
                )
                figures = _numbers_by_word(folder / "memory.stat")
            except (OSError, ValueError):
                continue
            left.append(most - used + sum(figures.get(key, 0) for key in cached))
    return left


def _numbers_by_word(path: Path) -> dict[str, int]:
    """The number in each line of a file, by the word before it."""
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}
