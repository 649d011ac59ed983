"""Model files on disk: header and tensors in, one safetensors file out, and back."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from topgb.errors import InputError
from topgb.files import atomic_write, refuse_existing
from topgb.modelfile.encodings import part_names
from topgb.modelfile.header import METADATA_KEY, Header

# Where kernels want rows of int8 to begin.
ALIGNMENT = 16
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_model_file(path: Path, header: Header, tensors: dict[str, torch.Tensor], force: bool = False) -> None:
    """Write a model file; the same header and tensors give the same bytes.

    Raises `InputError` where `path` exists and `force` is off, `TopgbError` where it cannot be written.
    """
    refuse_existing(path, force)
    save_tensors(path, tensors, {METADATA_KEY: header.dumps()})


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file beside `path` and rename it; the same tensors give the same bytes.

    int8 comes first and its rows begin at multiples of 16 bytes, where kernels can use them as they are mapped: the
    library's own writer has other ideas of what goes where.
    """
    ordered = sorted(tensors.items(), key=lambda item: (item[1].dtype != torch.int8, -item[1].itemsize, item[0]))
    entries: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.nbytes
        entries[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    with atomic_write(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in ordered:
            file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


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


def load_tensors(path: str | os.PathLike) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors (mapped) and metadata of a safetensors file. Raises `InputError` where it cannot be read."""
    if Path(path).is_dir():
        raise InputError(f"{path} is a directory; name a model file in it")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except SafetensorError as error:
        raise InputError(f"{path} is truncated or not a safetensors file ({error}); get it again") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def file_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file in hexadecimal: how a model file names its parents."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
