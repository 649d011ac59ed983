"""A run: the directory that training fills, and the settings it must keep when it is resumed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from topgb.errors import InputError, option
from topgb.files import IN_USE, atomic_write, partials_of
from topgb.json_reading import read_json
from topgb.matmul_library import VARIABLE
from topgb.training.recipe import RECIPE_FILE, Recipe, parse_recipe, recipe_value
from topgb.training.replaced_run import EARLIER, clear, holds_earlier, set_aside

SETTINGS_FILE = "settings.json"
MODEL_FILE = "model.safetensors"
# The settings' key for class names, the only setting that no weight depends on.
NAMES = "class_names"


def start_run(
    folder: Path, recipe: Recipe, settings: dict[str, Any], force: bool, keep: Sequence[Path | None] = ()
) -> None:
    """Make `folder` a fresh run with this recipe. Raises `InputError` where it holds anything and `force` is off.

    `settings` is everything else that the weights depend on (records, parents). With `force` an old run in `folder` is
    set aside until the new one has a checkpoint, unless one of the files in `keep` lies in it. A folder in which this
    call was killed counts as empty.
    """
    text = yaml.safe_dump(recipe.to_json(), sort_keys=False, allow_unicode=True)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a run needs a directory")
    if folder.exists() and not _is_unbegun(folder, text):
        if not force and not is_run(folder):
            raise _no_run(folder)
        if not force:
            raise InputError(
                f"{folder} is not empty; go on with {option('resume', True)}, overwrite with {option('force', True)}, "
                f"or choose another {option('out')}"
            )
        _make_way(folder, [path for path in keep if path is not None])
    _write_text(folder / RECIPE_FILE, text)
    # Write the settings last: they make the folder a run.
    write_settings(folder, settings)


def check_resumable(folder: Path, recipe: Recipe, settings: dict[str, Any]) -> None:
    """Raise `InputError` naming the first key in which recipe or settings differ from those the run began with."""
    before = {**run_recipe(folder).to_json(), **read_settings(folder), NAMES: None}
    now = {**recipe.to_json(), **json.loads(json.dumps(settings)), NAMES: None}
    old, new = _flatten(before), _flatten(now)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            same = "resume with the same settings"
            if key == "matmul":
                # The library was chosen for the machine, which may be another one now.
                same = f"set {VARIABLE}={old.get(key) or 'mkl'} to resume"
            raise InputError(
                f"{folder} was started with {key} = {old.get(key)!r}, now it is {new.get(key)!r}; "
                f"{same}, or start another run with another {option('out')}"
            )


def is_run(folder: Path) -> bool:
    """Whether `folder` was filled by `topgb train`."""
    return (folder / SETTINGS_FILE).is_file()


def run_recipe(folder: Path) -> Recipe:
    """The resolved recipe of a run. Raises `InputError` where `folder` is not a run."""
    path = folder / RECIPE_FILE
    if not path.is_file():
        raise InputError(
            f"{folder} is not a run: it has no {RECIPE_FILE}; name a directory that topgb train has filled"
        )
    return parse_recipe(recipe_value(_read_text(path), str(path)))


def read_settings(folder: Path) -> dict[str, Any]:
    """The run's settings. Raises `InputError` where they cannot be read."""
    path = folder / SETTINGS_FILE
    try:
        settings = read_json(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise InputError(f"{path} is not the JSON that topgb train wrote; put that back, or train anew")
    return settings


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings that `read_settings` reads. Raises `TopgbError` where they cannot be written."""
    _write_text(folder / SETTINGS_FILE, json.dumps(settings, indent=1))


def _is_unbegun(folder: Path, recipe: str) -> bool:
    """Whether `folder` is empty, or holds what a `start_run` with this very recipe left when it was killed."""
    path = folder / RECIPE_FILE
    # A recipe file of the user's own has another text, and stays.
    ours = {path} if path.is_file() and path.read_bytes() == recipe.encode() else set()
    known = {folder / EARLIER, folder / IN_USE, *ours, *partials_of(path), *partials_of(folder / SETTINGS_FILE)}
    return set(folder.iterdir()) <= known


def _no_run(folder: Path) -> InputError:
    return InputError(f"{folder} holds files that no run wrote; choose another {option('out')}")


def _make_way(folder: Path, keep: Sequence[Path]) -> None:
    if not is_run(folder):
        raise _no_run(folder)
    for path in keep:
        if path.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"{path} lies in {folder}, which {option('force', True)} would clear; choose another {option('out')}"
            )
    if holds_earlier(folder):
        # This run has no checkpoint, and the one that it was to replace is still there.
        clear(folder)
    else:
        set_aside(folder)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    except UnicodeDecodeError:
        raise InputError(f"{path} is not the recipe that topgb train wrote; put that back, or train anew") from None


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        flat |= _flatten(entry, f"{prefix}.{key}" if prefix else str(key))
    return flat
