"""The exported graph as a file of plain PyTorch."""

import io
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from topgb.files import atomic_write
from topgb.modelfile.header import METADATA_KEY, Header


class _KeptError(io.RawIOBase):
    """A file whose writes never raise, as PyTorch's writer in C++ would end the process. `error` is the first one."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        # PyTorch rewinds the file at the end, for callers that read it.
        return offset


def save_pt2(
    program: torch.export.ExportedProgram, header: Header, description: str, out: Path, force: bool
) -> list[Path]:
    """Write `program` for `torch.export.load`, `description` as its extra file `topgb`; return the files written."""
    with atomic_write(out) as file:
        # Pass the open file: given a path, the archive would contain the partial file's name.
        kept = _KeptError(file)
        torch.export.save(program, cast(BinaryIO, kept), extra_files={METADATA_KEY: description})
        if kept.error is not None:
            raise kept.error
    return [out]
