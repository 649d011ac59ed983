"""make test-portable: the numeric tests as other processors, other numbers of threads and the oldest PyTorch run them.

Also topgb and its demo without any extra. Everything runs, whatever failed before, two runs at a time. A table ends the
output; the exit code is 1 if anything failed.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Environments beside that of `make test`, kept for the next time.
BARE, OLDEST = ROOT / ".venv-bare", ROOT / ".venv-oldest"
OLDEST_TORCH = "torch==2.11.*"
# The files are named, as to look into all others takes as long as some runs.
MARKED = sorted(str(path) for path in (ROOT / "tests").rglob("test_*.py") if "mark.numeric" in path.read_text())
NUMERIC = ["-m", "pytest", "-m", "numeric", "-q", "--no-header", "-p", "no:cacheprovider", *MARKED]
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
# MKL's own switch of instructions does nothing on AMD's processors, so MKL is asked for what all of them have.
SSE41 = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
SEEN = """
import torch
bf16 = "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "no bf16"
capability = torch.backends.cpu.get_cpu_capability()
print(f"torch {torch.__version__}, {capability}, {bf16}, threads {torch.get_num_threads()}")
"""
NO_EXTRAS = """
import importlib.util, topgb
extras = ("av", "fastapi", "h5py", "huggingface_hub", "onnx", "onnxruntime", "onnxscript", "pandas", "pyarrow", "ray")
there = [name for name in extras if importlib.util.find_spec(name)]
assert not there, f"{there} are no part of topgb without extras"
"""


def threads(count: int) -> dict[str, str]:
    """The environment in which PyTorch uses `count` threads; MKL would take no more than there are cores."""
    return {"OMP_NUM_THREADS": str(count), "MKL_DYNAMIC": "FALSE"}


class NotToBeHadError(Exception):
    """What a run needs cannot be installed here, which is no fault of topgb's."""


@dataclass(frozen=True)
class Run:
    """A line of the table: `commands` of the Python that `prepare` gives, with `variables` in the environment."""

    name: str
    variables: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[], str] = lambda: sys.executable
    commands: tuple[list[str], ...] = (NUMERIC,)

    def __call__(self) -> tuple[bool, str]:
        """Whether nothing failed, and the line; what the commands print is printed here, in one piece."""
        # TOPGB_PORTABLE has tests/conftest.py leave the number of threads alone.
        env = {**os.environ, "OMP_NUM_THREADS": "1", **self.variables, "TOPGB_PORTABLE": "1"}
        start, printed, passed = time.monotonic(), [], False
        try:
            python = self.prepare()
            printed.append(_printed([python, "-c", SEEN], env))
            for command in self.commands:
                printed.append(_printed([python, *command], env))
            passed, ended = True, "passed: " + printed[-1].strip().rpartition("\n")[2]
        except NotToBeHadError as error:
            passed, ended = True, str(error)
        except subprocess.CalledProcessError as error:
            printed.append(error.stdout)
            ended = f"FAILED with exit code {error.returncode}"
        line = f"{self.name:14} {time.monotonic() - start:4.0f} s  {printed[0].strip() if printed else '':44}  {ended}"
        # In one call, as another run may print at the same time.
        print("\n".join(["", f"=== {line}", *printed, ""]), end="", flush=True)
        return passed, line


def _printed(command: list[str], env: dict[str, str] | None = None) -> str:
    """What `command` prints to either stream. Raises `CalledProcessError`, which holds it too, if it fails."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, cwd=ROOT, env=env, text=True, check=True, **streams).stdout


def _environment(folder: Path, *requirements: list[str]) -> str:
    """The Python of a virtual environment into which pip installed each of `requirements` in turn."""
    ready, python = folder / ".ready", str(folder / "bin" / "python")
    pinned = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    if not ready.exists() or ready.stat().st_mtime < max(path.stat().st_mtime for path in pinned):
        _printed([sys.executable, "-m", "venv", "--clear", str(folder)])
        for wanted in requirements:
            _printed([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted])
        ready.touch()
    return python


def bare() -> str:
    """An environment without extras and without what tests need."""
    return _environment(BARE, ["-c", "constraints.txt", "-e", "."])


def oldest() -> str:
    """An environment with the oldest PyTorch that topgb runs on, and everything else as pinned."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as others:
        pins = (ROOT / "constraints.txt").read_text().splitlines(keepends=True)
        others.writelines(line for line in pins if not line.startswith("torch=="))
        others.flush()
        try:
            return _environment(OLDEST, [OLDEST_TORCH], ["-c", others.name, OLDEST_TORCH, "-e", ".[dev]"])
        except subprocess.CalledProcessError as error:
            if error.cmd[-1] != OLDEST_TORCH:
                raise
            raise NotToBeHadError(f"pip cannot get {OLDEST_TORCH} here") from error


def with_avx2() -> str:
    """The environment of `make test`, on a processor that has AVX2."""
    asked = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    capability = _printed([sys.executable, "-c", asked]).strip()
    if capability not in ("AVX2", "AVX512"):
        raise NotToBeHadError(f"this processor has no AVX2, only {capability}")
    return sys.executable


def run_all(runs: Sequence[Run]) -> int:
    """Run all of `runs`, two at a time, and print the table: 0, or 1 if anything failed."""
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(Run.__call__, runs))
    print("\n=== All runs", *(line for _, line in ended), sep="\n")
    return 0 if all(passed for passed, _ in ended) else 1


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        demo = ["-m", "topgb", "demo", "--out", f"{folder}/demo"]
        exports = {"TOPGB_EXPORTS": f"{folder}/exports"}
        Path(exports["TOPGB_EXPORTS"]).mkdir()
        # Those that begin with a download come first.
        return run_all([
            Run("oldest PyTorch", prepare=oldest),
            Run("no extras", prepare=bare, commands=(["-c", NO_EXTRAS], demo)),
            *(Run(f"threads {count}", threads(count) | exports) for count in (1, 2, 3)),
            Run("AVX2", {**AVX2, **exports}, with_avx2),
            Run("SSE4.1", {**SSE41, **exports}),
        ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
