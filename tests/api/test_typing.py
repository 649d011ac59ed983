"""A type checker knows the public calls of an installed topgb."""

import subprocess
import sys
from pathlib import Path

import pytest

import topgb

pytest.importorskip("mypy")

WRONG = """
import topgb
topgb.evaluate("a", "b", devise="cpu")
topgb.verify("a", engine="rey")
topgb.train("a", "b", 3)
topgb.train({}, "b", "c").modle
topgb.load("a").tag("b", top="5")
"""
# Other libraries take seconds to check, and none of their types matters here.
SETTINGS = """
[mypy]
strict = True
[mypy-torch.*,numpy.*,pydantic.*,lightning_fabric.*,yaml.*,fsspec.*,onnx.*,safetensors.*,matplotlib.*,ray.*,google.*]
follow_imports = skip
"""


def test_a_users_program_is_checked(tmp_path):
    (tmp_path / "wrong.py").write_text(WRONG)
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    arguments = ["--config-file", tmp_path / "mypy.ini", "--cache-dir", tmp_path / "cache"]
    files = [Path(__file__).with_name("tagging.py"), tmp_path / "wrong.py"]
    # In a process of its own: in one that holds PyTorch, collecting garbage would take as long as checking.
    command = [sys.executable, "-m", "mypy", *arguments, *files]
    found = subprocess.run(command, capture_output=True, text=True).stdout
    errors = [line for line in found.splitlines() if ": error: " in line]
    assert not [line for line in errors if "tagging.py" in line]
    # A call with two forms is named beside the argument that fits neither.
    assert [line.split('"')[1] for line in errors] == [
        "devise",
        "evaluate",
        "engine",
        "train",
        "TrainingResult",
        "tag",
    ], found


def test_types_are_installed():
    assert Path(topgb.__file__).with_name("py.typed").is_file()
