"""What batch work on a Ray cluster costs: the tables of docs/cluster.md.

    .venv/bin/python benchmarks/cluster.py [--videos 1024] [--shards 4 16 64] [--nodes 1 2]

The nodes are processes of this machine with a CPU each, every worker has one thread, and one process of one thread is
what they are compared with. The model is a NetVLAD of 64 clusters; records are synthetic, 300 frames, in the page
cache.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ray
import torch
from ray.cluster_utils import Cluster

from topgb.devices import keep_freed_memory
from topgb.evaluation.distill import DistillOptions, distill, open_records, open_teacher
from topgb.evaluation.predict import CsvOptions, write_predictions
from topgb.evaluation.predictions import Predictor
from topgb.features import YOUTUBE8M_CLASSES, YOUTUBE8M_FRAMES
from topgb.jobs.cluster import connected
from topgb.jobs.dispatch import dispatch
from topgb.jobs.engine import LOCAL, Engine, Piece
from topgb.jobs.remote_opening import opened_there
from topgb.modelfile import Header, LoadedModel, Member, load, write_model_file
from topgb.modelfile.member import encode_member
from topgb.models import build_tagger, parse_model
from topgb.progress import Progress
from topgb.records.dataset import Dataset
from topgb.records.synth import SynthOptions, write_synthetic

CPU = torch.device("cpu")
NETVLAD = {"aggregator": "netvlad", "clusters": {"rgb": 64, "audio": 32}, "hidden": 512, "head": {"name": "moe"}}
FRAMES = (300, 300)
EMPTY_PIECES = 500


@dataclass(frozen=True)
class Nothing:
    """Work that is only to be handed out: the model and the data set travel, and are not used."""

    model: Predictor
    dataset: Dataset

    def __call__(self, number: int, progress: Progress) -> int:
        return number


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--videos", type=int, default=1024, help="of all shards together (default 1024)")
    arguments.add_argument("--shards", type=int, nargs="+", default=[4, 16, 64], help="(default 4 16 64)")
    arguments.add_argument("--nodes", type=int, nargs="+", default=[1, 2], help="(default 1 2)")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    print(f"ray {ray.__version__}, NetVLAD-64, {FRAMES[1]} frames a video\n")
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        _write_model(base / "model.safetensors")
        each = chosen.videos // max(chosen.shards)
        # As many videos whatever the shards, and as many a shard.
        sizes = {shards: (chosen.videos // shards, each) for shards in chosen.shards}
        sets = {key: _write_records(base, *key) for shards, row in sizes.items() for key in {(shards, n) for n in row}}
        began = time.perf_counter()
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        engine = Engine("ray", cluster.address)
        started = time.perf_counter()
        connected(engine.address)
        joined = time.perf_counter()
        try:
            _print_costs(base, sets[max(sets)], engine, started - began, joined - started)
            whole, growing = ([(shards, row[place]) for shards, row in sizes.items()] for place in (0, 1))
            print(f"{chosen.videos:,} videos in all; seconds:\n")
            _print_table(base, COMMANDS, whole, sets, cluster, chosen.nodes)
            print(f"{each:,} videos a shard; seconds:\n")
            _print_table(base, {"distill": _distill}, growing, sets, cluster, chosen.nodes)
        finally:
            ray.shutdown()
            cluster.shutdown()


def _print_costs(base: Path, pattern: str, engine: Engine, start: float, join: float) -> None:
    model = load(base / "model.safetensors")
    began = time.perf_counter()
    data = open_records(model, pattern)
    opening = time.perf_counter() - began
    first, *others = _answers(base, data, engine)
    print("| what | seconds |\n|---|---|")
    print(f"| starting the head node | {start:.2f} |")
    print(f"| joining the cluster | {join:.2f} |")
    print(f"| a worker, from asking for it to its first result | {first:.2f} |")
    print(f"| handing out a shard, and taking its result | {(others[-1] - first) / len(others):.4f} |")
    print(f"| looking through the framing of 1,000 records | {1000 * opening / data.num_records:.4f} |\n", flush=True)


def _answers(base: Path, data: Dataset, engine: Engine) -> list[float]:
    """When, in seconds from the start, one worker gave each result of work that is nothing."""
    pieces = [Piece(number, str(number), 1) for number in range(EMPTY_PIECES)]
    began = time.perf_counter()
    found: list[float] = []
    work = Nothing(_model_there(base), data)
    dispatch(work, pieces, lambda number, result: found.append(time.perf_counter() - began), engine)
    return found


def _print_table(
    base: Path,
    commands: dict[str, Callable[[Path, str, Engine], None]],
    keys: list[tuple[int, int]],
    sets: dict[tuple[int, int], str],
    cluster: Cluster,
    nodes: list[int],
) -> None:
    columns = [f"{count} worker{'s' if count > 1 else ''}" for count in nodes]
    print(f"| command | shards | one process | {' | '.join(columns)} |")
    print("|---|---|---|" + "---|" * len(nodes))
    cells = [(name, key) for name in commands for key in keys]
    rows = {(name, key): [_seconds(partial(commands[name], base, sets[key], LOCAL))] for name, key in cells}
    for count in nodes:
        _set_nodes(cluster, count)
        engine = Engine("ray", cluster.address)
        for name, key in cells:
            rows[name, key].append(_seconds(partial(commands[name], base, sets[key], engine)))
    for (name, key), seconds in rows.items():
        print(f"| {name} | {key[0]} | {' | '.join(f'{one:.1f}' for one in seconds)} |")
    print(flush=True)


def _set_nodes(cluster: Cluster, count: int) -> None:
    while len(cluster.list_all_nodes()) > count:
        cluster.remove_node(cluster.list_all_nodes()[-1])
    while len(cluster.list_all_nodes()) < count:
        cluster.add_node(num_cpus=1)
    while int(ray.cluster_resources().get("CPU", 0)) != count:
        time.sleep(0.1)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _distill(base: Path, pattern: str, engine: Engine) -> None:
    model, identity = open_teacher(base / "model.safetensors", CPU)
    data = open_records(model, pattern)
    with tempfile.TemporaryDirectory(dir=base) as out:
        distill(
            _model_for(model, base, engine), data, Path(out) / "scores", CPU, identity, DistillOptions(engine=engine)
        )


def _predict(base: Path, pattern: str, engine: Engine) -> None:
    model = load(base / "model.safetensors")
    data = open_records(model, pattern)
    write_predictions(
        _model_for(model, base, engine), data, base / "rows.csv", CPU, CsvOptions(force=True), engine=engine
    )


COMMANDS = {"distill": _distill, "predict": _predict}


def _model_for(model: LoadedModel, base: Path, engine: Engine) -> Predictor:
    return model if engine == LOCAL else _model_there(base)


def _model_there(base: Path) -> Predictor:
    return opened_there(partial(load, base / "model.safetensors"))


def _write_model(path: Path) -> None:
    torch.manual_seed(0)
    config = parse_model(NETVLAD)
    entries, tensors = encode_member(0, build_tagger(YOUTUBE8M_FRAMES, YOUTUBE8M_CLASSES, config).state_dict())
    write_model_file(path, Header(YOUTUBE8M_FRAMES, YOUTUBE8M_CLASSES, (Member(1.0, config),), entries), tensors)


def _write_records(base: Path, shards: int, each: int) -> str:
    folder = base / f"{shards}-of-{each}"
    write_synthetic(
        folder, YOUTUBE8M_FRAMES, YOUTUBE8M_CLASSES, shards * each, SynthOptions(videos_per_shard=each, frames=FRAMES)
    )
    return f"{folder}/*.tfrecord"


if __name__ == "__main__":
    main()
