"""Memory for batches, used again once a batch is gone: fresh pages cost a fifth of reading a batch of frames."""

import weakref

import numpy as np

_WORTHWHILE_BYTES = 1 << 20
_KEPT = 2


class BufferPool:
    """Lends arrays and takes their memory back when they are freed."""

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []
        self._lent: dict[int, weakref.ref] = {}

    def lend(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of undefined content.

        Its memory is lent again once the array object is gone. A tensor made of it by `torch.from_numpy` keeps it, and
        so does whatever keeps that tensor's storage (views, `tensor.numpy()`); NumPy's views of the array itself do not
        (they keep its base), so they must not outlive it.
        """
        size = int(np.prod(shape)) * dtype.itemsize
        if size < _WORTHWHILE_BYTES:
            return np.empty(shape, dtype)
        buffer = self._take(size)
        array = buffer[:size].view(dtype).reshape(shape)
        key = id(array)

        def give_back(_: weakref.ref) -> None:
            del self._lent[key]
            if len(self._free) < _KEPT:
                self._free.append(buffer)

        self._lent[key] = weakref.ref(array, give_back)
        return array

    def _take(self, size: int) -> np.ndarray:
        for position, buffer in enumerate(self._free):
            # Not a far larger one: a kept batch would hold on to all of it.
            if size <= buffer.nbytes <= 2 * size:
                return self._free.pop(position)
        if len(self._free) == _KEPT:
            self._free.pop(0)
        # NumPy asks the kernel for huge pages, torch.empty does not.
        return np.empty(size, np.uint8)
