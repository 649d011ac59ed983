"""What several tests share: small synthetic records, where real records lie, and which files begin."""

import gc
import multiprocessing
import os
import signal

# Tests compare bits, and with several threads one run in fourteen rounds a sum in another order. `make test-portable`
# sets its own number of threads. PyTorch reads it when it is imported.
if "TOPGB_PORTABLE" not in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
# Nothing is timed: a choice would differ between machines, and stay for the tests that follow.
os.environ.setdefault("TOPGB_MATMUL", "mkl")
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import surroundings
from faults import figures
from faults.programs import Zygote
from topgb.features import Feature, FeatureSpec
from topgb.records.synth import SynthOptions, write_synthetic

SHARED = Path(__file__).resolve().parents[2] / "shared"
SMALL_SPEC = FeatureSpec("frame", (Feature("rgb", 32), Feature("audio", 8)))
SMALL_CLASSES = 12
# `make test` begins with the files that take longest, so that its workers end at about the same time.
LONGEST = (
    "jobs/test_cluster.py",
    "modelfile/test_export.py",
    "faults/test_kill_points.py",
    "training/test_ranks.py",
    "faults/test_interrupt.py",
    "test_demonstration.py",
    "training/test_loop.py",
    "training/test_parents.py",
    "training/test_memory.py",
    "faults/test_disk.py",
    "training/test_cautions.py",
    "faults/test_kill.py",
    "training/test_real_data.py",
    "modelfile/test_packed_memory.py",
    "modelfile/test_export_page.py",
    "cli/test_every_model_command.py",
    "training/test_teacher.py",
    "training/test_class_names.py",
    "faults/test_sets.py",
    "combining/test_rerank.py",
    "models/test_sweep.py",
    "combining/test_shrink.py",
    "modelfile/test_packed_linear.py",
    "from2018/test_importing.py",
    "combining/test_remember.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than there are cores: some tests wait for nodes, signals and clocks."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    # The collector of garbage need not look through all modules again whenever a test makes many objects.
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    # In a worker of xdist; its process prints nothing.
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["killed"] = figures.TABLE


def pytest_unconfigure() -> None:
    surroundings.remove()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    figures.add(getattr(node, "workeroutput", {}).get("killed", {}))


def pytest_terminal_summary(terminalreporter) -> None:
    if figures.lines():
        terminalreporter.section("killed, and run again")
        for line in figures.lines():
            terminalreporter.write_line(line)


@pytest.fixture(scope="session", autouse=True)
def _heed_signals() -> Iterator[None]:
    """A shell has what it runs in the background ignore Ctrl-C, `nohup` a hangup, and programs inherit that."""
    earlier = {signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler)}
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        # Programs do not inherit a handler, and the tests themselves outlive their terminal as before.
        earlier[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: None)
    yield
    for number, handler in earlier.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module", autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """A process that reads ahead must end with what it read for, whether that ended well or in an error."""
    yield
    assert multiprocessing.active_children() == []


@pytest.fixture(scope="module", autouse=True)
def _signals_are_heard() -> Iterator[None]:
    """What a test ignores, later tests would not hear, nor would the programs that they start."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) is signal.SIG_IGN for number in numbers]
    yield
    assert [signal.getsignal(number) is signal.SIG_IGN for number in numbers] == before


@pytest.fixture(scope="session")
def zygote(tmp_path_factory) -> Iterator[Zygote]:
    """Runs topgb in processes that need not import it."""
    program = Zygote(tmp_path_factory.mktemp("zygote"))
    yield program
    program.close()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The real records beside the checkout."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the real records (../shared/data beside the checkout) are absent")
    return folder


@pytest.fixture(scope="session")
def cases() -> Path:
    """Small inputs beside the checkout that were once answered wrongly, one folder for each kind."""
    folder = SHARED / "cases"
    if not folder.is_dir():
        pytest.skip("the cases (../shared/cases beside the checkout) are absent")
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For tests that compare bits and also run with several threads, which may add in another order each time."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small_records(tmp_path_factory) -> dict[str, str]:
    """Globs of small synthetic records of `SMALL_SPEC`: `train`, `validate`, `unlabelled`."""
    folder = tmp_path_factory.mktemp("records")
    for prefix, videos, seed in (("train", 230, 1), ("validate", 90, 2), ("unlabelled", 20, 3)):
        write_synthetic(
            folder,
            SMALL_SPEC,
            SMALL_CLASSES,
            videos,
            SynthOptions(videos_per_shard=70, frames=(4, 9), seed=seed, prefix=prefix, labelled=prefix != "unlabelled"),
        )
    return {prefix: str(folder / f"{prefix}*.tfrecord") for prefix in ("train", "validate", "unlabelled")}


@pytest.fixture(scope="session")
def small_recipe(tmp_path_factory) -> Path:
    """A recipe that trains on `small_records` in a second or two."""
    recipe = {
        "data": {
            "level": "frame",
            "features": [{"name": "rgb", "size": 32}, {"name": "audio", "size": 8}],
            "classes": SMALL_CLASSES,
        },
        "model": {
            "aggregator": "netvlad",
            "clusters": {"rgb": 4, "audio": 2},
            "hidden": 16,
            "relu": False,
            "gating": True,
            "dropout": 0.1,
            "head": {"name": "moe"},
        },
        "training": {"batch_size": 32, "epochs": 3, "frames": "random:6", "batch_norm_momentum": 0.9},
        "optimizer": {"learning_rate": 0.01, "schedule": "cosine"},
        "ema": {"halflife": 10},
    }
    path = tmp_path_factory.mktemp("recipes") / "small.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path
