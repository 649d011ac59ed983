"""HDF5 files of any bytes: the packer reads their features, or refuses them; HDF5's own library parses them."""

import io
from pathlib import Path

import h5py
import numpy as np

from fuzz.refusals import unless_refused
from topgb.packing.source import Reading, find_source


class Target:
    """`run` reads a file of the given bytes, which lies in `folder`; each of its videos must be sound."""

    tokens = (b"\x89HDF\r\n\x1a\n", b"TREE", b"HEAP", b"SNOD", b"OHDR", b"OCHK", b"GCOL")

    def __init__(self, folder: Path):
        self._path = folder / "fuzzed.h5"

    def run(self, data: bytes) -> None:
        self._path.write_bytes(data)
        for video in unless_refused(lambda: list(find_source(str(self._path), Reading())), self._path) or ():
            for values in video.features.values():
                assert values.dtype in (np.uint8, np.float32)
                assert values.ndim == (2 if video.level == "frame" else 1)
                assert values.size
                assert np.isfinite(values).all()

    def seeds(self) -> list[bytes]:
        """Files of groups and of arrays, packed and not, in the oldest and the newest form."""
        frames = np.arange(12, dtype=np.float32).reshape(3, 4)
        return [
            _file({"v0": frames, "v1": frames[:2]}, "earliest"),
            _file({"a/x": frames, "b/x": frames.astype(np.float16)}, "latest"),
            _file({"a/x": frames.astype(np.uint8), "b/x": frames.astype(np.uint8)}, "earliest", chunks=(2, 4)),
            _file({"a/b/x": frames.astype(">f8")}, "latest", compression="gzip", shuffle=True, fletcher32=True),
            _file({"a/x": frames[0], "b/x": frames[1]}, "earliest", compression="lzf"),
        ]


def _file(arrays: dict[str, np.ndarray], version: str, **settings) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w", libver=version) as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, **settings)
    return content.getvalue()
