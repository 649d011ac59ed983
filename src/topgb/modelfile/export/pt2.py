"""The exported graph as a file of plain PyTorch."""

from pathlib import Path

import torch

from topgb.files import atomic_write
from topgb.modelfile.header import METADATA_KEY, Header


def save_pt2(
    program: torch.export.ExportedProgram, header: Header, description: str, out: Path, force: bool
) -> list[Path]:
    """Write `program` for `torch.export.load`, `description` as its extra file `topgb`; return the files written."""
    with atomic_write(out) as file:
        # Pass the open file: given a path, the archive would contain the partial file's name.
        torch.export.save(program, file, extra_files={METADATA_KEY: description})
    return [out]
