"""The libraries by which a command may multiply: golden cases hold with each."""

import pytest
import torch

from topgb import matmul_library as matmul


@pytest.fixture(params=["mkl", "onednn"])
def library(request):
    """The process multiplies by it, if it is as accurate as float32 here, as for commands."""
    path = request.param
    if path == "onednn" and not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    if path == "onednn" and matmul.speed(path, (32, 1024, 64))[1] > matmul.MOST_ERROR:
        pytest.skip("oneDNN multiplies in fewer bits than float32 on this processor, and no command chooses it")
    matmul.use(path)
    yield path
    matmul.use("mkl")
