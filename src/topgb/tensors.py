"""Tensors in safetensors files, written whole or not at all, and mapped when they are read; and the check of values."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from topgb.checksums import masked_crc
from topgb.errors import InputError, printable
from topgb.files import atomic_write, open_input, refuse_special

# Kernels want rows of int8 to begin at multiples of this many bytes.
ALIGNMENT = 16
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def all_finite(values: torch.Tensor) -> bool:
    """Whether no value is infinite or not a number."""
    # One such value makes the sum one, too, and to add is thirty times as fast as PyTorch's isfinite. A sum may also
    # overflow.
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file beside `path` and rename it; the same tensors give the same bytes."""
    with atomic_write(path) as file:
        for part in file_parts(tensors, metadata):
            file.write(part)


def file_parts(
    tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a safetensors file, part by part.

    int8 tensors come first, so that their rows begin at multiples of 16 bytes and kernels can use them as they are
    mapped. The library's own writer orders tensors by other rules.
    """
    ordered = sorted(tensors.items(), key=lambda item: (item[1].dtype != torch.int8, -item[1].itemsize, item[0]))
    entries: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.nbytes
        entries[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    yield len(text).to_bytes(8, "little") + text
    for _, tensor in ordered:
        yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _no_tensors(path: str | os.PathLike, reason: str) -> str:
    """Why a file that safetensors refuses for `reason` is no model file, and what to do."""
    from topgb.file_kinds import instead

    with open_input(path) as file:
        head = file.read(12)
    if len(head) == 12 and masked_crc(head[:8]) == int.from_bytes(head[8:], "little"):
        return (
            f"{path} holds records, where a model file is wanted; put a glob of records in quotes, so that the shell "
            "does not make many arguments of it"
        )
    if head[8:9] == b"{" and ("incomplete" in reason or "invalid header length" in reason):
        return f"{path} is cut off ({reason}); copy or download it again, or use another file"
    if said := instead(os.fspath(path), "name a model file that topgb has written"):
        return f"{path} is not a safetensors file: {said}"
    if head and head.isascii() and head.decode().isprintable():
        begins = f"it begins with {head.decode()!r}"
        return f"{path} is not a safetensors file: {begins}; name a model file that topgb has written"
    return f"{path} is not a safetensors file, or is damaged ({reason}); name a model file that topgb has written"


def load_tensors(path: str | os.PathLike) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors (mapped) and metadata of a safetensors file. Raises `InputError` if it cannot be read."""
    if Path(path).is_dir():
        raise InputError(f"{path} is a directory; name a model file in it")
    refuse_special(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        # safetensors says so of a file that may not be read, too.
        if Path(path).exists():
            raise InputError(f"cannot read {path}; check its permissions") from None
        raise InputError(f"there is no file {path}; check the path") from None
    except SafetensorError as error:
        raise InputError(_no_tensors(path, printable(str(error)))) from None
    except (TypeError, ValueError, RuntimeError):
        # An empty tensor may have dimensions beyond 64 bits in the file, but not in PyTorch.
        raise InputError(f"{path} has a tensor of an impossible shape; name another file") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
