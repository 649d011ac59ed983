"""Checkpoints as the 2018 scripts wrote them, imported: they predict what the 2018 code did."""

from pathlib import Path

import numpy as np
import pytest
import torch

import topgb
from golden.cases import FOLDER
from topgb.modelfile import read_model_file
from topgb.modelfile.import_2018 import import_checkpoint
from topgb.modelfile.tf1_checkpoint import open_checkpoint

PLAIN = "inference_model"
# Of the 2018 graphs, these looked at every frame once. The others drew frames at random, and only videos of `FULL` ones
# are known to have been seen whole (see the README beside the cases).
UNSAMPLED = {"average", "attention", "lstm", "bilstm", "bigru", "branched_gru"}
FULL = 300


def _importable(folder: Path) -> bool:
    names = open_checkpoint(folder / PLAIN).names()
    return not any(name.startswith("model_0/") or name.endswith(("_quants", "float16")) for name in names)


FOLDERS = [path.parent for path in sorted((FOLDER / "ckpt").glob(f"*/{PLAIN}.index")) if _importable(path.parent)]
AVERAGED = [path.with_suffix("") for folder in FOLDERS for path in sorted(folder.glob("model.ckpt-*.index"))]

pytestmark = pytest.mark.skipif(
    not FOLDERS, reason="the golden checkpoints (TOPGB_GOLDEN or ../shared/golden) are absent"
)


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "ckpt" / "expected.npz", allow_pickle=False) as file:
        return dict(file)


def _imported(prefix: Path, out: Path, use_ema: bool = False) -> Path:
    assert import_checkpoint(prefix, out, use_ema).unknown == []
    return out


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_predictions_equal_2018(folder, expected, tmp_path):
    model = topgb.load(_imported(folder / PLAIN, tmp_path / "model.safetensors"))
    predictions = model.predict(expected["codes"], expected["num_frames"])
    sampled = model.header.members[0].model.aggregator not in UNSAMPLED
    exact = (expected["num_frames"] == FULL) | (not sampled)
    assert exact.sum() >= 4
    np.testing.assert_allclose(predictions[exact], expected[f"predictions|{folder.name}"][exact], atol=1e-5, rtol=0)


@pytest.mark.parametrize("prefix", AVERAGED, ids=lambda prefix: f"{prefix.parent.name}/{prefix.name}")
def test_the_moving_averages_are_the_inference_model(prefix, expected, tmp_path):
    """Raw weights and shadows lie side by side in what training wrote; the 2018 export holds the shadows."""
    paths = {
        "exported": _imported(prefix.with_name(PLAIN), tmp_path / "exported"),
        "averaged": _imported(prefix, tmp_path / "averaged", use_ema=True),
        "raw": _imported(prefix, tmp_path / "raw"),
    }
    exported, averaged = (read_model_file(paths[which])[1] for which in ("exported", "averaged"))
    assert averaged.keys() == exported.keys()
    assert all(torch.equal(tensor, exported[name]) for name, tensor in averaged.items())
    raw, wanted = (
        topgb.load(paths[which]).predict(expected["codes"], expected["num_frames"]) for which in ("raw", "exported")
    )
    assert np.abs(raw - wanted).max() > 1e-3
