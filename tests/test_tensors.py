"""The check of tensors' values, and which file is not there."""

import pytest
import torch

import topgb.tensors
from topgb.errors import InputError
from topgb.tensors import all_finite, load_tensors


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_value_that_is_not_finite_is_found(dtype):
    values = torch.zeros(3, 5, dtype=dtype)
    assert all_finite(values)
    for wrong in ([float("nan")], [float("inf")], [-float("inf")], [float("inf"), -float("inf")]):
        found = values.clone()
        found.view(-1)[torch.arange(len(wrong)) * 7] = torch.tensor(wrong, dtype=dtype)
        assert not all_finite(found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_values_whose_sum_overflows_are_finite(dtype):
    assert all_finite(torch.full((9,), torch.finfo(dtype).max, dtype=dtype))


def test_integers_and_empty_tensors_are_finite():
    assert all_finite(torch.ones(3, dtype=torch.int64))
    assert all_finite(torch.zeros(0, 4))


def test_a_file_that_may_not_be_read_is_not_said_to_be_missing(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"

    def refuse(*args, **options):
        # As safetensors does for both; root may read every file.
        raise FileNotFoundError(f"No such file or directory: {path}")

    monkeypatch.setattr(topgb.tensors, "safe_open", refuse)
    with pytest.raises(InputError, match="there is no file .*; check the path"):
        load_tensors(path)
    path.write_bytes(b"x")
    with pytest.raises(InputError, match="cannot read .*; check its permissions"):
        load_tensors(path)
