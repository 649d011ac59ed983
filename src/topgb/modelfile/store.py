"""Read and write model files: a header and tensors in one safetensors file."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from topgb.errors import InputError, printable
from topgb.files import file_sha256, refuse_existing
from topgb.modelfile.encodings import part_names
from topgb.modelfile.header import CHANGED, METADATA_KEY, Header
from topgb.tensors import file_parts, load_tensors, save_tensors

# The file is not opened again for tensors of fewer bytes.
LEAST_BYTES = 1 << 20


@dataclass(frozen=True)
class StoredModel:
    """A model as stored: its header, and its tensors by name, encoded as the header says.

    `path` is the source: a model file, or the folder of a run that has only checkpoints so far.
    """

    path: Path
    header: Header
    tensors: Mapping[str, torch.Tensor]

    @cached_property
    def sha256(self) -> str:
        """SHA-256, hexadecimal, of the model file; for a run's checkpoint, of the file that topgb build would write."""
        # A file that has been removed meanwhile is an error; only a run's folder has no file to hash.
        if not self.path.is_dir():
            return file_sha256(self.path)
        digest = sha256()
        for part in self._file_parts():
            digest.update(part)
        return digest.hexdigest()

    @cached_property
    def file_bytes(self) -> int:
        """Bytes of the model file; for a run's checkpoint, of the file that topgb build would write."""
        return sum(len(part) for part in self._file_parts()) if self.path.is_dir() else self.path.stat().st_size

    def _file_parts(self) -> Iterator[bytes | memoryview]:
        return file_parts(self.tensors, {METADATA_KEY: self.header.dumps()})


def stored_model(model: str | os.PathLike | StoredModel) -> StoredModel:
    """The stored model at the path `model`; a `StoredModel` is returned as it is. Raises as `read_model_file` does."""
    return model if isinstance(model, StoredModel) else StoredModel(Path(model), *read_model_file(model))


def write_model_file(path: Path, header: Header, tensors: Mapping[str, torch.Tensor], force: bool = False) -> None:
    """Write a model file; the same header and tensors give the same bytes.

    Raises `InputError` where `path` exists and `force` is off, `TopgbError` where it cannot be written.
    """
    refuse_existing(path, force, "a model")
    save_tensors(path, tensors, {METADATA_KEY: header.dumps()})


def read_model_file(path: str | os.PathLike) -> tuple[Header, dict[str, torch.Tensor]]:
    """Header and stored tensors of a model file; the tensors are mapped from the file, not copied.

    Raises `InputError` in one sentence where the file is missing, truncated, not a model file or inconsistent.
    """
    tensors, metadata = load_tensors(path)
    if METADATA_KEY not in metadata:
        raise InputError(
            f"{path} is a safetensors file but not a topgb model file (its metadata has no 'topgb'); name one that "
            "topgb has written"
        )
    header = Header.loads(metadata[METADATA_KEY], str(path))
    try:
        parts = {part for name, entry in header.tensors.items() for part in part_names(name, entry)}
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    missing, surplus = parts - tensors.keys(), tensors.keys() - parts
    if missing or surplus:
        raise InputError(
            f"{path}: header and tensors disagree (missing: {sorted(missing)[:3]}, surplus: {sorted(surplus)[:3]}); "
            f"{CHANGED}"
        )
    return header, tensors


class MappedApart(Mapping[str, torch.Tensor]):
    """The tensors `stored` that `read_model_file(path)` returned; each look-up of a large tensor maps the file anew.

    Pages of a mapped file count as this process's memory from the first access until the mapping's last tensor is
    freed. A mapping per look-up thus frees the pages of a tensor once it is decoded. Raises `InputError` where the file
    can no longer be read.
    """

    def __init__(self, path: str | os.PathLike, stored: dict[str, torch.Tensor]):
        self._path, self._stored = path, stored

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor = self._stored[name]
        if tensor.nbytes < LEAST_BYTES:
            return tensor
        try:
            with safe_open(self._path, framework="pt") as file:
                return file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise InputError(f"the file changed while it was read ({printable(str(error))}); load it again") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)
