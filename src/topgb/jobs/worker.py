"""The code that runs in a worker's process on a cluster."""

import os
import pickle
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from topgb.errors import InputError, TopgbError, Wording, set_wording
from topgb.matmul_library import MatmulPath, keep_few_products, use
from topgb.progress import SILENT, Progress
from topgb.version import __version__


class Terms(NamedTuple):
    """The conditions that a worker must share with the process that started the job.

    version  topgb's version
    folder   the working directory
    shared   local files that must be there, as for `dispatch`
    wording  how messages name options
    matmul   how float32 matrices are multiplied, or None for GPUs
    """

    version: str
    folder: str
    shared: Sequence[str]
    wording: Wording
    matmul: MatmulPath | None


class Worker:
    """A process that works on one piece after another. It returns errors of topgb: Ray would wrap a raised one."""

    _work: Callable[[int, Progress], Any]

    def open(self, work: bytes, terms: Terms, threads: int) -> str | TopgbError:
        """Unpickle the work, once for all pieces, and use `threads` threads; returns the node's address or an error."""
        import ray

        node = ray.util.get_node_ip_address()
        set_wording(terms.wording)
        keep_few_products()
        # Relative paths must mean the same as where the job was started.
        with suppress(OSError):
            os.chdir(terms.folder)
        try:
            _check(terms)
            self._work = pickle.loads(work)
        except TopgbError as error:
            return type(error)(f"node {node}: {error}") if type(error) in (InputError, TopgbError) else error
        # The number of threads decides how sums are divided, and so how they are rounded; so does the library.
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.set_num_threads(threads)
            if terms.matmul is not None:
                use(terms.matmul)
        return node

    def run(self, number: int) -> Any:
        """The result of the work on piece `number`, or the `TopgbError` that it raised."""
        try:
            return self._work(number, SILENT)
        except TopgbError as error:
            return error


def _check(terms: Terms) -> None:
    if terms.version != __version__:
        raise InputError(f"topgb is {__version__} there and {terms.version} here; install the same version everywhere")
    for path in terms.shared:
        if not os.path.exists(path):
            raise InputError(
                f"{path} is not there; every node must see the same files by the same paths, so keep them on a file "
                "system that all of them share"
            )
