"""topgb doctor."""

import platform
from typing import Any

from topgb import terminal
from topgb.cli.arguments import Json

# A square product, and one like a hidden layer's.
SHAPES = ((2048, 2048, 2048), (32, 16384, 1024))


def doctor(json: Json = False) -> None:
    """Say what this machine has, how fast it multiplies, and which path topgb chose: for reports of faults."""
    found = _findings()
    if json:
        terminal.show_json(found)
        return
    for name, value in found.items():
        for number, line in enumerate(value if isinstance(value, list) else [value]):
            terminal.show(f"{'' if number else name.replace('_', ' '):<17}{line}")


def _findings() -> dict[str, Any]:
    """Texts, numbers and lists of texts by name."""
    import torch

    from topgb.devices import computes_in_bfloat16, free_memory
    from topgb.matmul_library import choose, instruction_sets, processor, speed
    from topgb.version import __version__

    cpu = torch.device("cpu")
    choice, free = choose(), free_memory(cpu)
    speeds = []
    for shape in SHAPES:
        for path in ("mkl", "onednn"):
            rate, error = speed(path, shape)
            speeds.append(f"{_name(shape)} float32 by {path} {rate:.0f} (error {error:.0e})")
        if computes_in_bfloat16(cpu):
            speeds.append(f"{_name(shape)} bfloat16 {speed('mkl', shape, torch.bfloat16)[0]:.0f}")
    gpus = [
        f"{torch.cuda.get_device_name(index)}, {torch.cuda.get_device_properties(index).total_memory / 1e9:.0f} GB"
        for index in range(torch.cuda.device_count())
    ]
    return {
        "topgb": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ffmpeg": _ffmpeg(),
        "system": platform.platform(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "instruction_sets": instruction_sets() or [torch.backends.cpu.get_cpu_capability()],
        "free_memory": "unknown" if free is None else f"{free / 1e9:.1f} GB",
        "GFLOP/s": speeds,
        "matmul": f"{choice.path} ({choice.reason})",
        "gpus": gpus or ["none"],
    }


def _ffmpeg() -> str:
    """The version of FFmpeg that decodes videos here."""
    from topgb.errors import TopgbError
    from topgb.video.opening import ffmpeg_version

    try:
        return ffmpeg_version()
    except TopgbError:
        return "none (the extra video is not installed)"


def _name(shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, shape))
