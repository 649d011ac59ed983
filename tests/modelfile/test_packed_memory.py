"""What packed layers take in memory."""

import subprocess
import sys

import pytest

from modelfile.packed_files import CLASSES, SCHEMES, write_file
from topgb.quantizing.schemes import Scheme

KINDS = SCHEMES | {"int8_zlib": Scheme("entropy", step=1e-3), "quantile codebook": Scheme("quantile")}
MEASURED = ("int8", "int8_zlib", "uniform codebook", "quantile codebook")
WIDTH = 50_000
# Each file in a process of its own, which was forked after the imports.
MEASURE = """
import os, sys
import topgb, numpy
from pathlib import Path

def resident():
    # Pages of files among them.
    return 1024 * int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])

topgb.load(sys.argv[1])
assert "sympy" not in sys.modules, "loading imports PyTorch's compiler, 75 MB"
for path in sys.argv[2:]:
    process = os.fork()
    if process == 0:
        frames = numpy.zeros((1, 1, 300), numpy.float32)
        # A fork has none of the libraries' pages until it uses them.
        topgb.load(sys.argv[1]).predict(frames)
        before = resident()
        model = topgb.load(path)
        model.predict(frames)
        print(resident() - before, flush=True)
        os._exit(0)
    assert os.waitpid(process, 0)[1] == 0
"""


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> dict[str, int]:
    """Bytes by which a process grows when it loads a large file of each kind, and predicts."""
    folder = tmp_path_factory.mktemp("packed")
    small, large = folder / "small.safetensors", [folder / f"{kind}.safetensors" for kind in MEASURED]
    write_file(small, KINDS["int8"])
    for path, kind in zip(large, MEASURED, strict=True):
        write_file(path, KINDS[kind], head={"name": "mlp", "width": WIDTH})
    run = subprocess.run([sys.executable, "-c", MEASURE, small, *large], capture_output=True, text=True, check=True)
    return dict(zip(MEASURED, map(int, run.stdout.split()), strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", MEASURED)
def test_no_second_copy_of_a_layer_stays_in_memory(kind, grown):
    # A byte a weight, which is more than entropy coding needs, and what PyTorch takes.
    assert grown[kind] / (WIDTH * (300 + CLASSES)) < 1.5
