"""The report's pictures: SVG that takes its text's colour from the page, so that it can be read in light and dark."""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from topgb.evaluation.reported import ReportedModel

CURVE_POINTS = 400
# The colours of Okabe and Ito's palette (colour-blind readers can tell them apart) that show on white and on black.
COLOURS = ("#2487C4", "#D55E00", "#009E73", "#CC79A7", "#C98A00", "#56B4E9")
STYLES = ("-", "--", ":", "-.")
# Stands for the colour of the page's text.
_INK = "#010203"
_SETTINGS: Any = {
    "svg.hashsalt": "topgb",
    "svg.fonttype": "none",
    "font.size": 10,
    "font.family": "sans-serif",
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
}
# Bins with fewer pairs are left out: their shares are chance.
LEAST_PAIRS = 20
# Where the number of a point may stand, in points from its middle: nearest first.
_PLACES = [
    (x, y) for far in (9, 16, 24) for x, y in ((0, far), (far, 0), (0, -far), (-far, 0), (far, far), (-far, -far))
]

Draw = Callable[[Axes, Any], None]


def picture(draw: Draw, data: Any, title: str) -> str:
    """A figure of one chart as SVG, the same for the same data; `title` says in words what it shows."""
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(5.2, 3.6), layout="constrained")
        draw(figure.subplots(), data)
        text = io.StringIO()
        # No date: the same data give the same page.
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = svg.replace(_INK, "currentColor").replace("font: 10px 'sans-serif'", "font: 10px sans-serif")
    svg = re.sub(r"\sxmlns:xlink=\"[^\"]*\"", "", svg, count=0) if "xlink:href" not in svg else svg
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def draw_sizes(axes: Axes, models: Sequence[ReportedModel]) -> None:
    """GAP against megabytes, each point with the number of its row in the table."""
    sizes = [model.file_bytes / 1e6 for model in models]
    gaps = [model.metrics.compute().gap for model in models]
    axes.scatter(sizes, gaps, s=22, color=COLOURS[0], zorder=3)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(0.12, 0.15)
    _frame(axes, "megabytes of the file", "GAP@20")
    _number(axes, sizes, gaps)


def _number(axes: Axes, xs: Sequence[float], ys: Sequence[float]) -> None:
    """Write each point's number, from 1, where it covers no other point and no other number."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    # The layout is known once the figure has been drawn.
    figure.draw_without_rendering()
    points = axes.transData.transform(np.column_stack([xs, ys])) * 72 / figure.dpi
    taken = [tuple(point) for point in points]
    for number, (x, y) in enumerate(points, start=1):

        def room(place: tuple[int, int], x: float = x, y: float = y, own: int = number - 1) -> float:
            at = x + place[0], y + place[1]
            others = [other for index, other in enumerate(taken) if index != own]
            return min((max(abs(at[0] - a), abs(at[1] - b)) for a, b in others), default=99.0)

        place = next((place for place in _PLACES if room(place) >= 11), max(_PLACES, key=room))
        taken.append((x + place[0], y + place[1]))
        far = max(map(abs, place)) > 9
        axes.annotate(
            str(number),
            (xs[number - 1], ys[number - 1]),
            xytext=place,
            textcoords="offset points",
            ha="center",
            va="center",
            arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": _INK, "alpha": 0.5} if far else None,
        )


def draw_precision_recall(axes: Axes, models: Sequence[ReportedModel]) -> None:
    """Precision against recall along the global ranking."""
    for index, model in enumerate(models):
        hits = np.cumsum(model.metrics.ranking().hits)
        points = np.unique(np.linspace(0, len(hits) - 1, min(CURVE_POINTS, len(hits))).astype(int))
        recall = hits[points] / max(model.metrics.positives.sum(), 1)
        axes.plot(recall, hits[points] / (points + 1), STYLES[index % 4], color=colour(index), label=model.name)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    _frame(axes, "recall", "precision", legend=True)


def draw_reliability(axes: Axes, models: Sequence[ReportedModel]) -> None:
    """The share of labels among pairs of a probability, against this probability."""
    axes.plot([0, 1], [0, 1], color=_INK, alpha=0.4, linewidth=1)
    for index, model in enumerate(models):
        enough = model.reliability.pairs >= LEAST_PAIRS
        pairs, labels, sums = (
            counts[enough] for counts in (model.reliability.pairs, model.reliability.labels, model.reliability.sums)
        )
        axes.plot(
            sums / pairs, labels / pairs, "o" + STYLES[index % 4], color=colour(index), markersize=4, label=model.name
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    _frame(axes, "probability", "share that are labels", legend=True)


def draw_curve(axes: Axes, data: tuple[str, str, Sequence[tuple[str, Sequence[dict[str, Any]]]]]) -> None:
    """A figure of runs against steps: (key, label, (name, log) of each run)."""
    key, label, runs = data
    for index, (name, entries) in enumerate(runs):
        several = f"{name}: " if len(runs) > 1 else ""
        # A run that trains without labels has no GAP.
        known = [entry for entry in entries if key in entry]
        steps, values = [entry["step"] for entry in known], [entry[key] for entry in known]
        axes.plot(steps, values, color=colour(2 * index), linewidth=1, label=f"{several}training batches")
        held = [entry for entry in entries if key in (entry.get("validation") or {})]
        if held:
            at, scores = [entry["step"] for entry in held], [entry["validation"][key] for entry in held]
            axes.plot(at, scores, "o-", color=colour(2 * index + 1), markersize=4, label=f"{several}held-out videos")
    _frame(axes, "step", label, legend=True)


def colour(index: int) -> str:
    """The colour of the model or run number `index`."""
    return COLOURS[index % len(COLOURS)]


def _frame(axes: Axes, x: str, y: str, legend: bool = False) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, color=_INK)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9)
