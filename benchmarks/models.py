"""Training and inference speed of every family of models, beside this machine's own matrix-product peak.

.venv/bin/python benchmarks/models.py [--only netvlad,bilstm] [--device cuda] [--full] [--seconds 4]
.venv/bin/python benchmarks/models.py --against ../earlier-checkout [--only netvlad] [--rounds 15] [--threads 2]

One step of training is what the training loop does without reading: frontend, forward, loss, backward, clipping, Adam.
Speeds are medians, the peak is the best of several runs. GFLOP/s count the matrix products that PyTorch was asked for
(recurrent kernels by formula, without the gradient of the frames, which nobody asks for), so work that a model avoids
is not credited. Sizes are those of the table of the 2018 code's speed (1024 + 128 bytes a frame, each video 300 frames,
3,862 classes, batch 32, MoE of two mixtures); `--full` measures inference at the sizes of 2018's recipes instead. Where
the 2018 code's own speed on a like machine is known, the last columns compare with it, scaled by both machines' float32
peaks.

`--against` compares with another checkout of topgb (`git worktree add ../earlier-checkout COMMIT`): see
`benchmarks/against.py`.
"""

import argparse
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from against import add_arguments, alternate
from families import BATCH, FAMILIES
from torch.utils.flop_counter import FlopCounterMode

from topgb.devices import choose_device, computes_in_bfloat16, flush_subnormals, keep_freed_memory
from topgb.evaluation.metrics import cross_entropy
from topgb.features import YOUTUBE8M_CLASSES, YOUTUBE8M_FRAMES, YOUTUBE8M_MAX_FRAMES
from topgb.models import Tagger, build_tagger, parse_model
from topgb.training.optimizer import TF1Adam, clip_each
from topgb.training.recipe import load_recipe

RECIPES_OF_2018 = (
    "netvlad1", "netvlad2", "netfv", "gated-dbof1", "gated-dbof2", "gated-dbof3", "rnn1", "rnn3",
)  # fmt: skip
# Videos a second in training and inference, measured with the 2018 code under TensorFlow 2.15 on 2 cores whose
# matrix-product peak through PyTorch was 125 GFLOP/s.
SPEED_OF_2018 = {
    "netvlad": (117, 499),
    "netvlad-gated": (103, 489),
    "gated_dbof": (70.5, 240),
    "bilstm": (7.2, 47),
}
PEAK_OF_2018 = 125.0


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
    if options.against is not None:
        alternate(options)
        return
    if not options.untuned:
        keep_freed_memory()
        flush_subnormals()
    device = choose_device(options.device)
    precisions = [torch.float32] + ([torch.bfloat16] if computes_in_bfloat16(device) else [])
    peaks = {dtype: matrix_peak(device, dtype) for dtype in precisions}
    print(f"{_machine(device)}, torch {torch.__version__}, {torch.get_num_threads()} threads, batch {options.batch}")
    print("matrix-product peak: " + ", ".join(f"{_name(d)} {p:.0f} GFLOP/s" for d, p in peaks.items()) + "\n")
    chosen = [name.strip() for name in options.only.split(",") if name.strip()]
    sections = {name: load_recipe(name).model for name in RECIPES_OF_2018} if options.full else FAMILIES
    unknown = set(chosen) - set(sections)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {'; '.join(sections)}")
    modes = [False] if options.full else [True, False]
    compiled = [False] + ([True] if not options.no_compile and not options.full and shutil.which("g++") else [])
    print("| model | parameters | arithmetic | training videos/s | GFLOP/s | of peak | inference videos/s | GFLOP/s | "
          "of peak | × 2018: training | inference |\n|---|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for name in chosen or sections:
        for dtype in precisions:
            for compile_it in compiled:
                row = measure(name, sections[name], device, dtype, compile_it, modes, options, peaks)
                print("| " + " | ".join(row) + " |", flush=True)


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """GFLOP/s of the fastest of a few products of square and of tall matrices, best of several runs."""
    best = 0.0
    for rows, inner, columns in ((2048, 2048, 2048), (9600, 1024, 1024), (4096, 1024, 4096)):
        a, b = (torch.randn(shape, device=device, dtype=dtype) for shape in ((rows, inner), (inner, columns)))
        seconds = min(timed(lambda a=a, b=b: a @ b, device, least=0.5))
        best = max(best, 2 * rows * inner * columns / seconds / 1e9)
    return best


def measure(
    name: str,
    section: dict,
    device: torch.device,
    dtype: torch.dtype,
    compile_it: bool,
    modes: list[bool],
    options: argparse.Namespace,
    peaks: dict[torch.dtype, float],
) -> list[str]:
    """The row of one family in one arithmetic; `modes` are training (True) and inference (False)."""
    torch.manual_seed(0)
    tagger = build_tagger(YOUTUBE8M_FRAMES, YOUTUBE8M_CLASSES, parse_model(section)).to(device)
    parameters = sum(parameter.numel() for parameter in tagger.parameters())
    row = [name, f"{parameters / 1e6:.1f} M", _name(dtype) + (", compiled" if compile_it else "")]
    ratios = []
    for training in (True, False):
        if training not in modes:
            row += ["", "", ""]
            ratios.append("")
            continue
        torch._dynamo.reset()
        try:
            step = _step(tagger, device, dtype, training, compile_it, options.batch)
            with FlopCounterMode(display=False, custom_mapping=RECURRENT_FLOPS) as counter:
                _step(tagger, device, dtype, training, False, options.batch)()
            seconds = statistics.median(timed(step, device, options.seconds))
        except Exception as error:
            if not compile_it:
                raise
            # What torch.compile raises is of many kinds; the table says that it did.
            row += [f"fails: {type(error).__name__}", "", ""]
            ratios.append("")
            continue
        videos = options.batch / seconds
        rate = counter.get_total_flops() / seconds / 1e9
        row += [f"{videos:,.1f}", f"{rate:,.0f}", f"{rate / peaks[dtype]:.0%}"]
        reference = SPEED_OF_2018.get(name)
        if reference is None or device.type != "cpu" or options.full or options.batch != BATCH:
            ratios.append("")
        else:
            scaled = videos / reference[0 if training else 1] * PEAK_OF_2018 / peaks[torch.float32]
            ratios.append(f"{scaled:.2f}")
    return row + ratios


def _step(
    tagger: Tagger, device: torch.device, dtype: torch.dtype, training: bool, compile_it: bool, batch: int
) -> Callable[[], None]:
    generator = torch.Generator().manual_seed(0)
    shape = (batch, YOUTUBE8M_MAX_FRAMES, YOUTUBE8M_FRAMES.width)
    features = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)
    num_frames = torch.full((batch,), YOUTUBE8M_MAX_FRAMES, dtype=torch.int32, device=device)
    labels = (torch.rand(batch, YOUTUBE8M_CLASSES, generator=generator) < 3 / YOUTUBE8M_CLASSES).to(device)
    tagger.train(training)
    model = torch.compile(tagger) if compile_it else tagger

    def autocast():
        return torch.autocast(device.type, dtype) if dtype != torch.float32 else nullcontext()

    @torch.inference_mode()
    def infer() -> None:
        with autocast():
            model(*tagger.frontend(features, num_frames))

    if not training:
        return infer
    optimizer = TF1Adam(tagger.parameters(), 1e-4)

    def train() -> None:
        frames, counts = tagger.frontend(features, num_frames)
        with autocast():
            probabilities = model(frames, counts)
        (cross_entropy(probabilities.float(), labels) + tagger.regularization()).backward()
        clip_each(tagger.parameters(), 1.0)
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


# PyTorch counts no cuDNN kernel, so on CUDA recurrent families' GFLOP/s lack their recurrent layers.
RECURRENT_FLOPS = {
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
