"""The checkpoints that the 2018 scripts wrote."""

from pathlib import Path

import numpy as np
import pytest

from from2018.variables import assert_same
from golden.cases import FOLDER
from topgb.errors import InputError
from topgb.from2018.checkpoint import open_checkpoint

DBOF = {
    "global_step": ((), "int32"),
    "tower/experts/biases": ((7724,), "float32"),
    "tower/experts/weights": ((32, 7724), "float32"),
    "tower/gates/weights": ((32, 11586), "float32"),
    "tower/video_DBOF/dim_red": ((64, 1024), "float32"),
}
NETVLAD = {
    "tower/hidden1_biases": ((32,), "float32"),
    "tower/video_VLAD/cluster_weights2": ((1, 1024, 8), "float32"),
    "tower/gating_bn/moving_variance": ((32,), "float32"),
}
QUANTIZED = {
    "tower/hidden1_weights_quants": ((8704, 32), "uint8"),
    "tower/hidden1_weights_space": ((256,), "float32"),
}
LSTM = {
    "tower/bidirectional_rnn/bw/multi_rnn_cell/cell_0/basic_lstm_cell/kernel": ((1168, 64), "float32"),
    "tower/fully_connected/weights": ((32, 3862), "float32"),
}
SHADOW = "/ExponentialMovingAverage"
# Number of variables, and some of them.
GOLDEN = {
    "dbof/inference_model": (26, DBOF),
    "dbof_ema/inference_model": (26, DBOF),
    "dbof_ema/model.ckpt-31": (87, {**DBOF, f"tower/experts/weights{SHADOW}": ((32, 7724), "float32")}),
    "ensemble/inference_model": (
        65,
        {
            **{f"model_0/{name}": known for name, known in (NETVLAD | QUANTIZED).items()},
            **{f"model_1/{name}": known for name, known in DBOF.items()},
            **{f"model_2/{name}": known for name, known in LSTM.items()},
        },
    ),
    "lstm/inference_model": (9, LSTM),
    "netvlad/inference_model": (27, NETVLAD | {"tower/hidden1_weights": ((8704, 32), "float32")}),
    "netvlad_uniform/inference_model": (30, NETVLAD | QUANTIZED),
}


@pytest.fixture(scope="module")
def golden() -> Path:
    if not (FOLDER / "ckpt").is_dir():
        pytest.skip("the golden checkpoints (../shared/golden/ckpt beside the checkout, or TOPGB_GOLDEN) are absent")
    return FOLDER / "ckpt"


def test_every_golden_checkpoint_is_listed_here(golden):
    found = {str(path.relative_to(golden).with_suffix("")) for path in golden.rglob("*.index")}
    assert found == GOLDEN.keys()


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_checkpoint_is_read(golden, name):
    count, known = GOLDEN[name]
    checkpoint = open_checkpoint(golden / name)
    assert len(checkpoint.names()) == count
    read = 0
    for variable in checkpoint.names():
        values = checkpoint.read(variable)
        assert values.shape == checkpoint.shape(variable)
        assert np.isfinite(values).all()
        read += values.nbytes
    # The data file is nothing but the variables.
    assert read == (golden / f"{name}.data-00000-of-00001").stat().st_size
    for variable, (shape, dtype) in known.items():
        values = checkpoint.read(variable)
        assert (values.shape, values.dtype.name) == (shape, dtype)


def test_golden_values(golden):
    run, exported = (
        open_checkpoint(golden / "dbof_ema/model.ckpt-31"),
        open_checkpoint(golden / "dbof_ema/inference_model"),
    )
    assert run.read("global_step") == 31
    np.testing.assert_allclose(run.read("beta1_power"), 0.9**32, rtol=1e-5)
    np.testing.assert_allclose(run.read("beta2_power"), 0.999**32, rtol=1e-5)
    averaged = [name for name in exported.names() if name != "global_step"]
    assert len(averaged) == 25
    for name in averaged:
        assert_same(exported.read(name), run.read(name + SHADOW))
    assert (exported.read("tower/experts/weights") != run.read("tower/experts/weights")).any()


def test_golden_ensemble_holds_its_members(golden):
    ensemble = open_checkpoint(golden / "ensemble")
    compared = 0
    for number, member in enumerate(("netvlad_uniform", "dbof", "lstm")):
        alone = open_checkpoint(golden / member)
        for name in alone.names():
            assert_same(ensemble.read(f"model_{number}/{name}"), alone.read(name))
            compared += 1
    assert compared == len(ensemble.names())


def test_golden_codes_stand_for_the_weights(golden):
    plain, coded = open_checkpoint(golden / "netvlad"), open_checkpoint(golden / "netvlad_uniform")
    for name in ("tower/hidden1_weights", "tower/experts/weights", "tower/gates/weights"):
        space, weights = coded.read(f"{name}_space"), plain.read(name)
        values = space[coded.read(f"{name}_quants")]
        assert np.abs(values - weights).max() <= (space[1] - space[0]) * 0.51


def test_the_golden_folder_of_two_lists_both(golden):
    with pytest.raises(InputError, match=r"one of inference_model, model\.ckpt-31,"):
        open_checkpoint(golden / "dbof_ema")
