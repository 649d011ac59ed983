"""The Dockerfile, as far as it can be read without Docker."""

import re
import shlex
import signal
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from typer.testing import CliRunner

from combining.small_models import model_file
from serving.running import serving
from topgb.cli.main import app
from topgb.errors import InputError
from topgb.serving.settings import Settings, check_exposure

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
    ((user,),) = _words("USER")
    # A name could be root's by another word, which Kubernetes' runAsNonRoot refuses.
    assert int(user) > 0
    assert any(words[:3] == ["useradd", "--uid", user] for words in _words("RUN"))
    (entry,) = [line for line in LINES if line.startswith("ENTRYPOINT")]
    words = re.findall(r'"([^"]*)"', entry)
    assert words[:2] == ["topgb", "serve"]
    with pytest.raises(InputError, match="protect it with"):
        check_exposure(words[words.index("--host") + 1], None)
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", (ROOT / "Dockerfile").read_text())
    assert set(extras.split(",")) == {"serve", "video"}


def test_the_check_of_health_is_true(tmp_path, monkeypatch):
    """As the image runs it, against a server that is there and one that is not."""
    (line,) = [line for line in LINES if line.startswith("HEALTHCHECK")]
    words = shlex.split(line.partition(" CMD ")[2])
    assert words[:2] == ["python", "-c"]
    entry = next(line for line in LINES if line.startswith("ENTRYPOINT"))
    port = re.findall(r'"--port", "(\d+)"', entry)[0]
    assert f"127.0.0.1:{port}/healthz" in words[2]
    # Docker gives containers the proxies of its own settings.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving([model_file(tmp_path / "m.safetensors")], Settings(token="correct-horse")) as client:
        check = [sys.executable, "-c", words[2].replace(f":{port}/", f":{client.port}/")]
        assert subprocess.run(check, stderr=subprocess.DEVNULL).returncode == 0
    assert subprocess.run(check, stderr=subprocess.DEVNULL).returncode != 0


def test_the_entry_point_starts_a_server(monkeypatch, tmp_path):
    """Its words are options of the command, and a token in the environment is enough."""
    (entry,) = [line for line in LINES if line.startswith("ENTRYPOINT")]
    asked = {}
    monkeypatch.setattr("topgb.api.serving.serve", lambda models, **given: asked.update(given))
    monkeypatch.setenv("TOPGB_TOKEN", "correct-horse")
    words = [*re.findall(r'"([^"]*)"', entry)[1:], str(model_file(tmp_path / "m.safetensors"))]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    ended = CliRunner().invoke(app, words)
    # A server that has ended ignores them, in a process that ends.
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert ended.exit_code == 0, ended.output
    assert (asked["host"], asked["port"], asked["token"]) == ("0.0.0.0", 8000, "correct-horse")
