"""What memory is free: of the machine, and of the control groups this process is in. How its threads compute."""

import mmap
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from topgb.devices import computes_in_bfloat16, free_memory

CPU = torch.device("cpu")


def _system(folder: Path, groups: str, files: dict[str, str]) -> Path:
    """A machine of which 8,192,000 bytes are available, with these control groups."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/meminfo").write_text("MemTotal:       16000 kB\nMemAvailable:    8000 kB\nHugePages_Total:   0\n")
    (folder / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = folder / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def _version_2(group: str, most: str, used: int) -> dict[str, str]:
    return {
        f"{group}/memory.max": most,
        f"{group}/memory.current": f"{used}\n",
        f"{group}/memory.stat": "anon 100\nfile 700\nactive_file 200\ninactive_file 300\n",
    }


@pytest.mark.parametrize(
    ("groups", "files", "free"),
    [
        ("0::/\n", {}, 8_192_000),
        ("0::/a/b\n", _version_2("a/b", "10000\n", 4000), 10000 - 4000 + 500),
        ("0::/a/b\n", _version_2("a/b", "max\n", 4000), 8_192_000),
        ("0::/a/b\n", {**_version_2("a/b", "10000\n", 4000), **_version_2("a", "9000\n", 8000)}, 9000 - 8000 + 500),
        # In a container: the group is named as outside, its files are at the root.
        ("0::/docker/123\n", _version_2(".", "10000\n", 4000), 10000 - 4000 + 500),
        ("0::/\n", _version_2(".", "10000\n", 12000), 0),
        (
            "5:cpu,cpuacct:/a\n4:memory:/a\n0::/\n",
            {
                "memory/a/memory.limit_in_bytes": "10000\n",
                "memory/a/memory.usage_in_bytes": "4000\n",
                "memory/a/memory.stat": "cache 900\nactive_file 1\ntotal_active_file 20\ntotal_inactive_file 30\n",
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/memory.usage_in_bytes": "4000\n",
                "memory/memory.stat": "",
            },
            10000 - 4000 + 50,
        ),
    ],
)
def test_free_memory_is_the_least_of_machine_and_groups(tmp_path, groups, files, free):
    assert free_memory(CPU, _system(tmp_path, groups, files)) == free


def test_free_memory_is_not_known_everywhere(tmp_path):
    assert free_memory(torch.device("mps")) is None
    assert free_memory(CPU, tmp_path) is None


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="this is not Linux")
def test_memory_that_is_taken_is_not_free():
    before = free_memory(CPU)
    assert before is not None
    # From the system itself, as this process may keep what earlier tests freed. Others take and give memory meanwhile.
    with mmap.mmap(-1, 1 << 30) as taken:
        taken[:: mmap.PAGESIZE] = b"1" * ((1 << 30) // mmap.PAGESIZE)
        assert 0.5e9 < before - free_memory(CPU) < 3e9


def test_every_thread_takes_subnormals_for_zero():
    code = """
import torch
from topgb.devices import flush_subnormals
torch.set_num_threads(2)
flush_subnormals()
# The smallest of float16 are far from those of float32, and stay.
assert torch.full((1000,), 2.0**-24).half().float().unique().tolist() == [2.0**-24]
tiny = torch.full((1 << 22,), 1e-30)
print((tiny * 1e-10 == 0).float().mean().item(), (tiny * 1e-7 > 0).float().mean().item())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1.0", "1.0"]


BFLOAT16 = "import torch; from topgb.devices import computes_in_bfloat16 as f; print(f(torch.device('cpu')))"
# The instructions for which oneDNN, and with it PyTorch, has bfloat16 kernels.
AVX512_CORE = {"avx512bw", "avx512dq", "avx512vl"}


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="reads x86's /proc/cpuinfo")
@pytest.mark.parametrize("limit", ["AVX2", "DEFAULT"])
def test_bfloat16_is_used_where_the_processor_has_the_instructions(limit):
    flags = set(Path("/proc/cpuinfo").read_text().split("flags", 1)[1].split("\n", 1)[0].split())
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": limit}
    run = subprocess.run([sys.executable, "-c", BFLOAT16], env=environment, capture_output=True, text=True, check=True)
    expected = limit == "DEFAULT" and flags.issuperset(AVX512_CORE)
    assert run.stdout == f"{expected}\n"


def test_only_cpus_and_gpus_compute_in_bfloat16():
    assert computes_in_bfloat16(torch.device("meta")) is False
