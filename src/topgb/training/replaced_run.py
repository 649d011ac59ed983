"""The run that `force` replaces is kept in a hidden folder until the new one has a checkpoint."""

import os
import shutil
from pathlib import Path

from topgb.errors import TopgbError
from topgb.files import partial_name, remove_dead_partials, sync

EARLIER = ".earlier-run"
# Its settings make a folder a run (`run_folder.SETTINGS_FILE`).
_SETTINGS = "settings.json"


def holds_earlier(folder: Path) -> bool:
    """Whether a run that is being replaced is kept in `folder`."""
    return (folder / EARLIER).is_dir()


def set_aside(folder: Path) -> None:
    """Move the run in `folder` into its hidden folder. Raises `TopgbError` if that fails."""
    try:
        (folder / EARLIER).mkdir(exist_ok=True)
        # Move the settings last: until they have moved, `settle` puts the rest back.
        for entry in sorted(_entries(folder), key=lambda entry: entry.name == _SETTINGS):
            os.rename(entry, folder / EARLIER / entry.name)
        sync(folder)
    except OSError as error:
        settle(folder)
        raise TopgbError(f"cannot replace the run in {folder}: {error.strerror}; check its permissions") from error


def settle(folder: Path) -> None:
    """Tidy up after a killed process.

    Remove the earlier run if the new one has a checkpoint; put it back if it was only partly set aside.
    """
    if not folder.is_dir():
        return
    if holds_earlier(folder):
        if not (folder / EARLIER / _SETTINGS).exists():
            _move_back(folder)
        elif any((folder / "checkpoints").glob("*-*")):
            drop_earlier(folder)
    remove_dead_partials(folder / EARLIER)


def drop_earlier(folder: Path) -> None:
    """Remove the earlier run, if there is one."""
    if holds_earlier(folder):
        # Rename before deleting: half of a run must not be taken for one.
        doomed = partial_name(folder / EARLIER)
        os.rename(folder / EARLIER, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def give_back(folder: Path) -> None:
    """Put the earlier run back, if there is one, in place of a new one that has no checkpoint yet."""
    settle(folder)
    if holds_earlier(folder):
        clear(folder)
        _move_back(folder)


def clear(folder: Path) -> None:
    """Remove the run in `folder`, but not the earlier one. Raises `TopgbError` if that fails."""
    # Remove the settings last: without them a half-cleared folder would no longer count as a run.
    try:
        for entry in sorted(_entries(folder), key=lambda entry: entry.name == _SETTINGS):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    except OSError as error:
        raise TopgbError(f"cannot clear {folder}: {error.strerror}; check its permissions") from error


def _move_back(folder: Path) -> None:
    earlier = folder / EARLIER
    # Move the settings first: once they are back, `settle` goes on with the rest.
    for entry in sorted(earlier.iterdir(), key=lambda entry: entry.name != _SETTINGS):
        os.rename(entry, folder / entry.name)
    earlier.rmdir()
    sync(folder)


def _entries(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
