"""Ranks without videos: the gradients and statistics are those of the videos there are, and all ranks stay equal."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from topgb.tensors import load_tensors
from topgb.training.ranks import launch
from training import uneven_ranks
from training.uneven_ranks import CASES, states

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this PyTorch has no gloo backend")


@pytest.fixture(scope="module")
def ranks(two_ranks, tmp_path_factory) -> Path:
    """The folder in which both ranks have written their states after each case."""
    folder = tmp_path_factory.mktemp("ranks")
    for rank in two_ranks([str(folder)], Path(uneven_ranks.__file__)):
        assert rank.code == 0, rank.err
    return folder


@pytest.mark.parametrize("case", CASES)
def test_a_rank_without_videos_leaves_the_gradient_to_the_others(case, ranks):
    first, second = (load_tensors(ranks / f"{case} {rank}.safetensors")[0] for rank in range(2))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert bool(value.isfinite().all()), name
        assert torch.equal(value, second[name]), name
    if case == "pieces with batch norm":
        # Statistics are those of a piece, so no batch in one piece compares; that of all-empty pieces changes nothing.
        return
    alone = states(case, launch(torch.device("cpu"), None, None, "32-true"), alone=True)
    largest = max(float(value.abs().max()) for name, value in alone.items() if name.endswith("exp_avg"))
    for name, value in alone.items():
        tolerance = 1e-5 * largest if name.endswith((".exp_avg", ".exp_avg_sq")) else 1e-5
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=tolerance, msg=name)
