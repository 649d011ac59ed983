"""The pieces of a job, and the engine that runs them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from topgb.errors import InputError, option
from topgb.progress import Progress

EngineKind = Literal["local", "ray"]
Result = TypeVar("Result")
# The work on a piece: takes the piece's number and where to report progress.
Work = Callable[[int, Progress], Result]
# Receives a piece's number and result.
Take = Callable[[int, Result], None]


@dataclass(frozen=True)
class Engine:
    """Where the pieces of a job run.

    kind     `local`: in this process, one after the other; `ray`: in the workers of a Ray cluster
    address  the cluster's address, as `ray.init` takes it. None: the address in RAY_ADDRESS, or the cluster that this
             machine is part of, or a new cluster of this machine alone, which ends with this process
    gpus     whether each worker has a GPU; otherwise each has a CPU
    """

    kind: EngineKind = "local"
    address: str | None = None
    gpus: bool = False


LOCAL = Engine()


class Piece(NamedTuple):
    """A piece of a job: its number, its name in messages, and its size in units of progress."""

    number: int
    name: str
    size: int


def open_engine(kind: EngineKind, address: str | None, device: str = "cpu") -> Engine:
    """The engine of this kind; for `ray` it connects to the cluster, and `device` "auto" means GPUs if there are any.

    Raises `InputError` if the local engine is given an address, or if `device` is "cuda" and the cluster has no GPU;
    and as `connected` does.
    """
    if kind == "local":
        if address is not None:
            raise InputError(
                f"{option('address', address)} names a Ray cluster; add {option('engine', 'ray')}, or leave it out"
            )
        return LOCAL
    # Ray is an extra, and takes half a second to import.
    from topgb.jobs.cluster import cluster_gpus

    gpus = cluster_gpus(address)
    if device == "cuda" and not gpus:
        raise InputError(f"no node of the Ray cluster has a GPU; leave out {option('device', 'cuda')}")
    return Engine("ray", address, gpus=device != "cpu" and gpus > 0)
