"""The run that `force` replaces: whatever stops the move, the old run or the new one is there."""

import os

import pytest

from topgb.errors import TopgbError
from topgb.training.replaced_run import EARLIER, drop_earlier, give_back, set_aside, settle

OLD = {"recipe.yaml": "old", "settings.json": "old", "model.safetensors": "old", "checkpoints/step-3/x": "old"}


@pytest.fixture
def folder(tmp_path):
    _fill(tmp_path / "run", OLD)
    return tmp_path / "run"


def _fill(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def _contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_it_is_kept_until_the_new_run_has_a_checkpoint(folder):
    set_aside(folder)
    assert _contents(folder) == {f"{EARLIER}/{name}": text for name, text in OLD.items()}
    _fill(folder, {"settings.json": "new"})
    settle(folder)
    assert _contents(folder / EARLIER) == OLD
    _fill(folder, {"checkpoints/step-1/x": "new"})
    settle(folder)
    assert _contents(folder) == {"settings.json": "new", "checkpoints/step-1/x": "new"}


def test_it_comes_back(folder):
    set_aside(folder)
    _fill(folder, {"settings.json": "new", "metrics.jsonl": "new"})
    give_back(folder)
    assert _contents(folder) == OLD
    assert not (folder / EARLIER).exists()
    give_back(folder)
    drop_earlier(folder)
    assert _contents(folder) == OLD


@pytest.mark.parametrize("call", [set_aside, give_back])
@pytest.mark.parametrize("stop", range(4))
def test_a_stop_between_two_renames(folder, call, stop, monkeypatch):
    if call is give_back:
        set_aside(folder)
    rename, left = os.rename, [stop]

    def stopping(source, target):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        rename(source, target)

    monkeypatch.setattr(os, "rename", stopping)
    with pytest.raises(KeyboardInterrupt):
        call(folder)
    monkeypatch.setattr(os, "rename", rename)
    if call is give_back and not stop:
        assert _contents(folder / EARLIER) == OLD
        return
    settle(folder)
    assert _contents(folder) == OLD


def test_a_move_that_fails_changes_nothing(folder, monkeypatch):
    rename = os.rename

    def failing(source, target):
        if source.name == "recipe.yaml" and target.parent.name == EARLIER:
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(TopgbError, match="cannot replace the run in .*: Permission denied"):
        set_aside(folder)
    assert _contents(folder) == OLD
