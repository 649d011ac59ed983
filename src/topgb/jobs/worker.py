"""What runs in a worker's process on a cluster."""

import os
import pickle
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from topgb.errors import InputError, TopgbError, Wording, set_wording
from topgb.progress import SILENT, Progress
from topgb.version import __version__


class Terms(NamedTuple):
    """What a worker is started with.

    version  topgb's, where the job was started
    folder   the working directory there
    shared   as for `dispatch`
    wording  how messages name options there
    """

    version: str
    folder: str
    shared: Sequence[str]
    wording: Wording


class Worker:
    """A process that does one piece after another. Errors of topgb are returned: Ray would wrap what is raised."""

    _work: Callable[[int, Progress], Any]

    def open(self, work: bytes, terms: Terms, threads: int) -> str | TopgbError:
        """Unpickle the work, once for all pieces, to be done with that many threads; the name of this node."""
        import ray

        node = ray.util.get_node_ip_address()
        set_wording(terms.wording)
        # Relative paths shall mean here what they mean there.
        with suppress(OSError):
            os.chdir(terms.folder)
        try:
            _check(terms)
            self._work = pickle.loads(work)
        except TopgbError as error:
            return type(error)(f"node {node}: {error}") if type(error) in (InputError, TopgbError) else error
        # Sums are rounded in the order in which threads divide them.
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.set_num_threads(threads)
        return node

    def run(self, number: int) -> Any:
        """What the work makes of piece `number`, or the `TopgbError` that it raises."""
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
