"""A full disk and a read-only one: one sentence, nothing half-written, and with room it goes on."""

import shutil

import pytest

from faults.commands import LONG, NAMES, final_files, spare, succeeded
from faults.disks import disk_of
from faults.programs import one_line
from faults.whole import check_whole, leftovers

SIZE = 256 << 20


@pytest.fixture
def disk(tmp_path):
    with disk_of(tmp_path / "disk", SIZE) as disk:
        yield disk


@pytest.mark.parametrize("name", NAMES)
def test_full(name, dose, few, inputs, zygote, undisturbed, disk):
    """Full at several moments: from the first byte on, and nearly at the end."""
    spare(name, dose, but=(*LONG, "pack"))
    case = inputs.case(name)
    wanted, _ = undisturbed(case)
    need = sum(map(len, wanted.values()))
    out = disk.folder / "out"
    for part in range(few):
        out.mkdir()
        disk.leave(need * part // few)
        ended = zygote.start(case.arguments(out)).wait()
        said = _failure(ended, name)
        assert "No space left on device" in said, said
        check_whole(out, inputs.sums(wanted) if name == "download" else None)
        assert name == "download" or leftovers(out) == []
        disk.empty()
        succeeded(zygote.start(case.again(out)).wait())
        assert final_files(out) == wanted
        assert leftovers(out) == []
        shutil.rmtree(out)


@pytest.mark.parametrize("name", ["predict", "quantize"])
def test_what_was_there_before_is_unchanged(name, inputs, zygote, undisturbed, disk):
    case = inputs.case(name)
    ((path, content),) = undisturbed(case)[0].items()
    (disk.folder / path).write_bytes(content[:1000])
    disk.leave(len(content) // 2)
    said = _failure(zygote.start([*case.arguments(disk.folder), "--force"]).wait(), name)
    assert said.endswith("No space left on device; what was there before is unchanged")
    assert (disk.folder / path).read_bytes() == content[:1000]


@pytest.mark.parametrize("name", NAMES)
def test_read_only(name, inputs, zygote, disk):
    disk.read_only()
    said = _failure(zygote.start(inputs.case(name).arguments(disk.folder)).wait(), name)
    assert "Read-only file system" in said
    assert list(disk.folder.iterdir()) == []


def _failure(ended, name):
    assert ended.code == 1, ended.err
    if name == "download":
        # Files that fail are listed first.
        assert "Traceback" not in ended.err
        return ended.err.splitlines()[-1]
    return one_line(ended)


@pytest.mark.parametrize("to", ["pt2", "onnx"])
def test_an_export(to, inputs, zygote, disk):
    """PyTorch's own writer would abort."""
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    disk.leave(64 << 10)
    arguments = ["model", "export", str(inputs.model), "--to", to, "--out", str(disk.folder / f"model.{to}")]
    said = _failure(zygote.start(arguments).wait(), "export")
    assert "No space left on device" in said
    disk.empty()
    assert list(disk.folder.iterdir()) == []
