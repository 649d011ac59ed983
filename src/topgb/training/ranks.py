"""Several processes, called ranks, that train one model together on one machine or many."""

import atexit
import gc
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist

# Import before the process group exists: otherwise DDP imports this module later, and the defaults of its functions
# keep the group and its threads alive.
import torch.distributed.nn.functional
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from lightning_fabric.utilities.rank_zero import rank_zero_only

from topgb.errors import InputError, TopgbError, option

# Fabric's names for float32 arithmetic, and for bfloat16 arithmetic with float32 weights.
FabricPrecision = Literal["32-true", "bf16-mixed"]


def planned_ranks(devices: int | None, num_nodes: int | None) -> tuple[int, int]:
    """(devices of each node, nodes), as requested or as set by `torchrun`. Raises `InputError` if the two differ."""
    asked = devices or 1, num_nodes or 1
    if not dist.is_torchelastic_launched():
        return asked
    local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    found = local, world // local
    if (devices, num_nodes) != (None, None) and asked != found:
        raise InputError(
            f"torchrun runs {found[0]} processes on each of {found[1]} nodes, but {option('devices')} and "
            f"{option('num_nodes')} say {asked[0]} and {asked[1]}; leave them out under torchrun"
        )
    return found


def speaks_for_all() -> bool:
    """Whether this process is the first of those that were started together, according to its environment."""
    return not getattr(rank_zero_only, "rank", 0)


def launch(device: torch.device, devices: int | None, num_nodes: int | None, precision: FabricPrecision) -> Fabric:
    """A Fabric whose ranks all run: processes that `torchrun` or SLURM started, or processes that this call starts.

    A process that this call starts runs the present command line, or script, again from its beginning. A single rank
    starts no process. Raises `InputError` where this machine has too few devices.
    """
    per_node, nodes = planned_ranks(devices, num_nodes)
    if per_node * nodes == 1:
        only = 1 if device.index is None else [device.index]
        return Fabric(accelerator=device.type, devices=only, precision=precision)
    if device.index is not None or device.type not in ("cpu", "cuda"):
        wanted = f"{option('device')} cpu or cuda"
        raise InputError(f"several processes need one device each; use {wanted} instead of {device}")
    if device.type == "cuda" and per_node > torch.cuda.device_count():
        gpus = torch.cuda.device_count()
        raise InputError(f"there are {gpus} GPUs here, fewer than {per_node}; lower {option('devices')}")
    strategy = DDPStrategy(gradient_as_bucket_view=True)
    fabric = Fabric(accelerator=device.type, devices=per_node, num_nodes=nodes, strategy=strategy, precision=precision)
    fabric.launch()
    atexit.register(_end_threads)
    return fabric


def _end_threads() -> None:
    """End gloo's threads: one that frees a tensor while the interpreter ends would abort the whole process."""
    # A handled error may keep the trainer in a reference cycle, and the trainer keeps the group.
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def together(fabric: Fabric) -> Iterator[None]:
    """A block (without collectives) that either all ranks leave or none: an error of one rank ends all.

    The first rank with a `TopgbError` raises it; the other ranks exit silently, as one sentence is enough.
    """
    error = None
    try:
        yield
    except TopgbError as found:
        error = found
    codes = gather(fabric, 0 if error is None else error.exit_code)
    if not any(codes):
        return
    first = next(rank for rank, code in enumerate(codes) if code)
    if error is not None and fabric.global_rank == first:
        raise error
    raise SystemExit(codes[first])


def gather(fabric: Fabric, value: Any) -> list[Any]:
    """Every rank's `value`, a small object, in the order of ranks."""
    if fabric.world_size == 1:
        return [value]
    values: list[Any] = [None] * fabric.world_size
    dist.all_gather_object(values, value)
    return values


def check_alike(fabric: Fabric, settings: dict[str, Any], step: int) -> None:
    """Raise `InputError` where ranks see different records, parents or checkpoints: `settings` and the last `step`."""
    digests = {key: hashlib.sha256(json.dumps(value).encode()).hexdigest() for key, value in settings.items()}
    everyone = gather(fabric, digests | {"last checkpoint": step})
    with together(fabric):
        mine, first = everyone[fabric.global_rank], everyone[0]
        differing = next((key for key in mine if mine[key] != first[key]), None)
        if differing is not None:
            raise InputError(
                f"the first process and process {fabric.global_rank} do not see the same {differing}; records, run and "
                "parents must lie where every node sees them, under the same names"
            )


class RanksStep(NamedTuple):
    """A step of all ranks, as int64 scalars on the device, which may still be computing them.

    videos    in all ranks' batches
    due       ranks that are to log the step
    stopping  ranks that were asked to stop
    """

    videos: torch.Tensor
    due: torch.Tensor
    stopping: torch.Tensor


def agree(fabric: Fabric, videos: int, due: bool, stopping: bool) -> RanksStep:
    """Sum each rank's values into a `RanksStep`, without waiting for the device. A single rank's stays on the CPU."""
    summed = torch.tensor([videos, int(due), int(stopping)])
    if fabric.world_size > 1:
        summed = summed.to(fabric.device, non_blocking=True)
        dist.all_reduce(summed)
    return RanksStep(*summed)


@contextmanager
def losing_a_peer(fabric: Fabric) -> Iterator[None]:
    """A block in which the end of another rank becomes a `TopgbError`, instead of the transport's own report."""
    try:
        yield
    except RuntimeError as error:
        # Gloo raises a plain RuntimeError.
        if fabric.world_size > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise TopgbError(
                f"process {fabric.global_rank} lost the others: one of them has ended; its own message says why"
            ) from error
        raise
