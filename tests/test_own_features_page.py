"""docs/own-features.md: every block runs, in order, and class names come out."""

import csv
import re
import shlex
from pathlib import Path

import pytest

from cli.program import topgb
from topgb.modelfile import read_model_file

PAGE = Path(__file__).resolve().parents[1] / "docs" / "own-features.md"
NAMES = {"cooking", "football", "guitar", "train"}


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """The folder in which the page was run, and what each command printed."""
    folder, printed = tmp_path_factory.mktemp("own"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for kind, block in re.findall(r"```(python|console)\n(.*?)```", PAGE.read_text(), re.DOTALL):
            if kind == "python":
                exec(block, {"__name__": "page"})
                continue
            for line in block.splitlines():
                program, *arguments = shlex.split(line)
                assert program == "topgb"
                done = topgb(*arguments)
                assert done.returncode == 0, f"{line}\n{done.stderr}"
                printed[line] = done.stdout + done.stderr
    return folder, printed


def test_the_model_learned_the_classes_and_knows_their_names(session):
    folder, printed = session
    header, _ = read_model_file(folder / "run/model.safetensors")
    assert set(header.class_names) == NAMES
    assert header.features.width == 48
    gap = next(
        re.search(r"best validation GAP ([\d.]+)", text) for line, text in printed.items() if "--out run" in line
    )
    assert float(gap.group(1)) > 0.9
    assert any("described by packed/dataset.yaml" in text for text in printed.values())


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
