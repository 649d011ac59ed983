"""The memory that packing takes as a whole, in a process of its own: what one video's values take, some times over."""

import sys
import zipfile
from pathlib import Path
from subprocess import run

import numpy as np
import pytest

# Linux alone says how much memory a process took at most since it began.
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says a process's peak")
MB = 1 << 20
VALUES = 64 * MB
# A video's values are in memory as they are read, as messages of frames, and as the record; the first video's stay, so
# that others are compared with them. Arrow has four bytes of levels beside each value, and buffers that grow by
# doubling. An allocator's share comes on top.
_BESIDES = 48 * MB
_PROGRAM = """
import re, sys
from pathlib import Path
from topgb.packing.pack import pack
for source, labels in ((sys.argv[1], sys.argv[3]), (sys.argv[2], sys.argv[3])):
    pack(source, Path(source + ".out"), Path(labels) if labels and not source.endswith("parquet") else None)
    print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10)
"""


def _npz(path: Path, values: int) -> Path:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({values // 4096}, 4096), }}".ljust(117) + "\n"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w") as member,
    ):
        member.write(b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header.encode())
        for _ in range(values // MB):
            member.write(bytes(MB))
    return path


def _parquet(path: Path, values: int) -> Path:
    pa = pytest.importorskip("pyarrow", reason="pyarrow (the extra topgb[parquet]) is absent")
    import pyarrow.parquet as pq

    ends = np.array([0, values // 4], np.int32)
    column = pa.ListArray.from_arrays(ends, pa.array(np.zeros(values // 4, np.float32)))
    pq.write_table(pa.table({"id": ["v"], "a": column, "labels": [["cat"]]}), path)
    return path


@pytest.mark.parametrize(("make", "times"), [(_npz, 4), (_parquet, 7)])
def test_packing_zeros(make, times, tmp_path):
    """A small file of the same kind is packed first, so that what Python and its libraries take is known."""
    suffix = ".npz" if make is _npz else ".parquet"
    sources = [make(tmp_path / f"{name}{suffix}", size) for name, size in (("small", MB), ("large", VALUES))]
    (tmp_path / "labels.csv").write_text("id,labels\nsmall,cat\nlarge,cat\n")
    done = run(
        [sys.executable, "-c", _PROGRAM, *map(str, sources), str(tmp_path / "labels.csv")],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    before, peak = map(int, done.stdout.split())
    assert peak - before < times * VALUES + _BESIDES
    assert all(source.stat().st_size < MB for source in sources)
