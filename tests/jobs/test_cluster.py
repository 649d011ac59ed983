"""Work on a real Ray cluster of three nodes, each a process of its own: the same bytes, whatever dies."""

import os
import shutil
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from cli.program import topgb
from combining.small_models import model_file
from conftest import SMALL_CLASSES, SMALL_SPEC
from topgb.cli.flags import in_flags
from topgb.errors import InputError, TopgbError, in_python, option, set_wording
from topgb.jobs import pool
from topgb.jobs.cluster import connected
from topgb.jobs.dispatch import dispatch
from topgb.jobs.engine import Engine, Piece
from topgb.jobs.remote_opening import opened_there
from topgb.matmul_library import in_use, use
from topgb.progress import Progress
from topgb.records.synth import SynthOptions, write_synthetic
from topgb.vocabulary import read_vocabulary

# Ray gives its workers a low priority; beside tests in other processes they would hardly run.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's own spelling
ray = pytest.importorskip("ray")
from ray._private import state, worker  # noqa: E402 - Ray may be absent
from ray.cluster_utils import Cluster  # noqa: E402

SHARDS, VIDEOS = 14, 30
# Some tenths of a second a shard, so that a node that dies is in the middle of one.
SLOW = {"aggregator": "lstm", "cells": 640, "layers": 2, "head": "logistic"}


class Nodes:
    """The cluster: its engine, and a second and third node that can be killed and replaced."""

    def __init__(self):
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        self.others = [self.cluster.add_node(num_cpus=1) for _ in range(2)]
        self.engine = Engine("ray", self.cluster.address)

    def kill_one(self):
        self.cluster.remove_node(self.others.pop(), allow_graceful=False)

    def kill_one_at_work(self, working):
        """Kill a node whose worker has a piece, or is given one next."""
        # On a slow machine the last worker can start after most of the work is done, and one can wait for a dead node.
        until = time.monotonic() + 60
        while len(working._workers) < 3 and time.monotonic() < until:
            working.hire()
            time.sleep(0.1)
        missing = 3 - sum(worker.node is not None for worker in working._workers)
        starting = [call for call, worker in working._calls.items() if worker.node is None]
        if missing:
            assert len(ray.wait(starting, num_returns=missing, timeout=60)[0]) == missing
        actors = [state.actors(worker.actor._actor_id.hex()) for worker in working._workers]
        (worker,) = [actor["Pid"] for actor in actors if actor["Address"]["NodeID"] == self.others[-1].node_id]
        self.kill_one()
        # It would go on until it finds its node gone.
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)

    def replace(self):
        while len(self.others) < 2:
            self.others.append(self.cluster.add_node(num_cpus=1))

    def busy_cpus(self):
        # Ray goes on counting a node that died for some seconds.
        return ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0)


@pytest.fixture(scope="module")
def nodes():
    started = Nodes()
    yield started
    ray.shutdown()
    started.cluster.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Records and a model."""
    folder = tmp_path_factory.mktemp("cluster")
    write_synthetic(
        folder / "data",
        SMALL_SPEC,
        SMALL_CLASSES,
        SHARDS * VIDEOS,
        SynthOptions(videos_per_shard=VIDEOS, frames=(20, 60)),
    )
    model_file(folder / "model.safetensors", SLOW)
    return folder


class Heard(Progress):
    """Notes what is reported, and calls `at[n](pool)` when n shards are finished."""

    def __init__(self, at=None):
        self.at, self.finished, self.advanced, self.said, self.pool = at or {}, 0, 0, [], None

    def begin(self, what, total, unit, done=0):
        self.advanced = done

    def advance(self, count, note=""):
        self.advanced += count
        self.finished += 1
        self.at.get(self.finished, lambda working: None)(self.pool)

    def say(self, line):
        self.said.append(line)

    @property
    def replaced(self):
        """What is said of workers that failed in the middle of a shard."""
        return [line for line in self.said if "another one takes it" in line]


@pytest.fixture
def on_ray(nodes, folder, monkeypatch):
    """A topgb command on the cluster, and what it reports."""

    def run(*arguments, at=None):
        heard = Heard(at)
        hire = pool._Pool.hire

        def watched(working):
            heard.pool = working
            hire(working)

        with monkeypatch.context() as patch:
            patch.setattr("topgb.progress.TerminalProgress", lambda: heard)
            # Of commands that make the public call.
            patch.setattr("topgb.api.arguments.TerminalProgress", lambda: heard)
            patch.setattr(pool._Pool, "hire", watched)
            return topgb(*arguments, "--engine", "ray", "--address", nodes.engine.address), heard

    nodes.replace()
    return run


def stop(working):
    raise KeyboardInterrupt


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_predictions_are_the_same_bytes_though_a_node_dies(nodes, folder, on_ray, tmp_path):
    command = ["predict", folder / "model.safetensors", f"{folder}/data/*", "--out"]
    topgb(*command, tmp_path / "here.csv")
    there, heard = on_ray(*command, tmp_path / "there.csv", at={6: nodes.kill_one_at_work})
    # Ray's own words on a dead node would be in the way of JSON.
    assert (there.returncode, there.stdout) == (0, f"{tmp_path}/there.csv: {SHARDS * VIDEOS} videos\n")
    assert heard.replaced, heard.said
    assert heard.advanced == SHARDS * VIDEOS
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here.csv", "there.csv"]


def test_figures_are_the_same_to_the_bit_though_a_node_dies(nodes, folder, on_ray):
    command = ["eval", folder / "model.safetensors", f"{folder}/data/*", "--frames", "random:15", "--rounds", "2"]
    here = topgb(*command, "--json")
    there, heard = on_ray(*command, "--json", at={12: nodes.kill_one_at_work})
    assert (there.returncode, there.stdout) == (0, here.stdout)
    assert heard.replaced, heard.said
    assert heard.advanced == 2 * SHARDS * VIDEOS


def test_finished_scores_are_kept_and_the_rest_survives_a_node(nodes, folder, on_ray, tmp_path):
    command = ["distill", folder / "model.safetensors", f"{folder}/data/*", "--out"]
    here = topgb(*command, tmp_path / "here")
    stopped, _ = on_ray(*command, tmp_path / "there", at={3: stop})
    assert stopped.returncode == 130
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "there").glob("*.tfrecord.safetensors")}
    assert len(kept) >= 3
    there, heard = on_ray(*command, tmp_path / "there", at={5: nodes.kill_one_at_work})
    assert there.stdout == here.stdout.replace("here", "there")
    assert heard.replaced, heard.said
    # One more may have been finished while the workers were ended.
    assert heard.finished <= SHARDS - len(kept)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_damage_is_reported_alike_and_a_stopped_prediction_goes_on(folder, on_ray, tmp_path):
    shutil.copytree(folder / "data", tmp_path / "data")
    for name, offset in (("train0000", 4000), ("train0009", 9000)):
        path = tmp_path / "data" / f"{name}.tfrecord"
        content = bytearray(path.read_bytes())
        content[offset] ^= 1
        path.write_bytes(content)
    check = ["data", "verify", f"{tmp_path}/data/*", "--json"]
    assert on_ray(*check)[0] == topgb(*check)

    command = ["predict", folder / "model.safetensors", f"{tmp_path}/data/*", "--on-damaged", "skip", "--out"]
    here = topgb(*command, tmp_path / "here.csv.gz")
    assert "skipped 2 damaged records" in here.stderr
    stopped, _ = on_ray(*command, tmp_path / "there.csv.gz", at={8: stop})
    assert stopped.returncode == 130
    assert not (tmp_path / "there.csv.gz").exists()
    assert len(list((tmp_path / ".there.csv.gz.parts").glob("*.part"))) == 8
    there, heard = on_ray(*command, tmp_path / "there.csv.gz")
    assert heard.finished == SHARDS - 8
    assert (there.stdout, there.stderr) == (here.stdout.replace("here", "there"), here.stderr)
    assert (tmp_path / "there.csv.gz").read_bytes() == (tmp_path / "here.csv.gz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "here.csv.gz", "there.csv.gz"]


def test_a_node_that_joins_is_used_and_one_that_dies_is_done_without(nodes, tmp_path):
    def work(number, progress):
        import ray

        node = ray.get_runtime_context().get_node_id()
        (tmp_path / f"{node}-{number}").touch()
        until = time.monotonic() + 60
        while number > 2 and time.monotonic() < until and len(nodes_in(tmp_path)) < 3:
            time.sleep(0.1)
        time.sleep(0.3)
        return node

    def nodes_in(folder, finished=()):
        begun = [path.name.split("-") for path in folder.iterdir()]
        return {node for node, number in begun if int(number) not in finished}

    def take(number, node):
        done[number] = node
        newest = nodes.others[-1].node_id
        if len(done) == 3:
            nodes.replace()
        elif len(nodes.others) == 2 and newest in done.values() and newest in nodes_in(tmp_path, done):
            nodes.kill_one()

    nodes.replace()
    nodes.kill_one()
    done, heard = {}, Heard()
    dispatch(work, [Piece(number, f"shard {number}", 1) for number in range(30)], take, nodes.engine, heard)
    assert sorted(done) == list(range(30))
    assert len(nodes.others) == 1
    assert len(set(done.values())) == 3
    assert heard.replaced, heard.said


def test_with_gpus_there_is_a_worker_for_each(nodes, tmp_path):
    def work(number, progress):
        import ray

        gpus = tuple(ray.get_gpu_ids())
        (tmp_path / "-".join(map(str, gpus))).touch()
        # On a busy machine the first worker would else have done everything before the second has started.
        until = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        return gpus

    with_gpus = nodes.cluster.add_node(num_cpus=4, num_gpus=2)
    found = []
    pieces = [Piece(number, f"shard {number}", 1) for number in range(8)]
    dispatch(work, pieces, lambda _, gpus: found.append(gpus), replace(nodes.engine, gpus=True))
    nodes.cluster.remove_node(with_gpus)
    assert len(found) == 8
    assert {len(gpus) for gpus in found} == {1}
    assert len(set(found)) == 2


@pytest.mark.parametrize(("path", "precision"), [("mkl", "highest"), ("onednn", "medium")])
def test_workers_multiply_by_the_drivers_library(nodes, path, precision):
    nodes.replace()

    def work(number, progress):
        return torch.get_float32_matmul_precision()

    earlier, found = in_use(), []
    use(path)
    try:
        dispatch(work, [Piece(0, "shard 0", 1)], lambda _, used: found.append(used), nodes.engine)
    finally:
        use(earlier)
    assert found == [precision]


def test_a_wrong_device_is_refused(folder, on_ray):
    refused, _ = on_ray("eval", folder / "model.safetensors", f"{folder}/data/*", "--device", "cuda")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "no node of the Ray cluster has a GPU" in refused.stderr


def test_ray_prints_no_message_of_its_own(nodes, capsys):
    stopped = threading.Event()

    class OneMessage:
        def subscribe(self):
            pass

        def poll(self):
            stopped.set()
            return None, {"job_id": None, "error_message": "a node died"}

    connected(nodes.engine.address)
    listening = SimpleNamespace(gcs_error_subscriber=OneMessage(), current_job_id=worker.global_worker.current_job_id)
    worker.listen_error_messages(listening, stopped)
    assert stopped.is_set()
    assert capsys.readouterr() == ("", "")


def test_errors_of_ours_arrive_as_they_are_and_leave_no_worker(nodes, tmp_path):
    nodes.replace()

    class Asking:
        def __init__(self, opened):
            self.opened = opened

    def refuse(number, progress):
        raise InputError("the records are of another kind")

    pieces = [Piece(number, f"shard {number}", 1) for number in range(6)]
    with pytest.raises(InputError, match="^the records are of another kind$"):
        dispatch(refuse, pieces, print, nodes.engine)
    with pytest.raises(InputError, match=f"node [0-9.]+: {tmp_path}/elsewhere is not there; every node must see"):
        dispatch(refuse, pieces, print, nodes.engine, shared=[f"{tmp_path}/elsewhere"])
    absent = opened_there(lambda: read_vocabulary(tmp_path / "absent.csv"))
    with pytest.raises(InputError, match="node [0-9.]+: .*absent.csv"):
        dispatch(Asking(absent), pieces, print, nodes.engine)
    until = time.monotonic() + 20
    while nodes.busy_cpus() and time.monotonic() < until:
        time.sleep(0.2)
    assert not nodes.busy_cpus()


def test_errors_of_workers_name_options_as_they_are_named_here(nodes):
    nodes.replace()

    def refuse(number, progress):
        raise InputError(f"add {option('top_k', 3)}")

    for chosen, words in ((in_python, "add top_k=3"), (in_flags, "add --top-k 3")):
        earlier = set_wording(chosen)
        try:
            with pytest.raises(InputError, match=f"^{words}$"):
                dispatch(refuse, [Piece(0, "shard 0", 1)], print, nodes.engine)
        finally:
            set_wording(earlier)


def test_a_piece_that_kills_its_workers_is_given_up(nodes):
    def die_at_four(number, progress):
        if number == 4:
            os._exit(1)
        return number

    done, heard = [], Heard()
    pieces = [Piece(number, f"shard {number}", 1) for number in range(6)]
    with pytest.raises(
        TopgbError, match="3 workers failed at shard 4, so it is given up; the last one: its process died; if"
    ) as caught:
        dispatch(die_at_four, pieces, lambda number, _: done.append(number), nodes.engine, heard)
    assert "\n" not in str(caught.value)
    assert 4 not in done
    assert len(heard.said) == 2


def test_a_failure_that_no_one_foresaw_is_tried_again(nodes, tmp_path):
    def fail_once(number, progress):
        if number == 2 and not (tmp_path / "failed").exists():
            (tmp_path / "failed").touch()
            raise MemoryError("no room for shard 2")
        return number

    done, heard = [], Heard()
    dispatch(fail_once, [Piece(n, f"shard {n}", 1) for n in range(4)], lambda n, _: done.append(n), nodes.engine, heard)
    assert sorted(done) == [0, 1, 2, 3]
    assert len(heard.said) == 1
    assert "shard 2: a worker on node" in heard.said[0]
    assert "(MemoryError: no room for shard 2)" in heard.said[0]


def test_workers_that_cannot_start_are_given_up(nodes):
    class Unopenable:
        def __reduce__(self):
            return os._exit, (1,)

    with pytest.raises(
        TopgbError, match="no worker could start on the Ray cluster; the last one: its process died; if"
    ):
        dispatch(Unopenable(), [Piece(0, "shard 0", 1)], print, nodes.engine)


def test_segments_are_ranked_alike(folder, on_ray, tmp_path):
    options = SynthOptions(videos_per_shard=8, frames=(20, 30), segments=3)
    write_synthetic(tmp_path / "rated", SMALL_SPEC, SMALL_CLASSES, 24, options)
    command = ["eval", folder / "model.safetensors", tmp_path / "rated", "--segments", "--k", "30", "--json"]
    here = topgb(*command)
    there, _ = on_ray(*command)
    assert (there.returncode, there.stdout) == (0, here.stdout)
    command = ["predict", folder / "model.safetensors", tmp_path / "rated", "--segments", "--out"]
    topgb(*command, tmp_path / "here.csv")
    assert on_ray(*command, tmp_path / "there.csv")[0].returncode == 0
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()
