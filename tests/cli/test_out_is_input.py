"""A file that a command reads is never what it writes, also with --force."""

import pytest

from cli.program import topgb
from combining.small_models import model_file
from conftest import SMALL_CLASSES, SMALL_SPEC
from topgb.records.synth import SynthOptions, write_synthetic

COMMANDS = {
    "predict": ("predict", "{model}", "{data}", "--out", "{out}", "--force"),
    "eval": ("eval", "{model}", "{data}", "--per-class", "{out}", "--force"),
    "thresholds": ("thresholds", "{model}", "{data}", "--out", "{out}", "--force"),
    "report": ("report", "{model}", "{data}", "--out", "{out}", "--force"),
}


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("name", COMMANDS)
def test_records_are_not_overwritten_by_what_is_made_of_them(tmp_path, name, link):
    (shard,) = write_synthetic(tmp_path, SMALL_SPEC, SMALL_CLASSES, 12, SynthOptions(frames=(2, 3)))
    model = model_file(tmp_path / "m.safetensors")
    out, before = shard, shard.read_bytes()
    if link:
        out = tmp_path / "link"
        out.hardlink_to(shard)
    done = topgb(*(part.format(model=model, data=shard, out=out) for part in COMMANDS[name]))
    assert done.returncode == 2, done.stdout
    assert f"{out} is read by this command" in done.stderr
    assert shard.read_bytes() == before


@pytest.mark.parametrize("name", ["predict", "eval", "report"])
def test_nor_is_the_model(tmp_path, name):
    (shard,) = write_synthetic(tmp_path, SMALL_SPEC, SMALL_CLASSES, 12, SynthOptions(frames=(2, 3)))
    model = model_file(tmp_path / "m.safetensors")
    before = model.read_bytes()
    done = topgb(*(part.format(model=model, data=shard, out=model) for part in COMMANDS[name]))
    assert done.returncode == 2
    assert "is read by this command" in done.stderr
    assert model.read_bytes() == before
