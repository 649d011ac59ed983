"""How long `topgb --help` takes, beside an empty Python: the best and the median of ten, all files compiled (`.pyc`).

.venv/bin/python benchmarks/startup.py
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 10


def seconds(command: list[str]) -> list[float]:
    """Wall-clock seconds of each of `ROUNDS` runs."""
    taken = []
    # The first run compiles.
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - began)
    return taken[1:]


def main() -> None:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        table()


def table() -> None:
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores\n")
    print("| command | best | median |\n|---|---|---|")
    for name, command in (
        ("python -c pass", [sys.executable, "-c", "pass"]),
        ("topgb --help", [sys.executable, "-m", "topgb", "--help"]),
        ("topgb train --help", [sys.executable, "-m", "topgb", "train", "--help"]),
    ):
        taken = seconds(command)
        print(f"| {name} | {min(taken):.2f} s | {statistics.median(taken):.2f} s |")


if __name__ == "__main__":
    main()
