"""The tensors of a model file, each large one in a mapping of its own."""

import os
from collections.abc import Iterator, Mapping

import torch
from safetensors import SafetensorError, safe_open

from topgb.errors import InputError, printable

# Smaller tensors are not worth opening the file once more.
LEAST_BYTES = 1 << 20


class MappedApart(Mapping[str, torch.Tensor]):
    """The tensors `stored`, as `read_model_file(path)` gave them; of a large one each look-up maps the file anew.

    Pages of a mapped file count as this process's memory from the first look at them until the mapping's last tensor is
    gone, so what is only decoded leaves nothing behind. Raises `InputError` where the file is not the same any more.
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
