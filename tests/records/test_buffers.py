"""A batch's memory is lent again only when nothing holds it any more."""

import numpy as np
import torch

from topgb.records.batch_buffers import BufferPool

SHAPE, DTYPE = (2, 1 << 20), np.dtype(np.uint8)


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_comes_back_when_the_tensor_is_gone():
    pool = BufferPool()
    tensor = torch.from_numpy(pool.lend(SHAPE, DTYPE))
    address = tensor.data_ptr()
    del tensor
    assert _address(pool.lend(SHAPE, DTYPE)) == address


def test_whatever_keeps_the_tensors_storage_keeps_the_memory():
    for keep in (lambda t: t, lambda t: t[1:, 5:], lambda t: t.numpy(), lambda t: t.numpy()[0], lambda t: t.view(-1)):
        pool = BufferPool()
        tensor = torch.from_numpy(pool.lend(SHAPE, DTYPE))
        tensor.fill_(7)
        address, kept = tensor.data_ptr(), keep(tensor)
        del tensor
        others = [pool.lend(SHAPE, DTYPE) for _ in range(3)]
        assert address not in map(_address, others)
        for other in others:
            other[:] = 0
        assert int(kept.min()) == 7


def test_a_kept_buffer_is_not_lent_for_something_far_smaller():
    pool = BufferPool()
    address = _address(pool.lend((16, 1 << 20), DTYPE))
    assert _address(pool.lend(SHAPE, DTYPE)) != address
    assert pool.lend((3,), DTYPE).shape == (3,)
