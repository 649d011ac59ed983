"""What packed layers take in memory."""

import subprocess
import sys

import pytest

from modelfile.packed_files import CLASSES, SCHEMES, write_file
from topgb.quantizing.schemes import Scheme

MEASURE = """
import sys
import topgb, numpy
from pathlib import Path

def resident():
    # Pages of files among them.
    return 1024 * int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])

topgb.load(sys.argv[1])
before = resident()
model = topgb.load(sys.argv[2])
model.predict(numpy.zeros((1, 1, 300), numpy.float32))
assert "sympy" not in sys.modules, "loading imports PyTorch's compiler, 75 MB"
print((resident() - before) / Path(sys.argv[2]).stat().st_size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["int8", "int8_zlib", "uniform codebook", "quantile codebook"])
def test_no_second_copy_of_a_layer_stays_in_memory(kind, tmp_path):
    small, large = tmp_path / "small.safetensors", tmp_path / "large.safetensors"
    scheme = (SCHEMES | {"int8_zlib": Scheme("entropy", step=1e-3), "quantile codebook": Scheme("quantile")})[kind]
    write_file(small, scheme)
    write_file(large, scheme, head={"name": "mlp", "width": 50_000})
    run = subprocess.run([sys.executable, "-c", MEASURE, small, large], capture_output=True, text=True, check=True)
    # A byte a weight, which is more than entropy coding needs, and what PyTorch takes.
    bytes_a_weight = large.stat().st_size / (50_000 * (300 + CLASSES))
    assert float(run.stdout) * bytes_a_weight < 1.5, run.stdout
