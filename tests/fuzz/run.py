"""Runs every harness for TOPGB_FUZZ_RUNS executions (a million) and prints a table; `python -m fuzz.run [NAME …]`.

Ends with 1 at the first finding. What the fuzzer keeps, the corpus, findings and logs, is under .fuzz/ and is where the
next run goes on from.
"""

import importlib
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fuzz.choices import HOSTILE
from fuzz.guided import HARNESSES, PEAK_LINE
from fuzz.mutations import varint

FOLDER = Path(__file__).resolve().parents[2] / ".fuzz"
SECONDS_EACH = 5
MOST_INPUT_BYTES = 4096


@dataclass(frozen=True)
class Outcome:
    """What a harness did: executions, how many a second, inputs kept, edges reached, peak bytes beyond an input."""

    executions: int
    rate: int
    corpus: int
    edges: int
    peak: int


def main() -> int:
    runs = int(os.environ.get("TOPGB_FUZZ_RUNS", "1000000"))
    print(f"{'harness':<12}{'executions':>12}{'a second':>10}{'corpus':>8}{'edges':>8}{'peak MB beyond input':>22}")
    for name in sys.argv[1:] or HARNESSES:
        folder = FOLDER / name
        status, log = _run(name, folder, runs)
        if status:
            print(f"\n{name}: the readers failed; {log} says how")
            for finding in sorted(folder.glob("finding-*")):
                print(f"  again: PYTHONPATH=tests {sys.executable} -m fuzz.guided {name} {finding}")
            return 1
        found = outcome(log.read_text(errors="replace"))
        print(
            f"{name:<12}{found.executions:>12,}{found.rate:>10,}{found.corpus:>8,}{found.edges:>8,}"
            f"{found.peak / 2**20:>22.1f}",
            flush=True,
        )
    return 0


def _run(name: str, folder: Path, runs: int) -> tuple[int, Path]:
    """The exit status of a harness, and its log."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        target = importlib.import_module(f"fuzz.{name}_target").Target(Path(scratch))
        for number, seed in enumerate(target.seeds()):
            (corpus / f"seed-{number:03}").write_bytes(seed)
    words = [*target.tokens, *{form for number in HOSTILE for form in _forms(number)}]
    (folder / "words").write_text("".join(f'"{_escaped(word)}"\n' for word in words))
    command = [sys.executable, "-m", "fuzz.guided", name, f"-runs={runs}", f"-timeout={SECONDS_EACH}"]
    command += [f"-max_len={MOST_INPUT_BYTES}", f"-dict={folder / 'words'}", f"-artifact_prefix={folder}/finding-"]
    command += ["-print_final_stats=1", str(corpus)]
    log = folder / "log.txt"
    with open(log, "wb") as file:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        return subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment).returncode, log


def outcome(log: str) -> Outcome:
    """The figures in libFuzzer's log."""
    peaks = re.findall(re.escape(PEAK_LINE) + r"(\d+)", log)
    return Outcome(
        int(re.findall(r"number_of_executed_units:\s*(\d+)", log)[-1]),
        int(re.findall(r"average_exec_per_sec:\s*(\d+)", log)[-1]),
        int(re.findall(r" corp: (\d+)", log)[-1]),
        int(re.findall(r" cov: (\d+)", log)[-1]),
        int(peaks[-1]) if peaks else 0,
    )


def _forms(number: int) -> tuple[bytes, ...]:
    """A number as it stands in files: text, of variable length, 64 bits."""
    return str(number).encode(), varint(number), number.to_bytes(8, "little")


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    sys.exit(main())
