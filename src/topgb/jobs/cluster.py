"""The connection to a Ray cluster."""

import logging
import os
import socket
from typing import Any

from topgb.errors import InputError, TopgbError, install_extra, option

_ANSWER_SECONDS = 10.0


def connected(address: str | None) -> Any:
    """Connect to the cluster at `address` (see `Engine`), unless Ray is connected already; returns the module `ray`.

    The connection lasts as long as the process, or until `ray.shutdown()`. Raises `InputError` if Ray is not installed,
    `TopgbError` if no cluster answers.
    """
    try:
        import ray
    except ImportError:
        raise InputError(
            f"{option('engine', 'ray')} needs Ray, which is not installed here; {install_extra('ray')}"
        ) from None
    if not ray.is_initialized():
        _check_answers(address or os.environ.get("RAY_ADDRESS"))
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        except Exception as error:
            # Different versions, full disks and ports in use raise errors of no common kind.
            where = "start Ray on this machine" if address is None else f"join the Ray cluster at {address}"
            raise TopgbError(f"cannot {where}: {in_one_line(error)}; ray status says how it is") from error
        _keep_standard_output_clean()
    return ray


def _check_answers(address: str | None) -> None:
    """Raise if `address` is malformed or nothing listens there: Ray itself would try for many minutes."""
    if address in (None, "", "auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"{address!r} is not the address of a Ray cluster; give HOST:PORT, as ray start printed it")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TopgbError(
            f"no Ray cluster answers at {address}: {reason}; check the address that ray start printed, and that the "
            "head node is up"
        ) from error


def cluster_gpus(address: str | None) -> int:
    """How many GPUs the cluster has now. Raises as `connected`."""
    return int(connected(address).cluster_resources().get("GPU", 0))


def in_one_line(error: BaseException) -> str:
    """An error's first line, or its class's name if it has no text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".")[:300] if lines else type(error).__name__


def _keep_standard_output_clean() -> None:
    """Stop Ray from printing what it learns of a dead node on standard output, where figures and JSON belong."""
    # No setting of Ray's turns this off: log_to_driver=False stops the workers' logs alone.
    from ray._private import worker

    worker.print_to_stdstream = lambda *arguments, **options: None
