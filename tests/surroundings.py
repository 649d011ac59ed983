"""What the tests are to find around them, whoever runs them and wherever: set before topgb and PyTorch are imported.

A module of its own, because pytest imports tests/conftest.py anew for every conftest.py below it.
"""

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings

# rich and Typer colour what they print, or set it as wide as they are told, though it goes to no terminal.
TERMINAL = (
    *("COLUMNS", "FORCE_COLOR", "GITHUB_ACTIONS", "LINES", "NO_COLOR", "PY_COLORS", "TERMINAL_WIDTH"),
    *("TTY_COMPATIBLE", "TTY_INTERACTIVE"),
)
PROXIES = ("all_proxy", "http_proxy", "https_proxy")


def _cache() -> Path:
    """A cache folder of this process's own; a worker's lies in that of the process that started it."""
    above = os.environ.get("XDG_CACHE_HOME") if "PYTEST_XDIST_WORKER" in os.environ else None
    return Path(tempfile.mkdtemp(prefix="topgb-tests-cache-", dir=above))


def for_browsers() -> dict[str, str]:
    """The environment of a Chromium, which makes a socket beside its temporary files: a long path would be too long."""
    return {**os.environ, "TMPDIR": "/tmp"}


def remove() -> None:
    """Nothing is kept."""
    shutil.rmtree(CACHE, ignore_errors=True)


for name in TERMINAL:
    os.environ.pop(name, None)
for name in PROXIES:
    os.environ.pop(name, None)
    os.environ.pop(name.upper(), None)
# Nothing is kept in the user's cache folder, except by matplotlib, which would otherwise look through all fonts.
kept = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
CACHE = _cache()
os.environ["XDG_CACHE_HOME"] = str(CACHE)
# Where it cannot write, every fork of a process would remove the same temporary folder at its end.
os.environ.setdefault("MPLCONFIGDIR", str((kept if os.access(kept, os.W_OK) else CACHE) / "matplotlib"))
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(CACHE / "torchinductor"))
# A slow machine's examples take longer than Hypothesis allows.
settings.register_profile("topgb", deadline=None)
settings.load_profile("topgb")
