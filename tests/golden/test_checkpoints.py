"""Checkpoints as the 2018 scripts wrote them, imported: they predict what the 2018 code did."""

from pathlib import Path

import numpy as np
import pytest
import torch

import topgb
from golden.cases import FOLDER
from topgb.from2018.checkpoint import open_checkpoint
from topgb.from2018.importing import import_checkpoint
from topgb.from2018.merged import member_scopes
from topgb.modelfile import read_model_file
from topgb.modelfile.header import Header

PLAIN = "inference_model"
# Of the 2018 graphs, these looked at every frame once. The others drew frames at random, and only videos of `FULL` ones
# are known to have been seen whole (see the README beside the cases).
UNSAMPLED = {"average", "attention", "lstm", "bilstm", "bigru", "branched_gru"}
FULL = 300


FOLDERS = [path.parent for path in sorted((FOLDER / "ckpt").glob(f"*/{PLAIN}.index"))]
MERGED = [folder for folder in FOLDERS if member_scopes(open_checkpoint(folder / PLAIN)) != [""]]
AVERAGED = [path.with_suffix("") for folder in FOLDERS for path in sorted(folder.glob("model.ckpt-*.index"))]

pytestmark = [
    pytest.mark.numeric,
    pytest.mark.skipif(not FOLDERS, reason="the golden checkpoints (TOPGB_GOLDEN or ../shared/golden) are absent"),
]


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "ckpt" / "expected.npz", allow_pickle=False) as file:
        return dict(file)


def _imported(prefix: Path, out: Path, use_ema: bool = False, weights: list[float] | None = None) -> Path:
    assert import_checkpoint(prefix, out, use_ema, weights=weights, force=True).unknown == []
    return out


def _exact(header: Header, num_frames: np.ndarray) -> np.ndarray:
    """Which videos the 2018 graph looked at whole, bool [B]."""
    sampled = any(member.model.aggregator not in UNSAMPLED for member in header.members)
    exact = (num_frames == FULL) | (not sampled)
    assert exact.sum() >= 4
    return exact


def _weights(prefix: Path, out: Path, expected: dict[str, np.ndarray]) -> list[float]:
    """The shares of a merged checkpoint's members, to six decimals.

    No file of a case has them: they are what best makes the predictions of 2018 of those of the members, which are a
    thousand times more numbers.
    """
    count = len(member_scopes(open_checkpoint(prefix)))
    models = [topgb.load(_imported(prefix, out, weights=list(row))) for row in np.eye(count)]
    exact = _exact(models[0].header, expected["num_frames"])
    parts = [model.predict(expected["codes"][exact], expected["num_frames"][exact]).ravel() for model in models]
    wanted = expected[f"predictions|{prefix.parent.name}"][exact].ravel()
    solved = np.linalg.lstsq(np.stack(parts, 1).astype(np.float64), wanted.astype(np.float64), rcond=None)[0]
    return [round(float(weight), 6) for weight in solved]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_predictions_equal_2018(folder, expected, tmp_path):
    out = tmp_path / "model.safetensors"
    weights = _weights(folder / PLAIN, out, expected) if folder in MERGED else None
    model = topgb.load(_imported(folder / PLAIN, out, weights=weights))
    predictions = model.predict(expected["codes"], expected["num_frames"])
    exact = _exact(model.header, expected["num_frames"])
    np.testing.assert_allclose(predictions[exact], expected[f"predictions|{folder.name}"][exact], atol=1e-5, rtol=0)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_what_was_quantised_stays_so(folder, tmp_path):
    checkpoint = open_checkpoint(folder / PLAIN)
    count = len(member_scopes(checkpoint))
    weights = [1 / count] * count if folder in MERGED else None
    header, _ = read_model_file(_imported(folder / PLAIN, tmp_path / "model.safetensors", weights=weights))
    encodings = [entry.encoding for entry in header.tensors.values()]
    for encoding, suffix in (("codebook", "_quants"), ("float16", "float16")):
        assert encodings.count(encoding) == sum(name.endswith(suffix) for name in checkpoint.names())


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
