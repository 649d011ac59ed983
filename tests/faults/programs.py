"""Two ways to run the command line: as a user does, and in a fork of a process that has imported everything."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "no_proxy": "127.0.0.1"}
# No command of these tests takes so long; a hung one is told from a slow machine's.
PATIENCE = 300.0
PATIENCE_AT_END = 60.0


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit code, or minus the signal's number, and what it printed."""

    code: int
    out: str
    err: str
    seconds: float


class Running:
    """A process in a group of its own. `group` is its number."""

    def __init__(self, group: int, folder: Path, wait: Callable[[], int]):
        self.group, self._folder, self._wait, self._begun = group, folder, wait, time.monotonic()
        self.ended = False

    def signal(self, number: int) -> None:
        """Send a signal to the whole group, as a terminal does; nothing where it has ended."""
        with suppress(ProcessLookupError):
            os.killpg(self.group, number)

    def wait(self) -> Ended:
        """Wait for the end; a process that hangs is killed."""
        patience = threading.Timer(PATIENCE, self.signal, [signal.SIGKILL])
        patience.start()
        code = self._wait()
        self.ended = True
        patience.cancel()
        seconds = time.monotonic() - self._begun
        return Ended(code, (self._folder / "out").read_text(), (self._folder / "err").read_text(), seconds)


class Command:
    """`python -m topgb` in a process of its own; what it prints goes to files in `folder`."""

    words = "from its start"

    def __init__(self, folder: Path):
        self._folder = folder

    def start(self, arguments: Sequence[str | Path]) -> Running:
        """Start the program with these arguments."""
        out, err = _fresh(self._folder)
        with open(out, "wb") as out_file, open(err, "wb") as err_file:
            process = subprocess.Popen(
                [sys.executable, "-m", "topgb", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=err_file,
                env=ENVIRONMENT,
                process_group=0,
            )
        return Running(process.pid, self._folder, process.wait)

    def close(self) -> None:
        """Nothing is left to end."""


class Zygote:
    """The same in forks of one process (`zygote.py`), which start in milliseconds."""

    words = "at work"

    def __init__(self, folder: Path):
        self._folder, self._numbers = folder, itertools.count()
        self._started: list[Running] = []
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
            text=True,
            bufsize=1,
        )

    def start(
        self,
        arguments: Sequence[str | Path],
        die: int | None = None,
        variables: dict[str, str] | None = None,
        script: Path | None = None,
    ) -> Running:
        """Start the program; `die`, `variables` and `script` as in `zygote.py`."""
        folder = self._folder / str(next(self._numbers))
        out, err = _fresh(folder)
        request = {
            "script": None if script is None else str(script),
            "arguments": [str(a) for a in arguments],
            "out": str(out),
            "err": str(err),
            "die": die,
            "variables": variables or {},
        }
        process = self._ask(json.dumps(request))
        running = Running(process, folder, lambda: os.waitstatus_to_exitcode(self._ask(str(process))))
        self._started.append(running)
        return running

    def close(self) -> None:
        """End the process that forks."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # Closing the pipe would not do: any process that the tests forked meanwhile holds it open.
        self._process.stdin.write("\n")
        self._process.stdin.close()
        # What a failed test did not wait for.
        for running in self._started:
            if not running.ended:
                running.signal(signal.SIGKILL)
        try:
            self._process.wait(PATIENCE_AT_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError("the zygote was told to end and did not; it is killed") from None
        finally:
            self._process.stdout.close()

    def _ask(self, request: str) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(request + "\n")
        return int(self._process.stdout.readline())


def killed(ended: Ended) -> bool:
    """Whether SIGKILL ended the process."""
    return ended.code == -signal.SIGKILL


def one_line(ended: Ended) -> str:
    """What the program said on standard error, which must be one line of its own."""
    lines = [line for line in ended.err.splitlines() if not line.startswith(QUIET)]
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("topgb: "), ended.err
    return lines[0]


# What commands say before they begin, and no stack.
QUIET = (
    *("memory: ", "room: ", "warning: ", "resuming after ", "epoch ", "member "),
    *("searching", "stopping after this step"),
)


def _fresh(folder: Path) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    out, err = folder / "out", folder / "err"
    out.write_bytes(b"")
    err.write_bytes(b"")
    return out, err
