import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from topgb.features import Feature, FeatureSpec
from topgb.records.batch_buffers import empty_features
from topgb.records.reader_processes import prepare_reader, reading_ahead

BYTES = FeatureSpec("frame", (Feature("rgb", 3), Feature("audio", 2)))
FLOATS = FeatureSpec("frame", (Feature("rgb", 3, "float32"), Feature("audio", 2)))


class _Filled(Dataset):
    """Of one batch of a spec: the tensor, and whether it is in shared memory where it is made."""

    def __init__(self, spec: FeatureSpec):
        self.spec = spec

    def __len__(self):
        return 1

    def __getitem__(self, number: int):
        tensor, array = empty_features(2, 4, self.spec)
        array[:] = np.arange(40).reshape(2, 4, 5)
        return tensor, tensor.is_shared()


@pytest.mark.parametrize("spec", [BYTES, FLOATS])
@pytest.mark.parametrize("workers", [0, 1])
def test_array_and_tensor_are_the_same_memory_shared_in_a_worker(spec, workers):
    start = prepare_reader if workers else None
    with reading_ahead(DataLoader(_Filled(spec), batch_size=None, num_workers=workers, worker_init_fn=start)) as items:
        [(tensor, shared)] = items
    assert shared == bool(workers)
    expected = torch.arange(40).view(2, 4, 5).to(torch.uint8 if spec.all_bytes else torch.float32)
    assert torch.equal(tensor, expected)
