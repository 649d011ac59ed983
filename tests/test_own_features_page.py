"""docs/own-features.md: every block runs, in order, as commands and as Python, and class names come out."""

import csv
import os
import re
import shlex
from pathlib import Path

import pytest
import torch

from cli.program import topgb
from topgb.modelfile import read_model_file

PAGE = Path(__file__).resolve().parents[1] / "docs" / "own-features.md"
NAMES = {"cooking", "football", "guitar", "train"}
BLOCKS = re.findall(r"```(python|console)\n(.*?)```", PAGE.read_text(), re.DOTALL)


def _in_the_shell() -> float:
    """Run the commands, with the Python that makes the features; the best validation GAP."""
    gap = None
    for kind, block in BLOCKS:
        if kind == "python" and "topgb." not in block:
            exec(block, {"__name__": "page"})
        for line in block.splitlines() if kind == "console" else ():
            program, *arguments = shlex.split(line)
            assert program == "topgb"
            done = topgb(*arguments)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            if "--out run" in line:
                assert "described by packed/dataset.yaml" in done.stdout + done.stderr
                gap = float(re.search(r"best validation GAP ([\d.]+)", done.stdout + done.stderr).group(1))
    return gap


def _in_python() -> float:
    names = {"__name__": "page"}
    try:
        for kind, block in BLOCKS:
            if kind == "python":
                exec(block, names)
    finally:
        torch.set_flush_denormal(False)
    return names["scores"].gap


@pytest.fixture(scope="module", params=[_in_the_shell, _in_python], ids=["shell", "python"])
def session(request, tmp_path_factory):
    """The folder in which the page was run, and the GAP of its model."""
    folder = tmp_path_factory.mktemp("own")
    before = os.getcwd()
    os.chdir(folder)
    try:
        return folder, request.param()
    finally:
        os.chdir(before)


def test_each_command_has_its_python():
    kinds = [kind for kind, block in BLOCKS if kind == "console" or "topgb." in block]
    assert kinds == ["console", "python"] * (len(kinds) // 2)
    assert len(kinds) >= 6


def test_the_model_learned_the_classes_and_knows_their_names(session):
    folder, gap = session
    header, _ = read_model_file(folder / "run/model.safetensors")
    assert set(header.class_names) == NAMES
    assert header.features.width == 48
    assert gap > 0.9


@pytest.mark.parametrize(("file", "videos"), [("predictions.csv", None), ("new.csv", 10)])
def test_predictions_have_names(session, file, videos):
    with open(session[0] / file, newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert rows
    assert videos is None or len(rows) == videos
    for row in rows:
        assert set(row["ClassNames"].split("; ")) == NAMES


def test_the_page_tells_what_is_in_the_folder(session):
    assert {path.name for path in (session[0] / "packed").iterdir()} == {
        "train0000.tfrecord",
        "validate0000.tfrecord",
        "vocabulary.csv",
        "dataset.yaml",
    }
    with open(session[0] / "classes.csv", newline="") as opened:
        assert {row["name"] for row in csv.DictReader(opened)} == NAMES
