"""What errors advise is true where it is given: no remedy that does nothing, no cause that is not there."""

import re
from pathlib import Path

import pytest

from cli.program import topgb
from combining.small_models import model_file
from topgb.training.curves import diverged


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
    assert (done.returncode, done.stderr) == (2, f"topgb: there is no file {tmp_path}/nosuch\n")


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
