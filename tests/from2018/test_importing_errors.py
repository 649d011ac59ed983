"""2018 checkpoints that cannot be imported: exit code 2, one sentence, nothing written."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from from2018 import tf_bundle as bundle
from from2018.checkpoints import (
    FRAMES,
    VIDEOS,
    flags_file,
    random_tagger,
    variables,
    write_checkpoint,
    write_merged,
)
from topgb.cli import main
from topgb.modelfile import read_model_file

FLAGS = {
    "netvlad_cluster_size": 8,
    "netvlad_hidden_size": 16,
    "fv_cluster_size": 8,
    "fv_hidden_size": 16,
    "dbof_cluster_size": 16,
    "dbof_hidden_size": 16,
    "lstm_cells": 16,
}
Program = Callable[..., tuple[int, str, str]]


@pytest.fixture
def topgb(capsys, monkeypatch) -> Program:
    """The program in this process: exit code, standard output, standard error."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["topgb", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main.run()
        return int(end.value.code or 0), *capsys.readouterr()

    return call


def _checkpoint(folder: Path, model: str = "NetVLADModelLF", **more) -> Path:
    spec = VIDEOS if model == "MoeModel" else FRAMES
    values = variables(random_tagger(model, FLAGS, spec))
    return write_checkpoint(folder / "model.ckpt-31", values, flags_file(model, spec), **more)


def _assert_refused(topgb: Program, prefix: Path, words: str, *arguments: str) -> None:
    before = _contents(prefix.parent)
    out = prefix.parent / "m.safetensors"
    code, stdout, stderr = topgb("model", "import-tf", prefix, "--out", out, *arguments)
    assert (code, stdout) == (2, ""), stderr
    assert words in stderr
    # One sentence, printed as one line.
    assert stderr.startswith("topgb: ")
    assert stderr.count("\n") == 1
    assert _contents(prefix.parent) == before


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def test_an_import_from_the_command_line(topgb, tmp_path):
    prefix = _checkpoint(tmp_path)
    out = tmp_path / "m.safetensors"
    code, stdout, stderr = topgb("model", "import-tf", prefix, "--out", out)
    assert (code, stdout, stderr) == (0, f"{out}: netvlad with moe, 25 classes\n", "")
    assert topgb("model", "show", out)[0] == 0


def test_no_checkpoint(topgb, tmp_path):
    _assert_refused(topgb, tmp_path / "model.ckpt-31", "there is no checkpoint")


def test_existing_output_is_refused_before_anything_is_read(topgb, tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"precious")
    _assert_refused(topgb, tmp_path / "no.ckpt", "m.safetensors exists already")
    prefix = _checkpoint(tmp_path)
    _assert_refused(topgb, prefix, "--force")
    assert topgb("model", "import-tf", prefix, "--out", tmp_path / "m.safetensors", "--force")[0] == 0
    assert len(read_model_file(tmp_path / "m.safetensors")[1]) > 20


def test_no_class_is_named(topgb, tmp_path):
    prefix = write_checkpoint(tmp_path / "m", {"conv1/weights": np.ones((3, 3), np.float32)})
    words = "model_flags.json names no model, nor do the variables show one; give its 2018 class: --set model=NetVLAD"
    _assert_refused(topgb, prefix, words)
    _assert_refused(topgb, prefix, "names no model", "--set", "model=3")


def test_a_class_that_variables_do_not_tell(topgb, tmp_path):
    prefix = write_checkpoint(tmp_path / "m", variables(random_tagger("FrameLevelLogisticModel", {})))
    _assert_refused(topgb, prefix, "could be of LogisticModel or FrameLevelLogisticModel; say --set model=…")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not readable JSON"),
        (b"\xff", "not readable JSON"),
        (b"[" * 100_000, "not readable JSON"),
        (b"[1]", "not a JSON object of flags"),
        (b'{"model": 3}', "names no model"),
        (b'{"model": "NetVLADModelLF", "label_loss": NaN}', "is not readable JSON"),
        (
            b'{"model": "NetVLADModelLF", "frame_features": "yes"}',
            "'frame_features' is 'yes'; it must be true or false",
        ),
        (b'{"model": "NetVLADModelLF", "frame_features": false}', "this class takes frames"),
        (b'{"model": "MoeModel", "frame_features": true}', "this class takes one vector per video"),
        (b'{"model": "NetVLADModelLF", "feature_names": ["rgb", "audio"]}', "'feature_names' is ['rgb', 'audio']"),
        (b'{"model": "NetVLADModelLF", "batch_size": 80}', "no 2018 flag 'batch_size' of models"),
        (b'{"model": "NetVLADModelLF", "iterations": Infinity}', "is not readable JSON"),
    ],
    ids=lambda value: value[:60].decode(errors="replace") if isinstance(value, bytes) else "",
)
def test_a_damaged_flags_file(content, words, topgb, tmp_path):
    prefix = _checkpoint(tmp_path)
    (tmp_path / "model_flags.json").write_bytes(content)
    _assert_refused(topgb, prefix, words)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("model=NetVlad", "as NetVlad: there is no 2018 model of this name here; there are: DbofModel"),
        ("model=LstmModel", "as LstmModel: the variable 'rnn/multi_rnn_cell/cell_0/basic_lstm_cell/bias' is missing"),
        ("model=FrameLevelLogisticModel", "'fully_connected/weights' is missing"),
        ("gatign=true", "there is no 2018 flag 'gatign' of models here"),
        ("batch_size=3", "there is no 2018 flag 'batch_size' of models here"),
        ("dbof_relu=3", "the 2018 flag 'dbof_relu' is 3; it must be true or false"),
        ("lstm_layers=x", "the 2018 flag 'lstm_layers' is 'x'; it must be a whole number"),
        ("lstm_layers=true", "the 2018 flag 'lstm_layers' is True; it must be a whole number"),
        ("moe_num_mixtures=1.5", "the 2018 flag 'moe_num_mixtures' is 1.5; it must be a whole number"),
        ("fv_coupling_factor=abc", "the 2018 flag 'fv_coupling_factor' is 'abc'; it must be a finite number"),
        ("moe_l2=.nan", "the 2018 flag 'moe_l2' is nan; it must be a finite number"),
        (f"moe_l2=1{'0' * 400}", "a number has 401 characters"),
        ("dbof_pooling_method=2001-01-01", "it must be a word"),
        ("moe_prob_gating_input=both", "'both'; it must be prob or input"),
        ("video_level_classifier_model=Moe", "'Moe'; it must be LogisticModel or MoeModel"),
        ("vlagd=true", "'vlagd' names a layer that the 2018 code itself lacked"),
        ("netvlad_cluster_size=1", "every feature needs at least 1"),
        ("netvlad_cluster_size=99999999999", "numbers go up to 2147483647"),
        ("netvlad_hidden_size=17", "is [116, 16], but the model needs [116, 17]"),
        ("gating=true", "the variable 'gating_weights_2' is missing"),
        ("model.clusters=x", "'model.clusters' is 'x'"),
        ("model.clutsers=3", "unknown key 'model.clutsers'"),
        ("model.hidden.size=3", "'hidden' is not a section of the model"),
        ("model.aggregator=vlad", "'vlad'"),
        ("model.features=[rgb]", "'model.clusters' names rgb, audio; the model's features are rgb"),
        ("feature_sizes=12,6", "the variable 'input_bn/gamma' is [17], but the model needs [18]"),
        (
            "feature_sizes=5,12",
            "the variable 'video_VLAD/cluster_weights2' is [1, 12, 8], but the model needs [1, 5, 8]",
        ),
        ("feature_sizes=17", "there are 2 feature_names and 1 feature_sizes"),
        ("feature_sizes=12,x", "'feature_sizes' has 'x', which is no size"),
        ("feature_sizes=12,-5", "'feature_sizes' has '-5', which is no size"),
        (f"feature_sizes='12,{'9' * 5000}'", "which is no size"),
        ("feature_sizes=12,9999999999", "must be from 1 to 2147483647"),
        ("feature_sizes=2147483647,2147483647", "but the model needs"),
        ("feature_sizes=true", "'feature_sizes' is True"),
        ("feature_names=audio,rgb", "treats rgb and audio apart, in this order, but 'feature_names' is 'audio,rgb'"),
        ("feature_names=mean_rgb,mean_audio", "'feature_names' is 'mean_rgb,mean_audio'"),
        ("feature_names=rgb,rgb", "the feature 'rgb' twice"),
        ("feature_names=rgb,", "a feature is named ''"),
        ("model", "is not KEY=VALUE"),
    ],
    ids=lambda value: value[:60],
)
def test_settings_that_do_not_fit(setting, words, topgb, tmp_path):
    _assert_refused(topgb, _checkpoint(tmp_path), words, "--set", setting)


def test_one_feature_for_a_class_of_two(topgb, tmp_path):
    arguments = ("--set", "feature_names=rgb", "--set", "feature_sizes=17")
    _assert_refused(topgb, _checkpoint(tmp_path), "'feature_names' is 'rgb'", *arguments)


def test_a_gated_bag_is_no_soft_one(topgb, tmp_path):
    prefix = _checkpoint(tmp_path, "GatedDbofModelLF")
    _assert_refused(topgb, prefix, "shows a GatedDbofModelLF", "--set", "model=SoftDbofModelLF")


def test_gates_that_the_class_has_not_here(topgb, tmp_path):
    others = {"tower/fully_connected_2/biases": np.ones(3, np.float32), "tower/gating_weights_2": np.ones((4, 4))}
    prefix = write_checkpoint(tmp_path / "m", {}, flags_file("GRUbidirect_branchedBN"), others=others)
    _assert_refused(topgb, prefix, "'gating_weights_2' shows gates")


def test_use_ema_without_moving_averages(topgb, tmp_path):
    _assert_refused(topgb, _checkpoint(tmp_path), "holds no moving averages; leave out --use-ema", "--use-ema")


@pytest.mark.parametrize("missing", ["hidden1_weights", "video_VLAD/cluster_weights2", "experts/biases"])
def test_use_ema_with_some_moving_averages(missing, topgb, tmp_path):
    """One of them is that whose absence alone would mean another architecture."""
    shadows = variables(random_tagger("NetVLADModelLF", FLAGS, seed=2))
    for name in [name for name in shadows if name.startswith(missing)]:
        del shadows[name]
    words = f"the variable '{missing}' is missing among the moving averages"
    _assert_refused(topgb, _checkpoint(tmp_path, shadows=shadows), words, "--use-ema")


def test_weights_from_the_command_line(topgb, tmp_path):
    values = [variables(random_tagger(model, FLAGS)) for model in ("LstmModel", "NetVLADModelLF")]
    prefix = write_merged(tmp_path / "m", values, flags_file("NetVLADModelLF"))
    _assert_refused(topgb, prefix, "merges 2 models, and their weights are not in it")
    _assert_refused(topgb, prefix, "'x' is not a list of numbers such as", "--weights", "x")
    words = "the weights sum to 0.75, not 1; give each member its share in --weights"
    _assert_refused(topgb, prefix, words, "--weights", "0.25, 0.5")
    out = tmp_path / "out"
    code, stdout, stderr = topgb("model", "import-tf", prefix, "--out", out, "--weights", "0.25, 0.75")
    assert (code, stderr) == (0, "")
    assert stdout.splitlines() == [
        f"{out}: 2 members, 25 classes",
        "  0, weight 0.25: lstm with moe",
        "  1, weight 0.75: netvlad with moe",
    ]
    code, stdout, _ = topgb("model", "show", out)
    assert code == 0
    assert "member 1, weight 0.75" in stdout


def test_a_member_without_averages_is_named(topgb, tmp_path):
    values = variables(random_tagger("LstmModel", FLAGS))
    prefix = write_merged(tmp_path / "m", [values, values], flags_file("LstmModel"), [values])
    arguments = ("--out", tmp_path / "out", "--weights", "0.5,0.5", "--use-ema")
    code, _, stderr = topgb("model", "import-tf", prefix, *arguments)
    assert (code, stderr) == (0, "model_1 has no moving averages; its weights were taken\n")


# What is done to one variable of a sound checkpoint, by the variable's name.
SPOILT: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray], str]] = {
    "NaN": (
        "experts/biases",
        lambda a: np.where(np.arange(a.size) == 3, np.nan, a).astype(a.dtype),
        "'experts/biases' has values that are not finite",
    ),
    "infinite": ("hidden1_weights", lambda a: a / np.float32(0), "'hidden1_weights' has values that are not"),
    "too large for float32": ("experts/biases", lambda a: a.astype(np.float64) * 1e300, "not finite"),
    "negative variance": (
        "input_bn/moving_variance",
        np.negative,
        "'input_bn/moving_variance' has a negative variance",
    ),
    "whole numbers": ("experts/biases", lambda a: a.astype(np.int32), "holds int32 values"),
    "another size": ("gates/weights", lambda a: a[:-1], "is [15, 75], but the model needs [16, 75]"),
    "several centres": ("video_VLAD/cluster_weights2", lambda a: np.concatenate([a, a]), "is [2, 12, 8], but"),
    "no centres": ("video_VLAD/cluster_weights2", lambda a: a[:0], "is [0, 12, 8], but"),
    "no clusters": ("video_VLAD/cluster_weights", lambda a: a[:, :0], "every feature needs at least 1"),
    "a single number": ("experts/biases", lambda a: a[0], "'experts/biases' is a single number"),
    "gates that are a number": ("gates/weights", lambda a: a[0, 0], "'gates/weights' is a single number"),
    "no experts": ("experts/biases", lambda a: a[:0], "'model.head.mixtures' is 0"),
    "more experts than gates": ("experts/biases", lambda a: np.tile(a, 2), "belong to no mixture of experts"),
    "a hidden layer of none": ("hidden1_weights", lambda a: a[:, :0], "'model.hidden' is 0"),
    # Takes no byte, so that the checkpoint itself is sound.
    "a hidden layer of 2**40": ("hidden1_weights", lambda a: np.zeros((0, 1 << 40), a.dtype), "numbers go up to"),
    "a hidden layer of 2**31 - 1": ("hidden1_weights", lambda a: np.zeros((0, (1 << 31) - 1), a.dtype), "needs"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_variable(case, topgb, tmp_path):
    name, spoil, words = SPOILT[case]
    values = variables(random_tagger("NetVLADModelLF", FLAGS))
    with np.errstate(divide="ignore"):
        values[name] = np.asarray(spoil(values[name]))
    _assert_refused(topgb, write_checkpoint(tmp_path / "m", values, flags_file("NetVLADModelLF")), words)


@pytest.mark.parametrize("shape", [(3,), (0,), ()])
def test_an_lstm_of_odd_sizes(shape, topgb, tmp_path):
    values = variables(random_tagger("LstmModel", FLAGS))
    values["rnn/multi_rnn_cell/cell_0/basic_lstm_cell/bias"] = np.ones(shape, np.float32)
    prefix = write_checkpoint(tmp_path / "m", values, flags_file("LstmModel"))
    _assert_refused(topgb, prefix, "single number" if shape == () else "'model.cells' is 0")


def test_a_model_of_sizes_too_large_together(topgb, tmp_path):
    huge = (1 << 31) - 1
    values = variables(random_tagger("DbofModel", FLAGS))
    values["cluster_weights"] = np.zeros((0, huge), np.float32)
    values["hidden1_weights"] = np.zeros((0, huge), np.float32)
    prefix = write_checkpoint(tmp_path / "m", values, flags_file("DbofModel"))
    _assert_refused(topgb, prefix, "make no model")


def test_a_checkpoint_of_something_else(topgb, tmp_path):
    prefix = write_checkpoint(
        tmp_path / "m", {}, flags_file("FrameLevelLogisticModel"), others={"conv1/weights": np.ones((3, 3), np.float32)}
    )
    _assert_refused(topgb, prefix, "holds no classifier")


def test_damage_is_named_once(topgb, tmp_path):
    prefix = _checkpoint(tmp_path)
    data = bundle.data_path(prefix)
    raw = bytearray(data.read_bytes())
    for position in range(0, len(raw), 200):
        raw[position] ^= 1
    data.write_bytes(raw)
    code, _, stderr = topgb("model", "import-tf", prefix, "--out", tmp_path / "m.safetensors")
    assert code == 2
    assert "does not match its CRC" in stderr
    assert stderr.count(str(prefix)) == 1
    assert not (tmp_path / "m.safetensors").exists()


def test_unknown_variables_are_listed_and_left_out(topgb, tmp_path):
    others = {
        "tower/extra/weights": np.ones((2, 2), np.float32),
        "tower/extra/weights/Adam": np.ones((2, 2), np.float32),
        "elsewhere": np.array([1], np.int64),
    }
    prefix = _checkpoint(tmp_path, "MoeModel", others=others)
    out = tmp_path / "m.safetensors"
    code, stdout, stderr = topgb("model", "import-tf", prefix, "--out", out)
    assert code == 0
    assert "average with moe" in stdout
    assert [line.strip() for line in stderr.splitlines()[1:]] == sorted(others)
    assert read_model_file(out)[0].origin["imported"]["unknown"] == sorted(others)


@pytest.mark.parametrize("step", [np.array([1, 2]), np.array(np.nan), np.array(7, np.int64), None], ids=repr)
def test_an_odd_step_is_no_step(step, topgb, tmp_path):
    others = {} if step is None else {"global_step": step}
    prefix = _checkpoint(tmp_path, others=others)
    assert topgb("model", "import-tf", prefix, "--out", tmp_path / "m")[0] == 0
    recorded = read_model_file(tmp_path / "m")[0].origin["imported"]["step"]
    assert recorded == {"array(7)": 7, "None": 31}.get(repr(step))


def test_flags_are_recorded(topgb, tmp_path):
    prefix = _checkpoint(tmp_path)
    arguments = ("--set", "netvlad_relu=true", "--set", "model.head.l2=1e-6")
    assert topgb("model", "import-tf", prefix, "--out", tmp_path / "m", *arguments)[0] == 0
    code, stdout, _ = topgb("model", "show", tmp_path / "m", "--json")
    assert code == 0
    shown = json.loads(stdout)
    flags = shown["origin"]["imported"]["flags"]
    assert (flags["netvlad_relu"], flags["model.head.l2"], flags["feature_sizes"]) == (True, 1e-6, "12,5")
    assert shown["members"][0]["model"]["head"]["l2"] == 1e-6
