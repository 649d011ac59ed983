"""The packers on any bytes: NumPy files, archives of them, Parquet tables, CSVs of labels."""

import io
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fuzz.choices import Choices
from fuzz.refusals import unless_refused
from topgb.packing.arrays import read_arrays
from topgb.packing.labels import read_labels
from topgb.packing.parquet import count_rows, read_rows
from topgb.packing.video import RawVideo

MODES = ["npy", "npz", "members", "parquet", "labels", "header"]
_SUFFIXES = {"npy": ".npy", "npz": ".npz", "members": ".npz", "parquet": ".parquet", "labels": ".csv", "header": ".npy"}


class Target:
    """`run` reads a file of the given bytes, which lies in `folder`, as what its first byte says."""

    tokens = (
        b"\x93NUMPY\1\0",
        b"\x93NUMPY\2\0",
        b"'descr': '<f4'",
        b"'shape': (",
        b"fortran_order",
        b"PK\3\4",
        b"PAR1",
    )

    def __init__(self, folder: Path):
        self._folder = folder

    def run(self, data: bytes) -> None:
        choices = Choices(data)
        mode = choices.pick(MODES)
        path = self._folder / f"fuzzed{_SUFFIXES[mode]}"
        if mode == "members":
            content = _archive(choices)
        elif mode == "header":
            header = choices.blob()
            content = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + choices.rest()
        else:
            content = choices.rest()
        path.write_bytes(content)
        # The archive's own reader warns of names that stand there twice, NumPy's of old headers.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._read(mode, path)

    def _read(self, mode: str, path: Path) -> None:
        if mode == "labels":
            unless_refused(lambda: read_labels(path), path)
        elif mode == "parquet":
            rows = unless_refused(lambda: count_rows(str(path)), path)
            videos = unless_refused(lambda: list(read_rows(str(path))), path)
            assert videos is None or len(videos) == rows
            for video in videos or []:
                _check(video)
        else:
            video = unless_refused(lambda: read_arrays(str(path), "rgb"), path)
            if video is not None:
                _check(video)

    def seeds(self) -> list[bytes]:
        """Sound files of every mode."""
        frames, vector = np.arange(12, dtype=np.float32).reshape(3, 4), np.arange(3, dtype=np.uint8)
        arrays = [_npy(value) for value in (frames, frames.astype(">f8"), np.asfortranarray(frames), vector)]
        packed = [io.BytesIO(), io.BytesIO()]
        np.savez(packed[0], rgb=frames, audio=frames[:, :2])
        np.savez_compressed(packed[1], rgb=vector)
        tables = [{"id": ["a", "b"], "labels": [["x"], ["y", "z"]], "rgb": [[[1.0, 2.0]], [[3.0, 4.0]]]}]
        tables.append({"id": [1, 2], "labels": ["x;y", "z"], "mean": [[1.0], [2.0]]})
        members = b"".join(b"\2rg\1" + len(array).to_bytes(2, "little") + array for array in arrays[:2])
        return [
            *(b"\0" + array for array in arrays),
            *(b"\1" + archive.getvalue() for archive in packed),
            b"\2\2" + members,
            *(b"\3" + _parquet(table, codec) for table in tables for codec in ("none", "snappy", "gzip")),
            *(
                b"\4" + text
                for text in (b"id,labels\na,x;y\nb,\n", b'id,labels\r\n"a","x, y"\r\n', b"\xef\xbb\xbfid;labels\n")
            ),
            b"\5\x44{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }         \n" + frames[:1].tobytes(),
        ]


def _archive(choices: Choices) -> bytes:
    """A sound .npz of members of any bytes, each deflated or not."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")
        for _ in range(choices.number() % 4):
            name, method = (
                choices.blob().decode("latin-1"),
                (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[choices.number() % 2],
            )
            archive.writestr(zipfile.ZipInfo(name or "x"), choices.take(choices.number(2)), method)
    return file.getvalue()


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _parquet(columns: dict, codec: str) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, compression=codec)
    return file.getvalue()


def _check(video: RawVideo) -> None:
    for values in video.features.values():
        assert values.dtype in (np.uint8, np.float32)
        assert values.ndim == (2 if video.level == "frame" else 1)
        assert values.size
        assert np.isfinite(values).all()
