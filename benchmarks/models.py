"""Training and inference speed of every family of models, beside this machine's own matrix-product peak.

.venv/bin/python benchmarks/models.py [--only netvlad,bilstm] [--device cuda] [--full] [--seconds 4]
.venv/bin/python benchmarks/models.py --against ../earlier-checkout [--only netvlad] [--rounds 15] [--threads 2]
.venv/bin/python benchmarks/models.py --tensorflow [--only netvlad] [--rounds 15] [--threads 2]

One step of training is what the training loop does without reading: frontend, forward, loss, backward, clipping, Adam.
Inference is `predict_batch` of a model that was loaded from its file; compiled it is the network's own call. Speeds are
medians, the peak is the best of several runs. GFLOP/s count the matrix products that PyTorch was asked for
(recurrent kernels by formula, without the gradient of the frames, which nobody asks for), so work that a model avoids
is not credited. Sizes are those of the table of the 2018 code's speed (1024 + 128 bytes a frame, each video 300 frames,
3,862 classes, batch 32, MoE of two mixtures); `--full` measures inference at the sizes of 2018's recipes instead.

The peaks of a CPU are printed by each path: MKL, oneDNN in float32, bfloat16, and the speed at which dot products read
memory. Where oneDNN reaches 300 to 600 GFLOP/s and the 2018 code's speed is known, the last columns are multiples of
what that code is expected to reach here, by this machine's own peaks.

`--against` compares with another checkout of topgb (`git worktree add ../earlier-checkout COMMIT`), `--tensorflow` with
the models of 2018 in TensorFlow on this machine: see `benchmarks/against.py`.
"""

import argparse
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import NamedTuple

import torch
from against import add_arguments, alternate, prediction, random_batch
from families import BATCH, FAMILIES
from torch.utils.flop_counter import FlopCounterMode

from topgb.devices import choose_device, computes_in_bfloat16, flush_subnormals, keep_freed_memory
from topgb.evaluation.metrics import cross_entropy
from topgb.features import YOUTUBE8M_CLASSES, YOUTUBE8M_FRAMES
from topgb.matmul_library import choose, in_use, use
from topgb.models import Tagger, build_tagger, parse_model
from topgb.models.factored import keep_factors
from topgb.training.optimizer import TF1Adam
from topgb.training.recipe import load_recipe

RECIPES_OF_2018 = (
    "netvlad1", "netvlad2", "netfv", "gated-dbof1", "gated-dbof2", "gated-dbof3", "rnn1", "rnn3",
)  # fmt: skip
# What the 2018 code reaches under TensorFlow 2.15.1: videos a second of training and of inference for each GFLOP/s of
# the machine's oneDNN peak in float32, and of inference one by one for each GB/s of its dot products. Measured beside
# topgb on a machine whose peak was 450 GFLOP/s, and whose dot products read 46 GB/s.
SPEED_OF_2018 = {
    "netvlad": (0.416, 1.81, 163 / 46),
    "netvlad-gated": (0.358, 1.64, 130 / 46),
    "gated_dbof": (0.272, 0.967, 183 / 46),
    "bilstm": (0.0313, 0.215, 10.6 / 46),
    "bigru-2018": (0.0485, 0.233, 8.4 / 46),
}
MKL, ONEDNN, DOTS = "MKL's float32 peak, GFLOP/s", "oneDNN's float32 peak, GFLOP/s", "dot products, GB/s"
# Elsewhere other things than products bound the 2018 code, and to scale its speed by them would mean nothing.
COMPARABLE = range(300, 600)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="families or recipes, separated by commas")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--seconds", type=float, default=4.0, help="least time spent on each figure")
    parser.add_argument("--full", action="store_true", help="inference at the sizes of 2018's recipes")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--untuned", action="store_true", help="leave the allocator and subnormal floats as they are")
    add_arguments(parser)
    options = parser.parse_args()
    if options.against is not None or options.tensorflow:
        alternate(options)
        return
    if not options.untuned:
        keep_freed_memory()
        flush_subnormals()
    device = choose_device(options.device)
    # Before the path is chosen, by PyTorch's default: oneDNN's dot products are far slower.
    scales = cpu_scales() if device.type == "cpu" else {}
    if device.type == "cpu":
        # As the commands do.
        use(choose().path)
    precisions = [torch.float32] + ([torch.bfloat16] if computes_in_bfloat16(device) else [])
    peaks = {dtype: matrix_peak(device, dtype) for dtype in precisions}
    print(f"{_machine(device)}, torch {torch.__version__}, {torch.get_num_threads()} threads, batch {options.batch}")
    print("matrix-product peak: " + ", ".join(f"{_name(d)} {p:.0f} GFLOP/s" for d, p in peaks.items()))
    print("".join(f"{name}: {value:.0f}\n" for name, value in scales.items()))
    if scales:
        print(f"float32 products by {in_use()}\n")
    chosen = [name.strip() for name in options.only.split(",") if name.strip()]
    sections = {name: load_recipe(name).model for name in RECIPES_OF_2018} if options.full else FAMILIES
    unknown = set(chosen) - set(sections)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {'; '.join(sections)}")
    tasks = [(False, options.batch)] if options.full else [(True, options.batch), (False, options.batch), (False, 1)]
    compiled = [False] + ([True] if not options.no_compile and not options.full and shutil.which("g++") else [])
    print("| model | parameters | arithmetic | training videos/s | GFLOP/s | of peak | inference videos/s | GFLOP/s | "
          "of peak | one by one | × 2018: training | inference | one by one |\n"
          "|---|---|---|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for name in chosen or sections:
        for dtype in precisions:
            for compile_it in compiled:
                row = measure(sections[name], device, dtype, compile_it, tasks, options.seconds)
                print("| " + " | ".join([name, *cells(name, row, dtype, peaks, scales)]) + " |", flush=True)


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """GFLOP/s of the fastest of a few products of square and of tall matrices, best of several runs."""
    best = 0.0
    shapes = [(2048, 2048, 2048), (9600, 1024, 1024), (4096, 1024, 4096)]
    if device.type == "cuda":
        # The products above take a GPU some 20 microseconds, as long as it takes to ask for one and to wait for it.
        shapes += [(8192, 8192, 8192), (48000, 1024, 4096)]
    for rows, inner, columns in shapes:
        a, b = (torch.randn(shape, device=device, dtype=dtype) for shape in ((rows, inner), (inner, columns)))
        seconds = min(timed(lambda a=a, b=b: a @ b, device, least=0.5))
        best = max(best, 2 * rows * inner * columns / seconds / 1e9)
    return best


def cpu_scales() -> dict[str, float]:
    """By name: GFLOP/s of MKL and oneDNN in float32, and GB/s of dot products; the last two scale 2018's speed."""
    cpu, size = torch.device("cpu"), 2048
    a, b = torch.randn(2, size, size)
    # The operator computes in float32 always; the process-wide setting means bfloat16 on some processors.
    seconds = min(timed(lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""), cpu, least=0.5))
    by_mkl = min(timed(lambda: a @ b, cpu, least=0.5))
    values = torch.randn(1 << 26)
    read = min(timed(lambda: torch.dot(values, values), cpu, least=0.5))
    return {MKL: 2 * size**3 / by_mkl / 1e9, ONEDNN: 2 * size**3 / seconds / 1e9, DOTS: values.nbytes / read / 1e9}


class Row(NamedTuple):
    """The figures of a family: parameters, whether it was compiled, and (videos/s, GFLOP/s), or an error, by task."""

    parameters: int
    compiled: bool
    speeds: dict[tuple[bool, int], tuple[float, float] | str]


def measure(
    section: dict,
    device: torch.device,
    dtype: torch.dtype,
    compile_it: bool,
    tasks: list[tuple[bool, int]],
    least: float,
) -> Row:
    """Measure one family in one arithmetic; `tasks` are training (True) or inference (False) of so many videos."""
    torch.manual_seed(0)
    tagger = build_tagger(YOUTUBE8M_FRAMES, YOUTUBE8M_CLASSES, parse_model(section)).to(device)
    row = Row(sum(parameter.numel() for parameter in tagger.parameters()), compile_it, {})
    for training, videos in tasks:
        torch._dynamo.reset()
        try:
            if training or compile_it:
                step = _step(tagger, device, dtype, training, compile_it, videos)
            else:
                step = prediction(section, _name(dtype), videos, str(device))
            with FlopCounterMode(display=False, custom_mapping=RECURRENT_FLOPS) as counter:
                _step(tagger, device, dtype, training, False, videos)()
            seconds = statistics.median(timed(step, device, least))
        except Exception as error:
            if not compile_it and not isinstance(error, torch.cuda.OutOfMemoryError):
                raise
            # What torch.compile raises is of many kinds, and a GPU may be too small; the table says so.
            row.speeds[training, videos] = f"fails: {type(error).__name__}"
            continue
        finally:
            # Before the next task makes an optimiser of its own, this one's must go.
            step = None
        row.speeds[training, videos] = (videos / seconds, counter.get_total_flops() / seconds / 1e9)
    return row


def cells(
    name: str, row: Row, dtype: torch.dtype, peaks: dict[torch.dtype, float], scales: dict[str, float]
) -> list[str]:
    """The cells behind the name."""
    found = [f"{row.parameters / 1e6:.1f} M", _name(dtype) + (", compiled" if row.compiled else "")]
    tasks = list(row.speeds)
    for training in (True, False):
        task = next((task for task in tasks if task[0] is training), None)
        speed = "" if task is None else row.speeds[task]
        if isinstance(speed, str):
            found += [speed, "", ""]
        else:
            found += [f"{speed[0]:,.1f}", f"{speed[1]:,.0f}", f"{speed[1] / peaks[dtype]:.0%}"]
    alone = row.speeds.get((False, 1), "")
    found.append(alone if isinstance(alone, str) else f"{alone[0]:,.1f}")
    expected = SPEED_OF_2018.get(name)
    comparable = scales and int(scales[ONEDNN]) in COMPARABLE
    for number, task in enumerate(((True, BATCH), (False, BATCH), (False, 1))):
        speed = row.speeds.get(task, "")
        if expected is None or not comparable or isinstance(speed, str):
            found.append("")
        else:
            found.append(f"{speed[0] / (expected[number] * scales[DOTS if task[1] == 1 else ONEDNN]):.2f}")
    return found


def _step(
    tagger: Tagger, device: torch.device, dtype: torch.dtype, training: bool, compile_it: bool, batch: int
) -> Callable[[], None]:
    given = random_batch(batch).to(device)
    tagger.train(training)
    model = torch.compile(tagger) if compile_it else tagger

    def autocast():
        return torch.autocast(device.type, dtype) if dtype != torch.float32 else nullcontext()

    @torch.inference_mode()
    def infer() -> None:
        with autocast():
            model(*tagger.frontend(given.features, given.num_frames))

    if not training:
        return infer
    layers = keep_factors(tagger) if device.type == "cpu" and not compile_it else []
    optimizer = TF1Adam(tagger.parameters(), 1e-4, clip_norm=1.0, factored=layers)

    def train() -> None:
        frames, counts = tagger.frontend(given.features, given.num_frames)
        with autocast():
            probabilities = model(frames, counts)
        (cross_entropy(probabilities.float(), given.labels) + tagger.regularization()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return train


def timed(step: Callable[[], object], device: torch.device, least: float) -> Iterator[float]:
    """Seconds of each of several calls, after two that are not counted: for `least` seconds, and five at least."""
    step()
    step()
    began = time.perf_counter()
    count = 0
    while count < 5 or time.perf_counter() - began < least:
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        yield time.perf_counter() - start
        count += 1


def _lstm_flops(input_shape, own_shape, recurrent_shape, *_, out_shape=None, **__) -> int:
    steps_and_batch = input_shape[0] * input_shape[1]
    return 2 * steps_and_batch * (own_shape[0] * own_shape[1] + recurrent_shape[0] * recurrent_shape[1])


def _lstm_backward_flops(input_shape, own_shape, recurrent_shape, *_, out_shape=None, **__) -> int:
    steps_and_batch = input_shape[0] * input_shape[1]
    own, recurrent = own_shape[0] * own_shape[1], recurrent_shape[0] * recurrent_shape[1]
    # oneDNN computes the gradient of its input always; that of the frames is not wanted.
    of_input = 0 if own_shape[1] == YOUTUBE8M_FRAMES.width else own
    return 2 * steps_and_batch * (own + of_input + 2 * recurrent)


def _cudnn_flops(input_shape, weight_shapes, *_, out_shape=None, **__) -> int:
    # All layers and directions in one call; biases are vectors.
    steps_and_batch = input_shape[0] * input_shape[1]
    return 2 * steps_and_batch * sum(shape[0] * shape[1] for shape in weight_shapes if len(shape) == 2)


def _cudnn_backward_flops(input_shape, weight_shapes, *_, out_shape=None, **__) -> int:
    both = 2 * _cudnn_flops(input_shape, weight_shapes)
    # On a GPU the frames have one more input, which is 1 at padding.
    if input_shape[2] not in (YOUTUBE8M_FRAMES.width, YOUTUBE8M_FRAMES.width + 1):
        return both
    steps_and_batch = input_shape[0] * input_shape[1]
    own = sum(shape[0] * shape[1] for shape in weight_shapes if len(shape) == 2 and shape[1] == input_shape[2])
    return both - 2 * steps_and_batch * own


# PyTorch counts neither oneDNN's nor cuDNN's kernels.
RECURRENT_FLOPS = {
    torch.ops.aten._cudnn_rnn: _cudnn_flops,
    torch.ops.aten._cudnn_rnn_backward: _cudnn_backward_flops,
    torch.ops.aten.mkldnn_rnn_layer: _lstm_flops,
    torch.ops.aten.mkldnn_rnn_layer_backward: _lstm_backward_flops,
}


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _name(dtype: torch.dtype) -> str:
    return {torch.float32: "float32", torch.bfloat16: "bfloat16"}[dtype]


if __name__ == "__main__":
    main()
