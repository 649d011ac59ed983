"""Two commands that write files of one set: the second is refused, and nothing is mixed."""

import pytest

from cli.program import topgb
from topgb.folder_lock import writing_alone

FOLDERS = {
    "train": "run",
    "distill": "scores",
    "pack": "packed",
    "extract": "extracted",
    "drop-fakes": "real",
    "synth": "synth",
}


@pytest.mark.parametrize("name", FOLDERS)
def test_the_second_is_refused(name, inputs, tmp_path):
    folder = tmp_path / FOLDERS[name]
    command = [*inputs.case(name, "few").arguments(tmp_path), "--force"]
    with writing_alone(folder):
        done = topgb(*command)
        there = [path.name for path in folder.iterdir()]
    assert done.returncode == 2
    assert f"topgb: {folder} is being written to by another command (process " in done.stderr
    assert there == [".in-use"]
    assert not folder.exists()
