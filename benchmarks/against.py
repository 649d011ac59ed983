"""Training and inference of this checkout beside another one's, alternating in the same minutes.

.venv/bin/python benchmarks/models.py --against ../earlier-checkout [--only netvlad,bilstm] [--rounds 15] [--threads 2]

Each checkout's `src/topgb` runs in a process of its own. One step of training is `Learner.update`, all that the
training loop does but reading; inference is `predict_batch` of the same model, loaded from its file. Both processes
make the settings of `topgb train` and get the same batch. They take turns, one call each; a figure is the median of the
rounds, and the last column has the ratio of both checkouts' best calls, which other programs disturb least.
`--clock cpu` counts processor time, which with one thread means something on a busy machine, too.
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

from families import BATCH, FAMILIES

from serving import machine, serve, start

HERE = Path(__file__).resolve().parents[1]
# What a process is asked for: training, and inference of so many videos.
TASKS = ("train", f"infer {BATCH}", "infer 1")
PRECISIONS = ("float32", "bfloat16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--against", type=Path, help="another checkout of topgb, to alternate with this one")
    parser.add_argument("--rounds", type=int, default=15, help="with --against: calls of each checkout")
    parser.add_argument("--threads", type=int, default=2, help="with --against: threads of each process")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="with --against")
    parser.add_argument("--precision", default=",".join(PRECISIONS), help="with --against: separated by commas")


def alternate(options: argparse.Namespace) -> None:
    """Print the table of both checkouts."""
    sources = [HERE / "src", options.against.resolve() / "src"]
    print(f"{machine()}, {options.threads} threads, {options.clock} clock, median of {options.rounds}\n")
    print("| model | arithmetic | task | videos/s | the other's | ratio | of the best |\n|---|---|---|---|---|---|---|")
    for name in filter(None, options.only.split(",") if options.only else FAMILIES):
        for precision in options.precision.split(","):
            # No server waits beside those that are timed: its threads would take processor time.
            servers = [
                start(sys.executable, Path(__file__), [name, precision], threads=options.threads, source=source)
                for source in sources
            ]
            for task in TASKS:
                seconds: list[list[float]] = [[], []]
                for round_ in range(options.rounds + 1):
                    for server, own in zip(servers, seconds, strict=True):
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
