"""docs/api.md: its examples run, and what it maps to the public calls exists."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

import topgb
from cli.program import topgb as program

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text()
BLOCKS = re.findall(r"```(python|console)\n(.*?)```", PAGE, re.DOTALL)


def _run(code: str) -> dict:
    names = {"__name__": "page"}
    exec(code, names)
    return names


@pytest.fixture
def empty_place(workplace, tmp_path, monkeypatch) -> Path:
    """A folder with arrays, their labels and records, in which nothing was made yet."""
    for name in ("features", "labels.csv", "records"):
        (tmp_path / name).symlink_to(workplace.folder / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_begins_with_the_whole_story(empty_place):
    kind, code = BLOCKS[0]
    assert kind == "python"
    assert len([line for line in code.splitlines() if line.strip()]) < 30
    names = _run(code)
    assert names["model"].tag(names["frames"], top=1)[0][0] in {"cat", "dog", "bird"}
    assert names["scores"].videos == names["packed"].validate
    assert names["small"].bytes <= 60_000
    assert (empty_place / "small.onnx").is_file()


def test_the_same_in_the_shell(empty_place, monkeypatch):
    def export_at_once(model, out, to, force, takes):
        out.write_bytes(b"onnx")
        return [out]

    # To export takes seconds, and was done above.
    monkeypatch.setattr("topgb.modelfile.export.export_model", export_at_once)
    kind, code = BLOCKS[1]
    assert kind == "console"
    for line in code.splitlines():
        name, *arguments = shlex.split(line)
        assert name == "topgb"
        done = program(*arguments)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert (empty_place / "small.onnx").is_file()


def test_what_lies_inside_works(empty_place):
    assert _run(BLOCKS[2][1])["own"].videos == 60


def test_every_call_is_in_the_table():
    rows = re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE)
    types = {name for name in topgb.__all__ if isinstance(getattr(topgb, name), type)}
    assert set(rows) == set(topgb.__all__) - types - {"__version__"}


@pytest.mark.parametrize("place", sorted(set(re.findall(r"`(topgb(?:\.\w+){2,})`", PAGE))))
def test_what_the_page_names_exists(place):
    module, _, name = place.rpartition(".")
    try:
        import_module(place)
    except ModuleNotFoundError:
        assert hasattr(import_module(module), name)
