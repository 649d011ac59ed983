"""One harness under atheris: `python -m fuzz.guided NAME [libFuzzer's options, corpus folders or inputs]`.

An input named alone is run once, which is how a finding is seen again.
"""

import os

# One thread, or each thread's stack would count as memory taken. Before NumPy and PyTorch are imported.
os.environ["OMP_NUM_THREADS"] = "1"

import importlib
import sys
import tempfile
from pathlib import Path

import atheris

from fuzz.limits import Peak, limited, return_freed_memory

HARNESSES = ("records", "modelfile", "checkpoint", "yaml", "json", "gzip", "packing", "hdf5", "checks")
PEAK_LINE = "topgb: peak bytes beyond the input: "
_WORTH_TELLING = 1 << 20


def main() -> None:
    with atheris.instrument_imports(include=["topgb"]):
        module = importlib.import_module(f"fuzz.{sys.argv[1]}_target")
    # Files in memory: a million on a disk would wear it.
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="topgb-fuzz-", dir=memory) as folder:
        tempfile.tempdir = folder
        target = module.Target(Path(folder))
        # What is imported or set up at first use is no input's fault.
        for seed in target.seeds():
            target.run(seed)
        return_freed_memory()
        _fuzz(target)


def _fuzz(target) -> None:
    peak, told = Peak(), 0

    def run(data: bytes) -> None:
        nonlocal told
        with peak.measured(len(data)), limited(len(data)):
            target.run(data)
        if peak.most > told + _WORTH_TELLING:
            told = peak.most
            print(f"{PEAK_LINE}{peak.most}", file=sys.stderr, flush=True)

    atheris.Setup([sys.argv[0], *sys.argv[2:]], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
