"""A run's checkpoints: safetensors for tensors, JSON for the rest; a checkpoint is complete or absent."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from topgb.errors import InputError, option
from topgb.files import atomic_write, sync, write_failure
from topgb.json_reading import read_json
from topgb.tensors import load_tensors, save_tensors
from topgb.training.run_folder import is_run

KEPT = {"step": 2, "best": 1}
PROGRESS_KEYS = ("step", "updates", "examples", "validation", "epochs_since_best", "damaged")


@dataclass(frozen=True)
class Checkpoint:
    """A state of training.

    It has the raw `weights` and the EMA shadows (if the run keeps them) by tensor name, the optimiser's moments, and
    `progress`, JSON values such as the step.
    """

    weights: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    ema: dict[str, torch.Tensor] | None
    progress: dict[str, Any]

    @property
    def step(self) -> int:
        """Training steps done."""
        return self.progress["step"]


def save_checkpoint(run: Path, checkpoint: Checkpoint, kind: str = "step") -> None:
    """Write a checkpoint of `kind` (`step` or `best`), then drop old ones (two `step`s and one `best` stay)."""
    parent = run / "checkpoints"
    target = parent / f"{kind}-{checkpoint.step:010d}"
    partial = parent / f".{target.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_tensors(partial / "weights.safetensors", checkpoint.weights)
        save_tensors(partial / "optimizer.safetensors", checkpoint.optimizer)
        if checkpoint.ema is not None:
            save_tensors(partial / "ema.safetensors", checkpoint.ema)
        with atomic_write(partial / "progress.json") as file:
            file.write(json.dumps(checkpoint.progress, sort_keys=True).encode())
        if target.exists():
            _remove(target)
        sync(partial)
        os.rename(partial, target)
        sync(target.parent)
        _remove_old(run, kind)
    except OSError as error:
        raise write_failure(target, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def clear_partial_checkpoints(run: Path) -> None:
    """Remove what a killed write or removal left behind."""
    for partial in (run / "checkpoints").glob(".*.partial"):
        shutil.rmtree(partial)
    for kind in KEPT:
        _remove_old(run, kind)


def latest_checkpoint(run: Path) -> Checkpoint | None:
    """The checkpoint to resume from, or None where the run has none yet."""
    folders = _folders(run, "step")
    return _load(folders[-1]) if folders else None


def way_to_go_on(run: Path) -> str:
    """How to go on with a run that was interrupted, in words."""
    if _folders(run, "step"):
        return f"the same command with {option('resume', True)} goes on from the last checkpoint"
    if is_run(run):
        return f"there is no checkpoint yet, so the same command with {option('resume', True)} begins anew"
    return "training had not begun"


def final_checkpoint(run: Path) -> Checkpoint:
    """The checkpoint to build a model from: the best on the validation records, or the latest if there is no best.

    Raises `InputError` where `run` is not a run or has no checkpoint yet.
    """
    while True:
        folders = _folders(run, "best") or _folders(run, "step")
        if not folders:
            raise InputError(
                f"{run} holds no checkpoint yet; topgb train writes the first after an epoch or some minutes"
            )
        try:
            return _load(folders[-1])
        except InputError:
            # A training that goes on may have replaced it by a newer one.
            if folders[-1].is_dir():
                raise


def _folders(run: Path, kind: str) -> list[Path]:
    return sorted((run / "checkpoints").glob(f"{kind}-*"))


def _remove_old(run: Path, kind: str) -> None:
    for old in _folders(run, kind)[: -KEPT[kind]]:
        _remove(old)


def _remove(folder: Path) -> None:
    # Rename before deleting: a kill in between must not leave a half-deleted checkpoint under its name.
    doomed = folder.with_name(f".{folder.name}.removed.partial")
    os.rename(folder, doomed)
    shutil.rmtree(doomed)


def _load(folder: Path) -> Checkpoint:
    ema = folder / "ema.safetensors"
    try:
        progress = read_json(folder / "progress.json")
        return Checkpoint(
            weights=load_tensors(folder / "weights.safetensors")[0],
            optimizer=load_tensors(folder / "optimizer.safetensors")[0],
            ema=load_tensors(ema)[0] if ema.exists() else None,
            progress={key: progress[key] for key in PROGRESS_KEYS},
        )
    except (OSError, ValueError, KeyError, TypeError, InputError) as error:
        raise InputError(f"the checkpoint {folder} is not readable ({error}); {_without(folder)}") from None


def _without(folder: Path) -> str:
    """How to go on without the checkpoint in `folder`, in words."""
    run, kind = folder.parent.parent, folder.name.partition("-")[0]
    steps = [other for other in _folders(run, "step") if other != folder]
    if kind == "best" and steps:
        return "remove it to take the latest one instead"
    return "remove it to go on from the one before" if steps else "no other is there, so train anew"
