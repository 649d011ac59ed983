"""A GRU's step of training on a CPU: PyTorch's own kernel against the steps written out in `topgb.models.gru_steps`.

.venv/bin/python benchmarks/gru.py
"""

import time

import torch

from topgb.models.recurrent import ResetAfterGRU

BATCH, FRAMES, WIDTH, CELLS = 32, 300, 1152, 256


def main() -> None:
    torch.manual_seed(0)
    layer = ResetAfterGRU(WIDTH, CELLS, bidirectional=True)
    frames = torch.randn(BATCH, FRAMES, WIDTH)
    print(f"bidirectional, {CELLS} cells each way, {BATCH} videos of {FRAMES} frames of {WIDTH} values\n")
    print("| GRU | forward | forward and backward |\n|---|---|---|")
    for name, run in (("PyTorch's", layer._by_cudnn), ("topgb's", layer._by_steps)):
        with torch.inference_mode():
            forward = seconds(lambda run=run: run(frames, None))
        both = seconds(lambda run=run: run(frames, None).sum().backward())
        print(f"| {name} | {forward:.2f} s | {both:.2f} s |")


def seconds(step) -> float:
    """The best of three calls."""
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        step()
        taken.append(time.perf_counter() - began)
    return min(taken)


if __name__ == "__main__":
    main()
