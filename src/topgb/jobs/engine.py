"""Where the pieces of a job are worked on, and what such a piece is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from topgb.errors import InputError, option
from topgb.progress import Progress

EngineKind = Literal["local", "ray"]
Result = TypeVar("Result")
# What is done with a piece, from its number and what to report progress to.
Work = Callable[[int, Progress], Result]
# What is done with a piece's number and result.
Take = Callable[[int, Result], None]


@dataclass(frozen=True)
class Engine:
    """Where the pieces of a job are worked on.

    kind     `local`: in this process, one after the other; `ray`: by the workers of a Ray cluster
    address  the cluster's, as `ray.init` takes it; None: that of RAY_ADDRESS, else the one that this machine is part
             of, else a cluster of this machine alone, for as long as this process lives
    gpus     each worker has a GPU; otherwise each has a CPU
    """

    kind: EngineKind = "local"
    address: str | None = None
    gpus: bool = False


LOCAL = Engine()


class Piece(NamedTuple):
    """A piece of a job: its number, what messages call it, and how many units of progress it is."""

    number: int
    name: str
    size: int


def open_engine(kind: EngineKind, address: str | None, device: str = "cpu") -> Engine:
    """The engine of this kind; a Ray cluster is connected to, and `device` "auto" takes its GPUs where it has any.

    Raises `InputError` for an address without Ray and for a cluster without the GPUs asked for, and as `connected`
    does.
    """
    if kind == "local":
        if address is not None:
            raise InputError(
                f"{option('address', address)} names a Ray cluster; add {option('kind', 'ray')}, or leave it out"
            )
        return LOCAL
    # Ray is an extra, and takes half a second to import.
    from topgb.jobs.cluster import cluster_gpus

    gpus = cluster_gpus(address)
    if device == "cuda" and not gpus:
        raise InputError(f"no node of the Ray cluster has a GPU; leave out {option('device', 'cuda')}")
    return Engine("ray", address, gpus=device != "cpu" and gpus > 0)
