"""Training and inference of this checkout beside another one's, or TensorFlow's, alternating in the same minutes.

.venv/bin/python benchmarks/models.py --against ../earlier-checkout [--only netvlad,bilstm] [--rounds 15] [--threads 2]
.venv/bin/python benchmarks/models.py --tensorflow [--only netvlad,bilstm] [--rounds 15] [--threads 2]

Each checkout's `src/topgb` runs in a process of its own. One step of training is `Learner.update`, all that the
training loop does but reading; inference is `predict_batch` of the same model, loaded from its file. Both processes
make the settings of `topgb train` and get the same batch. They take turns, one call each; a figure is the median of the
rounds, and the last column has the ratio of both checkouts' best calls, which other programs disturb least.
`--clock cpu` counts processor time, which with one thread means something on a busy machine, too.

With `--tensorflow` the other is the model of 2018 in TensorFlow 2.15, always in float32 (`graphs_of_2018.py`). The
first run puts that into an environment of its own, `.venv-tensorflow-2018` (1.3 GB). Before anything is timed both have
to give the same probabilities with the same weights.
"""

import argparse
import inspect
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from families import BATCH, FAMILIES, IN_TENSORFLOW

from serving import Server, machine, own_environment, serve, start

HERE = Path(__file__).resolve().parents[1]
# What a process is asked for: training, and inference of so many videos.
TASKS = ("train", f"infer {BATCH}", "infer 1")
PRECISIONS = ("float32", "bfloat16")
# Seconds between two calls: threads that wait for work look for it for a while, which would take the other's time.
PAUSE = 0.02
# Probabilities of the same weights may differ by this: sums of a thousand float32 products in another order.
MOST_DIFFERENCE = 1e-5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--against", type=Path, help="another checkout of topgb, to alternate with this one")
    parser.add_argument("--tensorflow", action="store_true", help="the models of 2018, to alternate with these")
    parser.add_argument("--rounds", type=int, default=15, help="with one of these: calls of each side")
    parser.add_argument("--threads", type=int, default=2, help="with one of these: threads of each")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="with one of these")
    parser.add_argument("--precision", default=",".join(PRECISIONS), help="with one of these: separated by commas")


def alternate(options: argparse.Namespace) -> None:
    """Print the table of this checkout and the other, or TensorFlow."""
    known = IN_TENSORFLOW if options.tensorflow else tuple(FAMILIES)
    chosen = [name.strip() for name in options.only.split(",") if name.strip()] or known
    if unknown := set(chosen) - set(known):
        sys.exit(f"there is no {', '.join(sorted(unknown))} to compare; there are {', '.join(known)}")
    print(f"{machine()}, {options.threads} threads, {options.clock} clock, median of {options.rounds}\n")
    print("| model | arithmetic | task | videos/s | the other's | ratio | of the best |\n|---|---|---|---|---|---|---|")
    for name in chosen:
        if options.tensorflow:
            _compare(name, options.threads)
        for precision in options.precision.split(","):
            # No server waits beside those that are timed: its threads would take processor time.
            servers = [
                _checkout(HERE, name, precision, options.threads),
                _tensorflow(name, options.threads)
                if options.tensorflow
                else _checkout(options.against.resolve(), name, precision, options.threads),
            ]
            for task in TASKS:
                seconds: list[list[float]] = [[], []]
                for round_ in range(options.rounds + 1):
                    for server, own in zip(servers, seconds, strict=True):
                        time.sleep(PAUSE)
                        found = server.ask(task)[options.clock]
                        if round_ > 0:
                            own.append(found)
                videos = 1 if task == "infer 1" else BATCH
                ours, theirs = (videos / statistics.median(own) for own in seconds)
                best = min(seconds[1]) / min(seconds[0])
                row = (name, precision, task, f"{ours:,.1f}", f"{theirs:,.1f}", f"{ours / theirs:.2f}", f"{best:.2f}")
                print("| " + " | ".join(row) + " |", flush=True)
            for server in servers:
                server.stop()


def _checkout(folder: Path, name: str, precision: str, threads: int) -> Server:
    return start(sys.executable, Path(__file__), [name, precision], threads=threads, source=folder / "src")


def _tensorflow(name: str, threads: int) -> Server:
    python = own_environment(".venv-tensorflow-2018", "requirements-tensorflow-2018.txt")
    return start(python, Path(__file__).with_name("graphs_of_2018.py"), [name, str(threads)], threads=threads)


def _compare(name: str, threads: int) -> None:
    """Refuse to time a graph of TensorFlow that computes something else than topgb with the graph's weights."""
    import torch

    from topgb.features import YOUTUBE8M_CLASSES, YOUTUBE8M_FRAMES
    from topgb.from2018.variables import state_from_variables
    from topgb.models import build_tagger, parse_model

    with tempfile.TemporaryDirectory() as folder:
        server = _tensorflow(name, threads)
        server.ask(f"save {folder}/model.npz")
        server.stop()
        with np.load(f"{folder}/model.npz") as saved:
            variables = dict(saved)
    expected, features = variables.pop("predictions"), torch.from_numpy(variables.pop("features"))
    tagger = build_tagger(YOUTUBE8M_FRAMES, YOUTUBE8M_CLASSES, parse_model(FAMILIES[name])).eval()
    tagger.load_state_dict(state_from_variables(tagger, variables))
    with torch.inference_mode():
        found = tagger.predict(features, torch.full((len(features),), features.shape[1], dtype=torch.int32)).numpy()
    difference = float(np.abs(found - expected).max())
    assert difference <= MOST_DIFFERENCE, f"{name} differs by {difference}"


def _serve(name: str, precision: str) -> None:
    import torch

    from topgb.devices import flush_subnormals, keep_freed_memory

    keep_freed_memory()
    flush_subnormals()
    # Of checkouts that choose one, the library that commands would multiply by.
    with suppress(ImportError):
        from topgb.matmul_library import choose, use

        use(choose().path)
    torch.manual_seed(0)
    tasks: dict[str, Callable[[], object]] = {}

    def answer(task: str) -> dict[str, float]:
        if task not in tasks:
            # The first call is not counted, so it may make what later ones use.
            tasks.clear()
            tasks[task] = (
                _training(name, precision)
                if task == "train"
                else prediction(FAMILIES[name], precision, int(task.removeprefix("infer ")))
            )
            tasks[task]()
        began, cpu = time.perf_counter(), time.process_time()
        tasks[task]()
        return {"wall": time.perf_counter() - began, "cpu": time.process_time() - cpu}

    serve({}, answer)


def random_batch(videos: int):
    """Stored features of full length, the same for each number of videos, and a few labels a video."""
    import torch

    from topgb.batch import Batch
    from topgb.features import YOUTUBE8M_CLASSES, YOUTUBE8M_FRAMES, YOUTUBE8M_MAX_FRAMES

    generator = torch.Generator().manual_seed(0)
    shape = (videos, YOUTUBE8M_MAX_FRAMES, YOUTUBE8M_FRAMES.width)
    return Batch(
        ids=[str(number) for number in range(videos)],
        features=torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        num_frames=torch.full((videos,), YOUTUBE8M_MAX_FRAMES, dtype=torch.int32),
        labels=torch.rand(videos, YOUTUBE8M_CLASSES, generator=generator) < 3 / YOUTUBE8M_CLASSES,
    )


def _training(name: str, precision: str) -> Callable[[], object]:
    import torch
    from lightning_fabric import Fabric

    from topgb.features import YOUTUBE8M_CLASSES, YOUTUBE8M_FRAMES
    from topgb.models import build_tagger
    from topgb.training.learner import Learner
    from topgb.training.recipe import parse_recipe

    features = [{"name": feature.name, "size": feature.size} for feature in YOUTUBE8M_FRAMES.features]
    recipe = parse_recipe(
        {
            "data": {"level": "frame", "features": features, "classes": YOUTUBE8M_CLASSES},
            "model": FAMILIES[name],
            "training": {"precision": precision},
            "optimizer": {"learning_rate": 1e-4},
        }
    )
    tagger = build_tagger(YOUTUBE8M_FRAMES, YOUTUBE8M_CLASSES, recipe.model_section()).train()
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed" if precision == "bfloat16" else "32-true")
    learner, batch, videos = Learner(recipe, tagger, fabric), random_batch(BATCH), torch.tensor(BATCH)
    return lambda: learner.update(batch, learner.updates, 1e-4, videos)


def prediction(section: dict, precision: str, videos: int, device: str = "cpu") -> Callable[[], object]:
    """A call of `predict_batch` for so many videos, of a model of this section with random weights, from its file."""
    import torch

    from topgb.features import YOUTUBE8M_CLASSES, YOUTUBE8M_FRAMES
    from topgb.modelfile import Header, Member, load, write_model_file
    from topgb.modelfile.member import encode_member
    from topgb.models import build_tagger, parse_model

    config = parse_model(section)
    entries, tensors = encode_member(0, build_tagger(YOUTUBE8M_FRAMES, YOUTUBE8M_CLASSES, config).state_dict())
    header = Header(YOUTUBE8M_FRAMES, YOUTUBE8M_CLASSES, (Member(1.0, config),), entries)
    with tempfile.TemporaryDirectory() as folder:
        write_model_file(Path(folder) / "model.safetensors", header, tensors)
        # An earlier checkout may know no precision: autocast is what it could do.
        known = "precision" in inspect.signature(load).parameters
        model = load(Path(folder) / "model.safetensors", device, **({"precision": precision} if known else {}))
        batch = random_batch(videos).to(torch.device(device))
        # The file is mapped: read it while it is there.
        model.predict_batch(batch)

    def predict() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16" and not known):
            model.predict_batch(batch)

    return predict


if __name__ == "__main__":
    _serve(*sys.argv[1:])
