"""The Dockerfile, as far as it can be read without Docker."""

import re
import shlex
from fnmatch import fnmatch
from pathlib import Path

import pytest

from topgb.errors import InputError
from topgb.serving.settings import check_exposure

ROOT = Path(__file__).resolve().parents[2]
LINES = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()


def _words(name: str) -> list[list[str]]:
    """The words of each instruction of that name."""
    return [shlex.split(line)[1:] for line in LINES if line.startswith(f"{name} ")]


def test_what_is_copied_is_there_and_not_ignored():
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    sources = [word for words in _words("COPY") if not words[0].startswith("--") for word in words[:-1]]
    assert len(sources) >= 5
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in allowed), source


def test_the_server_is_not_root_and_asks_for_a_token():
    (user,) = _words("USER")
    assert user != ["root"]
    (entry,) = [line for line in LINES if line.startswith("ENTRYPOINT")]
    words = re.findall(r'"([^"]*)"', entry)
    assert words[:2] == ["topgb", "serve"]
    with pytest.raises(InputError, match="protect it with"):
        check_exposure(words[words.index("--host") + 1], None)
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", (ROOT / "Dockerfile").read_text())
    assert set(extras.split(",")) == {"serve", "video"}
