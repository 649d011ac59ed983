"""How long GAP, Hit@1, PERR, MAP and the loss take, and what they keep, on predictions over 3,862 classes.

    pip install -r benchmarks/requirements.txt
    .venv/bin/python benchmarks/metrics.py [--rounds 5] [--videos 20000] [--streamed 1000000]

Random probabilities and 3.4 labels a video, whose classes are as uneven as YouTube-8M's, in batches of 1,024. First
20,000 videos, also by scikit-learn's average precision with NumPy around it, whose figures must be the same. Then a
million videos batch by batch: a few batches scaled anew for each video, as the making of them is not what is measured.
"Kept" is resident memory after the last batch less that before the first, "at most" the same while computing the
figures.
"""

import argparse
import ctypes
import gc
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from serving import machine, memory
from topgb.devices import keep_freed_memory
from topgb.evaluation.metrics import LOSS_EPSILON, TOP_K, Metrics, Scores
from topgb.features import YOUTUBE8M_CLASSES

BATCH = 1024
LABELS_A_VIDEO = 3.4
BASES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--videos", type=int, default=20_000)
    parser.add_argument("--streamed", type=int, default=1_000_000)
    options = parser.parse_args()
    keep_freed_memory()
    probabilities, labels = predictions(options.videos)
    taken: list[float] = []
    for _ in range(options.rounds + 1):
        began = time.perf_counter()
        scores = by_topgb(probabilities, labels)
        taken.append(time.perf_counter() - began)
    seconds = statistics.median(taken[1:])
    began = time.perf_counter()
    check(by_scikit_learn(probabilities.numpy(), labels.numpy()), scores)
    others = {"scikit-learn and NumPy": time.perf_counter() - began}
    print(f"{machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| metrics by | videos | seconds | µs a video | topgb is times as fast |\n|---|---|---|---|---|")
    for name, needed in {"topgb": seconds, **others}.items():
        each = 1e6 * needed / options.videos
        print(f"| {name} | {options.videos:,} | {needed:.2f} | {each:.1f} | {needed / seconds:.1f} |")
    print("\n| streamed videos | adding, s | computing, s | µs a video | kept, bytes a video | at most |")
    print("|---|---|---|---|---|---|")
    adding, computing, kept, most = streamed(probabilities, labels, options.streamed)
    each = 1e6 * (adding + computing) / options.streamed
    sizes = f"{kept / options.streamed:.0f} | {most / options.streamed:.0f}"
    print(f"| {options.streamed:,} | {adding:.1f} | {computing:.1f} | {each:.1f} | {sizes} |")


def predictions(videos: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities float32 and labels bool [videos, V]; better than chance, and no better than real ones."""
    generator = torch.Generator().manual_seed(0)
    falling = 1 / torch.arange(3, YOUTUBE8M_CLASSES + 3)
    share = LABELS_A_VIDEO * falling / falling.sum()
    labels = torch.rand(videos, YOUTUBE8M_CLASSES, generator=generator) < share
    noise = torch.randn(videos, YOUTUBE8M_CLASSES, generator=generator)
    return noise.mul_(1.5).add_(share.log()).add_(labels, alpha=5).sigmoid_(), labels


def by_topgb(probabilities: torch.Tensor, labels: torch.Tensor) -> Scores:
    metrics = Metrics(YOUTUBE8M_CLASSES)
    for p, y in zip(probabilities.split(BATCH), labels.split(BATCH), strict=True):
        metrics.add(p, y)
    return metrics.compute()


def by_scikit_learn(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The same figures, written as one would with these libraries at hand."""
    from sklearn.metrics import average_precision_score

    def average_precision(hits: np.ndarray, scores: np.ndarray, positives: int) -> float:
        # scikit-learn divides by the positives that it sees, the challenge by all there are.
        return average_precision_score(hits, scores) * hits.sum() / positives if hits.any() else 0.0

    best = np.argpartition(probabilities, -TOP_K, axis=1)[:, -TOP_K:]
    scores, hits = (np.take_along_axis(values, best, axis=1) for values in (probabilities, labels))
    positives = labels.sum(0)
    by_class = np.argsort(best, axis=None, kind="stable")
    ends = np.cumsum(np.bincount(best.ravel(), minlength=labels.shape[1]))[:-1]
    pairs = zip(np.split(hits.ravel()[by_class], ends), np.split(scores.ravel()[by_class], ends), strict=True)
    averages = [average_precision(*pair, count) for pair, count in zip(pairs, positives, strict=True)]
    perr = 0.0
    for p, y in zip(probabilities, labels, strict=True):
        count = int(y.sum())
        if count:
            perr += y[np.argpartition(p, -count)[-count:]].mean()
    losses = np.where(labels, np.log(probabilities + LOSS_EPSILON), np.log(1 - probabilities + LOSS_EPSILON))
    return {
        "gap": average_precision(hits.ravel(), scores.ravel(), positives.sum()),
        "hit_at_1": float(labels[np.arange(len(labels)), probabilities.argmax(1)].mean()),
        "perr": perr / len(labels),
        "map": float(np.mean(averages)),
        "map_present": float(np.mean(np.array(averages)[positives > 0])),
        "loss": float(-losses.sum(1).mean()),
    }


def check(expected: dict[str, float], scores: Scores) -> None:
    for name, value in expected.items():
        # scikit-learn takes equal scores together, topgb one by one.
        np.testing.assert_allclose(getattr(scores, name), value, rtol=1e-4, err_msg=name)


def streamed(probabilities: torch.Tensor, labels: torch.Tensor, videos: int) -> tuple[float, float, int, int]:
    """Seconds of adding and of computing, bytes kept, and the most bytes while computing."""
    bases = list(zip(probabilities[: BASES * BATCH].split(BATCH), labels.split(BATCH), strict=False))
    generator = torch.Generator().manual_seed(1)
    scaled = torch.empty(BATCH, YOUTUBE8M_CLASSES)
    metrics, adding = Metrics(YOUTUBE8M_CLASSES), 0.0
    # Until the work space is there, which is not of the videos.
    Metrics(YOUTUBE8M_CLASSES).add(*bases[0])
    release_freed()
    before = memory("VmRSS")
    while metrics.videos < videos:
        base, hits = (part[: videos - metrics.videos] for part in bases[metrics.videos // BATCH % len(bases)])
        batch = torch.mul(base, 0.5 + torch.rand(len(base), 1, generator=generator) / 2, out=scaled[: len(base)])
        began = time.perf_counter()
        metrics.add(batch, hits)
        adding += time.perf_counter() - began
    release_freed()
    kept = memory("VmRSS") - before
    # From here on the kernel counts the peak anew.
    Path("/proc/self/clear_refs").write_text("5")
    began = time.perf_counter()
    assert metrics.compute().videos == videos
    return adding, time.perf_counter() - began, kept, memory("VmHWM") - before


def release_freed() -> None:
    """Give freed memory back, which `keep_freed_memory` keeps (glibc)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":
    main()
