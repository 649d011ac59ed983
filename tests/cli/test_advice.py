"""What errors advise is true where it is given: no remedy that does nothing, no cause that is not there."""

import re
from pathlib import Path

import pytest
import typer

import topgb as package
from cli.program import topgb
from combining.small_models import model_file
from topgb.cli.main import app
from topgb.training.curves import diverged

SOURCE = Path(package.__file__).parent
FETCH_ANEW = re.compile(
    r"(?:get|copy|download|copy or \w+) (?:it|them|the \w+) again|replace the file|(?:run|model) is broken"
)
# Where that helps: the file is shorter than it should be, or does not match its checksum.
DAMAGED_ON_ITS_WAY = {
    "errors.py": 1,
    "tensors.py": 1,
    "from2018/checkpoint.py": 2,
    "from2018/sstable.py": 1,
    "packing/arrays.py": 2,
    "file_kinds.py": 3,
    "video/extract.py": 1,
}


@pytest.mark.parametrize(
    ("setting", "meant"),
    [
        ("model.netvlad_cluster_size=64", "clusters"),
        ("model.netvlad_hidden_size=64", "hidden"),
        ("model.clutsers=64", "clusters"),
        ("training.epoch=3", "epochs"),
        ("optimizer.base_learning_rate=0.1", "learning_rate"),
    ],
)
def test_a_key_that_is_nearly_known_is_asked_about(setting, meant, small_recipe, small_records, tmp_path):
    done = topgb("train", small_recipe, "--data", small_records["train"], "--out", tmp_path / "run", "--set", setting)
    assert done.returncode == 2
    assert f"unknown key '{setting.split('=')[0]}'; did you mean '{meant}'? " in done.stderr


def test_a_key_like_no_other_has_no_question(small_recipe, small_records, tmp_path):
    done = topgb("train", small_recipe, "--data", small_records["train"], "--out", tmp_path / "run", "--set", "x.y=1")
    assert "did you mean" not in done.stderr


@pytest.mark.parametrize("options", [[], ["--use-ema"], ["--no-use-ema"]])
@pytest.mark.parametrize("command", ["eval", "predict"])
def test_a_model_that_is_not_there_is_not_there(command, options, small_records, tmp_path):
    out = ["--out", tmp_path / "out"] if command == "predict" else []
    done = topgb(command, tmp_path / "nosuch", small_records["validate"], *out, *options)
    assert (done.returncode, done.stderr) == (2, f"topgb: there is no file {tmp_path}/nosuch; check the path\n")


def test_what_a_diverged_run_keeps_is_said_only_where_it_is_kept(tmp_path):
    assert "kept" not in str(diverged(5, tmp_path))
    for step in (3, 8):
        (tmp_path / f"checkpoints/step-{step:010d}").mkdir(parents=True)
    assert str(diverged(9, tmp_path)).endswith(f"is kept in {tmp_path}/checkpoints/step-0000000008")


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "is not a safetensors file"), (b"id,labels\n", "is not a safetensors file")]
)
def test_a_file_that_is_no_model_is_not_to_be_fetched_again(content, said, tmp_path):
    (tmp_path / "m.safetensors").write_bytes(content)
    done = topgb("model", "show", tmp_path / "m.safetensors")
    assert done.returncode == 2
    assert said in done.stderr
    assert "again" not in done.stderr


def test_a_model_file_that_is_cut_off_is(tmp_path):
    path = model_file(tmp_path / "m.safetensors")
    path.write_bytes(path.read_bytes()[:-10])
    assert "is cut off" in topgb("model", "show", path).stderr


def test_extras_are_installed_from_the_checkout():
    root = Path(__file__).resolve().parents[2]
    for path in (*root.glob("src/topgb/**/*.py"), *root.glob("docs/*.md"), root / "README.md"):
        assert not re.search(r"pip install '?topgb", path.read_text(encoding="utf-8")), path


def test_another_copy_is_advised_only_where_the_file_was_damaged_on_its_way():
    found = {}
    for path in SOURCE.rglob("*.py"):
        count = len(FETCH_ANEW.findall(path.read_text()))
        if count:
            found[path.relative_to(SOURCE).as_posix()] = count
    assert found == DAMAGED_ON_ITS_WAY


def test_every_command_that_stops_at_a_damaged_record_can_skip_it():
    # Damaged records are answered with this option, wherever they are met.
    command = typer.main.get_command(app)
    context = command.make_context("topgb", ["--"], resilient_parsing=True)
    groups = {"model": {"quantize", "shrink", "ensemble", "remember", "rerank"}, "data": {"drop-fakes"}}
    groups |= {"submission": {"check"}, "": {"train", "distill", "eval", "compare", "predict"}}
    for group, names in groups.items():
        parent = command.get_command(context, group) if group else command
        for name in names:
            options = {flag for each in parent.get_command(context, name).params for flag in each.opts}
            assert "--on-damaged" in options, f"{group} {name}"
    # A model that tags is opened for no records.
    openers = [path for path in (SOURCE / "cli").rglob("*.py") if re.search("open_for|rerank as", path.read_text())]
    openers = [path for path in openers if path.name != "tag.py"]
    assert len(openers) > 5
    assert all("OnDamagedOption" in path.read_text() for path in openers)


def test_a_checkpoint_that_is_gone_is_named_with_what_is_left(tmp_path):
    from topgb.training.checkpoint import _without

    folders = [tmp_path / "checkpoints" / name for name in ("step-3", "step-5", "best-3")]
    folders[1].mkdir(parents=True)
    assert _without(folders[1]) == "no other is there, so train anew"
    folders[0].mkdir()
    assert _without(folders[1]) == "remove it to go on from the one before"
    assert _without(folders[2]) == "remove it to take the latest one instead"
