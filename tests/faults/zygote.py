"""Runs topgb again and again in forks of a process that has imported everything, as importing takes seconds.

Each line of standard input asks for a process, JSON {script, arguments, out, err, die, variables}, and is answered by
its number; or asks for the end of a process, its number, and is answered by its status (as of `os.waitpid`); an empty
line ends this program. `script` is run instead of topgb. `variables` are added to the environment. With `die` K the
process kills itself before its K-th call (from 1) that makes something on disk final: a rename, an fsync, a removal.
"""

import atexit
import gc
import itertools
import json
import math
import os
import pkgutil
import runpy
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import NoReturn

import topgb.progress
from topgb.cli.interrupts import Interrupts

FINAL = ("replace", "rename", "fsync", "unlink", "rmdir")


def main() -> None:
    for module in pkgutil.walk_packages(topgb.__path__, "topgb."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    # What is said every few seconds would only be said on a slow machine.
    topgb.progress.LINE_SECONDS = math.inf
    # `predict` imports it for a table.
    import_module("pyarrow.parquet")
    # A fork that collects garbage would copy all of it.
    gc.freeze()
    for line in sys.stdin:
        if not line.strip():
            return
        request = json.loads(line)
        if isinstance(request, int):
            print(os.waitpid(request, 0)[1], flush=True)
            continue
        # An interrupt of the child waits until it hears interrupts.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        child = os.fork()
        if child == 0:
            _run(_become(**request))
        # The child does so too; whoever is told its number may signal its group at once.
        _lead_a_group(child)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        print(child, flush=True)


def _become(
    script: str | None, arguments: list[str], out: str, err: str, die: int | None, variables: dict[str, str]
) -> Callable[[], object]:
    _lead_a_group(0)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    if die is not None:
        _die_before(die)
    os.environ.update(variables)
    sys.argv = [script or "topgb", *arguments]
    if script is not None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return partial(runpy.run_path, script, run_name="__main__")
    from topgb import __main__ as program

    program.Interrupts = _Unblocking
    return program.run


def _lead_a_group(process: int) -> None:
    """Give a process a group of its own, as a terminal gives to every command."""
    # The one that comes second may find that the child has ended.
    with suppress(OSError):
        os.setpgid(process, process)


class _Unblocking(Interrupts):
    """Hears the interrupts that have come since the fork, too."""

    def install(self) -> None:
        super().install()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _run(program: Callable[[], object]) -> NoReturn:
    try:
        program()
        code: object = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    # What Python does at its end, but for tearing down every module, which takes a fork seconds.
    atexit._run_exitfuncs()
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0)


def _die_before(call: int) -> None:
    calls = itertools.count(1)

    def dying(function):
        def wrapped(*arguments, **options):
            if next(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return wrapped

    for name in FINAL:
        setattr(os, name, dying(getattr(os, name)))


if __name__ == "__main__":
    main()
