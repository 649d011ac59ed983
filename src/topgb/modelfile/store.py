"""Model files on disk: header and tensors in, one safetensors file out, and back."""

import os
from pathlib import Path

import torch

from topgb.errors import InputError
from topgb.files import refuse_existing
from topgb.modelfile.encodings import part_names
from topgb.modelfile.header import METADATA_KEY, Header
from topgb.tensors import load_tensors, save_tensors


def write_model_file(path: Path, header: Header, tensors: dict[str, torch.Tensor], force: bool = False) -> None:
    """Write a model file; the same header and tensors give the same bytes.

    Raises `InputError` where `path` exists and `force` is off, `TopgbError` where it cannot be written.
    """
    refuse_existing(path, force)
    save_tensors(path, tensors, {METADATA_KEY: header.dumps()})


def read_model_file(path: str | os.PathLike) -> tuple[Header, dict[str, torch.Tensor]]:
    """Header and stored tensors of a model file; the tensors are mapped from the file, not copied.

    Raises `InputError` in one sentence where the file is missing, truncated, not a model file or inconsistent.
    """
    tensors, metadata = load_tensors(path)
    if METADATA_KEY not in metadata:
        raise InputError(f"{path} is a safetensors file but not a topgb model file (its metadata has no 'topgb')")
    header = Header.loads(metadata[METADATA_KEY], str(path))
    try:
        parts = {part for name, entry in header.tensors.items() for part in part_names(name, entry)}
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    missing, surplus = parts - tensors.keys(), tensors.keys() - parts
    if missing or surplus:
        raise InputError(
            f"{path}: header and tensors disagree (missing: {sorted(missing)[:3]}, surplus: {sorted(surplus)[:3]}); "
            "get the file again"
        )
    return header, tensors
