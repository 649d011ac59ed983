"""Build a model from a run's checkpoint, without reading records."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from topgb.devices import Precision, Resident
from topgb.errors import InputError, option
from topgb.modelfile import Header, LoadedModel, Member, StoredModel, write_model_file
from topgb.modelfile.header import EXTRACTOR, SEGMENTS
from topgb.modelfile.loaded import assemble_stored
from topgb.modelfile.member import encode_member
from topgb.records.segments import SEGMENT_FRAMES
from topgb.training.checkpoint import Checkpoint, final_checkpoint
from topgb.training.class_names import run_names
from topgb.training.recipe import Recipe
from topgb.training.run_folder import read_settings, run_recipe
from topgb.version import __version__
from topgb.vocabulary import check_names


def build_model_file(
    run: Path,
    path: Path,
    use_ema: bool | None = None,
    force: bool = False,
    class_names: Sequence[str] | None = None,
) -> Header:
    """Write the model file of a run's best checkpoint, or its latest if no best exists (2018: `eval.py --build_only`).

    With `use_ema` None the model has the EMA weights if the run keeps them, with `class_names` None the run's own
    names. Raises `InputError` where `run` is not a run, has no checkpoint, has no EMA weights although `use_ema` asks
    for them, or the number of names is wrong.
    """
    model = stored_run(run, use_ema)
    header = model.header
    if class_names is not None:
        check_names(class_names, header.classes)
        header = replace(header, class_names=tuple(class_names))
    write_model_file(path, header, model.tensors, force)
    return header


def load_run(
    run: Path, use_ema: bool | None = None, resident: Resident = "full", precision: Precision = "float32"
) -> LoadedModel:
    """The model that `build_model_file` would write, ready to predict; the last two as for `topgb.modelfile.load`."""
    return assemble_stored(stored_run(run, use_ema), resident, precision)


def stored_run(run: Path, use_ema: bool | None = None) -> StoredModel:
    """The model that `build_model_file` would write, as it would be stored. Raises as `build_model_file` does."""
    recipe, checkpoint = run_recipe(run), final_checkpoint(run)
    if use_ema and checkpoint.ema is None:
        raise InputError(f"{run} keeps no EMA weights; leave out {option('use_ema')}")
    chosen = None if use_ema is False else checkpoint.ema
    entries, tensors = encode_member(0, checkpoint.weights if chosen is None else chosen)
    header = Header(
        features=recipe.data.spec(),
        classes=recipe.data.classes,
        members=(Member(1.0, recipe.model_section()),),
        tensors=entries,
        class_names=run_names(run, recipe.data.classes),
        origin=_origin(run, recipe, checkpoint, use_ema=chosen is not None),
        extras=_extras(recipe, read_settings(run)),
    )
    # Write and read the header, so that the origin's keys and numbers are those of a file that was read.
    return StoredModel(run, Header.loads(header.dumps(), str(run)), tensors)


def _extras(recipe: Recipe, settings: dict[str, Any]) -> dict[str, Any]:
    extras = {} if (extractor := settings.get(EXTRACTOR)) is None else {EXTRACTOR: extractor}
    if recipe.segments is not None:
        rated = settings.get("rated_classes")
        extras[SEGMENTS] = {
            "frames": SEGMENT_FRAMES,
            **recipe.segments.model_dump(include={"context", "whole"}),
            **({} if rated is None else {"classes": rated}),
        }
    return extras


def _origin(run: Path, recipe: Recipe, checkpoint: Checkpoint, use_ema: bool) -> dict[str, Any]:
    settings = read_settings(run)
    return {
        "software": f"topgb {__version__}",
        "recipe": recipe.to_json(),
        "weights": "ema" if use_ema else "raw",
        "step": checkpoint.step,
        "examples": checkpoint.progress["examples"],
        "validation": checkpoint.progress.get("validation"),
        **({"teacher": settings["teacher"]} if settings.get("teacher") else {}),
        "parents": [settings[key] for key in ("init_from", "ema_source") if settings.get(key)],
    }
