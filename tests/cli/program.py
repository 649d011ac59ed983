"""The program, run in this process: importing PyTorch once for each of a hundred calls would take minutes."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from topgb import progress
from topgb.cli import main


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def topgb(*arguments: str | Path) -> Done:
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["topgb", *map(str, arguments)])
        # Progress is said by the clock, so a slow machine would say more than a fast one.
        patch.setattr(progress, "LINE_SECONDS", float("inf"))
        try:
            main.run()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            # `topgb train` has its process flush them, and other tests, and Hypothesis, compute with them.
            torch.set_flush_denormal(False)
    return Done(code, out.getvalue(), err.getvalue())
